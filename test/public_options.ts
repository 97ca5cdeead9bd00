/**
 * The objects of options that the public functions take, as the compiler sees them: every parameter of an exported function, constructor or
 * method whose type is a plain object declared in lib, and every such property of these.
 */
import { fileURLToPath, pathToFileURL } from 'node:url';
import ts from 'typescript';

const root = fileURLToPath(new URL('..', import.meta.url));
const lib = new URL('../lib/', import.meta.url);
const entry = fileURLToPath(new URL('index.ts', lib));

/**
 * Names "function.parameter", "Class.parameter" of a constructor, "Class.method.parameter" and "Interface.property", without those of types
 * in `operands` and without the names in it.
 */
export function publicOptions(operands: ReadonlySet<string>): Set<string> {
  const config = ts.readConfigFile(`${root}tsconfig.json`, (path) => ts.sys.readFile(path));
  const { options } = ts.parseJsonConfigFileContent(config.config, ts.sys, root);
  const program = ts.createProgram([entry], options);
  const checker = program.getTypeChecker();
  const found = new Set<string>();

  const isOurs = (symbol: ts.Symbol): boolean =>
    (symbol.declarations ?? []).some((d) => pathToFileURL(d.getSourceFile().fileName).href.startsWith(lib.href));

  /** The plain objects that a value of this type may be, or may list. */
  const objectsIn = (type: ts.Type, seen: ReadonlySet<ts.Type> = new Set()): ts.Type[] => {
    const names = [type.aliasSymbol?.name, type.symbol?.name];
    if (seen.has(type) || names.some((name) => name && operands.has(name))) return [];
    const within = (parts: readonly ts.Type[]): ts.Type[] =>
      parts.flatMap((part) => objectsIn(part, new Set(seen).add(type)));
    const constraint = checker.getBaseConstraintOfType(type) ?? type;
    if (constraint.isUnion()) return within(constraint.types);
    if (checker.isArrayLikeType(constraint) || constraint.symbol?.name === 'Iterable')
      return within(checker.getTypeArguments(constraint as ts.TypeReference));
    const isObject = constraint.isIntersection() || (constraint.flags & ts.TypeFlags.Object) !== 0;
    const isClass = constraint.symbol && (constraint.symbol.flags & ts.SymbolFlags.Class) !== 0;
    if (!isObject || isClass || constraint.getCallSignatures().length > 0) return [];
    const properties = checker.getPropertiesOfType(constraint);
    return properties.length > 0 && properties.every(isOurs) ? [constraint] : [];
  };

  const add = (name: string, type: ts.Type): void => {
    const objects = operands.has(name) ? [] : objectsIn(type);
    if (objects.length === 0 || found.has(name)) return;
    found.add(name);
    for (const property of objects.flatMap((object) => checker.getPropertiesOfType(object))) {
      const owner = property.declarations?.[0].parent;
      if (owner && ts.isInterfaceDeclaration(owner))
        add(`${owner.name.text}.${property.name}`, checker.getTypeOfSymbol(property));
    }
  };

  const addSignatures = (name: string, signatures: readonly ts.Signature[]): void => {
    for (const signature of signatures)
      for (const parameter of signature.getParameters())
        add(`${name}.${parameter.name}`, checker.getTypeOfSymbol(parameter));
  };

  const addClass = (symbol: ts.Symbol): void => {
    const statics = checker.getTypeOfSymbol(symbol);
    if (!(ts.getCombinedModifierFlags(symbol.valueDeclaration as ts.Declaration) & ts.ModifierFlags.Abstract))
      addSignatures(symbol.name, statics.getConstructSignatures());
    const members = [...statics.getProperties(), ...checker.getDeclaredTypeOfSymbol(symbol).getProperties()];
    for (const member of members.filter(isOurs)) {
      const declaration = member.valueDeclaration;
      if (!declaration) continue; // a method of Tensor made from a function, which is asked itself
      const owner = declaration.parent as ts.ClassDeclaration;
      const hidden =
        (ts.getCombinedModifierFlags(declaration) & (ts.ModifierFlags.Protected | ts.ModifierFlags.Private)) !== 0;
      if (!hidden && !member.name.startsWith('#'))
        addSignatures(`${owner.name?.text}.${member.name}`, checker.getTypeOfSymbol(member).getCallSignatures());
    }
  };

  const addExports = (module: ts.Symbol): void => {
    for (const alias of checker.getExportsOfModule(module)) {
      const symbol = alias.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(alias) : alias;
      if (symbol.flags & ts.SymbolFlags.Class) addClass(symbol);
      else if (symbol.flags & ts.SymbolFlags.ValueModule) addExports(symbol);
      else if (symbol.flags & ts.SymbolFlags.Value)
        addSignatures(symbol.name, checker.getTypeOfSymbol(symbol).getCallSignatures());
    }
  };
  const source = program.getSourceFile(entry);
  addExports(checker.getSymbolAtLocation(source as ts.SourceFile) as ts.Symbol);
  return found;
}
