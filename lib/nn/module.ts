/**
 * Modules: objects that own parameters and other modules.
 *
 * Both are found by walking own properties: a Tensor is a parameter (or a buffer, when made by `buffer()`), a Module is a child, arrays of
 * either are walked too. Names join property names and indices by dots, as in PyTorch ("layers.0.norm1.weight"). Private (#) fields are not
 * seen, which makes them the place for caches.
 */
import { FoveaError } from '../errors.ts';
import { copyFrom, to } from '../ops/copy.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { deviceCode, type DeviceName } from '../tensor/device.ts';
import { DTYPES, isFloating, type DType } from '../tensor/dtype.ts';
import { keep } from '../tensor/scope.ts';
import { expectTensors } from '../tensor/expect.ts';
import { sameShape, shapeText } from '../tensor/shape.ts';
import { Tensor } from '../tensor/tensor.ts';

const buffers = new WeakSet<Tensor>();

/** Marks `t` as a trained tensor of a module: requiresGrad, and kept out of scopes. */
export function parameter(t: Tensor): Tensor {
  expectTensors('parameter', { t });
  t.requiresGrad = true;
  return keep(t);
}

/** Marks `t` as state of a module that is saved but not trained. */
export function buffer(t: Tensor): Tensor {
  expectTensors('buffer', { t });
  buffers.add(t);
  return keep(t);
}

interface Slot {
  name: string;
  tensor: Tensor;
  replace(t: Tensor): void;
}

function* slotsOf(owner: object, prefix: string): Iterable<Slot> {
  for (const [key, value] of Object.entries(owner) as [string, unknown][]) {
    const name = prefix + key;
    if (value instanceof Tensor) {
      yield { name, tensor: value, replace: (t) => void ((owner as Record<string, unknown>)[key] = t) };
    } else if (value instanceof Module || Array.isArray(value)) yield* slotsOf(value, `${name}.`);
  }
}

function* modulesOf(owner: object, prefix: string): Iterable<[string, Module]> {
  for (const [key, value] of Object.entries(owner) as [string, unknown][]) {
    if (value instanceof Module) yield [prefix + key, value];
    if (value instanceof Module || Array.isArray(value)) yield* modulesOf(value, `${prefix}${key}.`);
  }
}

export interface LoadOptions {
  /** Throw when names are missing or unexpected. Default true. */
  strict?: boolean;
}

const LOAD_OPTIONS: OptionNames<LoadOptions> = { strict: true };

/**
 * What owns parameters and other modules: the tensors, modules and arrays of either among its own properties. Their names are joined by dots
 * ("layers.0.norm1.weight"), as in PyTorch. Extend it, make parts in the constructor or as fields, and write `forward`.
 */
export abstract class Module {
  /** Set by train() and eval(); dropout reads it. */
  training = true;

  /** What the module computes. */
  abstract forward(...inputs: never[]): unknown;

  /** This module and all below it, with their dotted names ('' for this one). */
  *namedModules(): Iterable<[string, Module]> {
    yield ['', this];
    yield* modulesOf(this, '');
  }

  /** Parameters with their dotted names; a tensor that is reachable twice (tied weights) comes once, under its first name. */
  *namedParameters(): Iterable<[string, Tensor]> {
    const seen = new Set<Tensor>();
    for (const { name, tensor } of slotsOf(this, '')) {
      if (buffers.has(tensor) || seen.has(tensor)) continue;
      seen.add(tensor);
      yield [name, tensor];
    }
  }

  /** Every parameter once. */
  parameters(): Tensor[] {
    return [...this.namedParameters()].map(([, t]) => t);
  }

  /** Number of trained values. */
  parameterCount(): number {
    return this.parameters().reduce((n, t) => n + t.size, 0);
  }

  /** Parameters and buffers by dotted name; the live tensors, not copies. Tied weights appear under each of their names. */
  stateDict(): Record<string, Tensor> {
    return Object.fromEntries([...slotsOf(this, '')].map(({ name, tensor }) => [name, tensor]));
  }

  /**
   * Copies `record` into the tensors of the same names, in place, converting dtypes. Nothing is written unless everything fits.
   * Throws ERR_SHAPE where shapes differ and, when strict, ERR_ARGUMENT for names that are missing or unexpected, which are returned
   * otherwise.
   */
  loadStateDict(
    record: Readonly<Record<string, Tensor>>,
    options: LoadOptions = {},
  ): { missing: string[]; unexpected: string[] } {
    expectOptions('loadStateDict', options, LOAD_OPTIONS);
    const { strict = true } = options;
    const own = this.stateDict();
    const missing = Object.keys(own).filter((name) => !Object.hasOwn(record, name));
    const unexpected = Object.keys(record).filter((name) => !Object.hasOwn(own, name));
    if (strict && missing.length + unexpected.length > 0) {
      const list = (names: string[]): string =>
        names.length === 0
          ? 'none'
          : names.slice(0, 8).join(', ') + (names.length > 8 ? `, ... (${names.length})` : '');
      throw new FoveaError(
        'ERR_ARGUMENT',
        `loadStateDict: missing: ${list(missing)}; unexpected: ${list(unexpected)}; pass { strict: false } to load what fits`,
      );
    }
    const pairs = Object.entries(own).filter(([name]) => Object.hasOwn(record, name));
    for (const [name, t] of pairs) {
      if (!((record[name] as unknown) instanceof Tensor))
        throw new FoveaError('ERR_ARGUMENT', `loadStateDict: '${name}' is ${typeof record[name]}, expected a tensor`);
      if (!sameShape(t.shape, record[name].shape)) {
        throw new FoveaError(
          'ERR_SHAPE',
          `loadStateDict: '${name}' has shape ${shapeText(record[name].shape)}, expected ${shapeText(t.shape)}`,
        );
      }
    }
    for (const [name, t] of pairs) copyFrom(t, record[name]);
    return { missing, unexpected };
  }

  /** Training mode (or not) for this module and all below. */
  train(training = true): this {
    for (const [, module] of this.namedModules()) module.training = training;
    return this;
  }

  /** As train(false): dropout does nothing, batch normalisation takes its running statistics. */
  eval(): this {
    return this.train(false);
  }

  /**
   * Converts floating parameters and buffers to a dtype, or moves them to a device. Parameters become new tensors: make optimizers after
   * this. Throws ERR_DTYPE for a dtype that is not floating, ERR_DEVICE for a device that is not there.
   */
  to(target: DType | (string & {})): this {
    const isDType = (DTYPES as readonly string[]).includes(target);
    if (isDType && !isFloating(target as DType))
      throw new FoveaError('ERR_DTYPE', `to: parameters cannot be ${target}; expected a floating dtype`);
    const device = isDType ? 0 : deviceCode(target);
    const moved = new Map<Tensor, Tensor>();
    for (const { tensor: t, replace } of slotsOf(this, '')) {
      const stays = isDType ? !isFloating(t.dtype) || t.dtype === target : deviceCode(t.device) === device;
      if (stays) continue;
      let next = moved.get(t);
      if (!next) {
        next = keep(to(t.detach(), target as DType | DeviceName));
        if (buffers.has(t)) buffers.add(next);
        else next.requiresGrad = t.requiresGrad;
        moved.set(t, next);
      }
      replace(next);
    }
    return this;
  }
}
