/** Checks of arguments that the compiler makes for TypeScript and nobody for plain JavaScript. */
import { FoveaError } from '../errors.ts';
import { Tensor } from './tensor.ts';

/** "null", "an array", "a Float32Array", "a number" */
export function kindText(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  if (Array.isArray(value)) return 'an array';
  if (typeof value !== 'object') return `a ${typeof value}`;
  const name = Object.getPrototypeOf(value)?.constructor?.name as string | undefined;
  return name ? `${/^[AEIO]/.test(name) ? 'an' : 'a'} ${name}` : 'an object';
}

/** Throws ERR_ARGUMENT unless `value` is an object, whose members are then looked at. */
export function expectObject(op: string, name: string, value: unknown): void {
  if (typeof value !== 'object' || value === null)
    throw new FoveaError('ERR_ARGUMENT', `${op}: ${name} must be an object, got ${kindText(value)}`);
}

/** Throws ERR_ARGUMENT unless `value` is a function, which is then called. */
export function expectFunction(op: string, name: string, value: unknown): void {
  if (typeof value !== 'function')
    throw new FoveaError('ERR_ARGUMENT', `${op}: ${name} must be a function, got ${kindText(value)}`);
}

/** Throws ERR_ARGUMENT unless every value is a tensor. */
export function expectTensors(op: string, tensors: Readonly<Record<string, unknown>>): void {
  for (const name in tensors)
    if (!(tensors[name] instanceof Tensor))
      throw new FoveaError('ERR_ARGUMENT', `${op}: ${name} must be a tensor, got ${kindText(tensors[name])}`);
}

/** Throws ERR_ARGUMENT unless every value is a tensor, null or undefined. */
export function expectOptionalTensors(op: string, tensors: Readonly<Record<string, unknown>>): void {
  for (const name in tensors) {
    const value = tensors[name];
    if (value !== null && value !== undefined && !(value instanceof Tensor))
      throw new FoveaError('ERR_ARGUMENT', `${op}: ${name} must be a tensor or left out, got ${kindText(value)}`);
  }
}

/** Throws ERR_ARGUMENT unless `list` is an array of tensors. */
export function expectTensorList(op: string, name: string, list: unknown): void {
  if (!Array.isArray(list))
    throw new FoveaError('ERR_ARGUMENT', `${op}: ${name} must be an array of tensors, got ${kindText(list)}`);
  for (const [i, t] of list.entries()) expectTensors(op, { [`${name}[${i}]`]: t });
}

/** Throws ERR_ARGUMENT unless every value is a finite number of at least `least`. */
export function expectNumbers(op: string, values: Readonly<Record<string, unknown>>, least = -Infinity): void {
  for (const name in values) {
    const value = values[name];
    if (typeof value !== 'number' || !Number.isFinite(value) || value < least)
      throw new FoveaError(
        'ERR_ARGUMENT',
        `${op}: ${name} is ${String(value)}, expected a finite number${least > -Infinity ? ` of at least ${least}` : ''}`,
      );
  }
}

/** Throws ERR_ARGUMENT unless `list` is an array or a TypedArray. */
export function expectList(op: string, name: string, list: unknown): void {
  if (!Array.isArray(list) && !ArrayBuffer.isView(list))
    throw new FoveaError('ERR_ARGUMENT', `${op}: ${name} must be an array, got ${kindText(list)}`);
}

/** Throws ERR_ARGUMENT unless `list` is an array of whole numbers. */
export function expectIntegers(op: string, name: string, list: unknown): void {
  if (!Array.isArray(list) || !list.every(Number.isSafeInteger))
    throw new FoveaError(
      'ERR_ARGUMENT',
      `${op}: ${name} must be an array of whole numbers, got ${Array.isArray(list) ? `[${list.map(String).join(', ')}]` : kindText(list)}`,
    );
}
