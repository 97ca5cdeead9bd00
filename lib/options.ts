/**
 * Objects of options: a name that a function does not have is an error, and never ignored.
 *
 * The compiler finds most of them, but none in plain JavaScript or in a spread object, where a misspelt `causal` would be attention that sees
 * the future. So every public function that takes options begins with `expectOptions`, against a table beside the interface of its options;
 * functions that share an interface share its table, and an interface that extends another spreads the other's. Options that go on to another
 * function are checked where they come in: pass on those that it has. test/options.test.ts knows the public functions and asks all of them.
 */
import { FoveaError } from './errors.ts';

/** The names of all options of T: a table that misses one does not compile. */
export type OptionNames<T> = Readonly<Record<keyof T, true>>;

/**
 * Throws ERR_ARGUMENT for an option that `known` does not have, and for one that is a BigInt, which none may be: V8 would refuse to compute
 * with it. Other values are not looked at: undefined is as good as absent.
 */
export function expectOptions<T extends object>(op: string, options: T, known: OptionNames<NoInfer<T>>): void {
  if (typeof options !== 'object' || options === null)
    throw new FoveaError('ERR_ARGUMENT', `${op}: options are ${String(options)}, expected an object`);
  for (const name in options) {
    if (known[name] !== true) throw unknownOption(op, name, Object.keys(known));
    if (typeof options[name] === 'bigint')
      throw new FoveaError(
        'ERR_ARGUMENT',
        `${op}: ${name} is the BigInt ${options[name]}n, expected no BigInt; pass Number(${name})`,
      );
  }
}

function unknownOption(op: string, name: string, known: readonly string[]): FoveaError {
  const expected = known.length > 0 ? `some of ${known.join(', ')}` : 'none';
  return new FoveaError('ERR_ARGUMENT', `${op}: there is no option ${name}, expected ${expected}`);
}
