/**
 * Random tensors. The generator is Philox 4x32-10 with a counter (csrc/core/philox.h): element i of call number `offset` under `seed` is a
 * pure function of (seed, offset, i), so results are the same on every device, for any number of threads, and can be made again.
 *
 * The state is (seed, offset), one per JavaScript thread; each call takes the next offset. A call with `seed` of its own uses offset 0 and
 * leaves the state alone. Until manualSeed() is called the seed is drawn at random.
 */
import { FoveaError } from '../errors.ts';
import { native } from '../native.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { checkShape, TENSOR_OPTIONS, type TensorOptions } from '../tensor/create.ts';
import { chosenDevice } from '../tensor/device.ts';
import { dtypeCode } from '../tensor/dtype.ts';
import { expectNumbers, expectObject } from '../tensor/expect.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { finish } from './creation.ts';

export interface RandomOptions extends TensorOptions {
  /** Makes this call reproducible on its own; an integer. */
  seed?: number;
}

const RANDOM_OPTIONS: OptionNames<RandomOptions> = { ...TENSOR_OPTIONS, seed: true };

/** One call's place in the random stream. */
export interface RandomState {
  seed: number;
  offset: number;
}

const state: RandomState = { seed: Math.floor(Math.random() * 2 ** 48), offset: 0 };

function checkSeed(op: string, seed: number): void {
  if (!Number.isSafeInteger(seed)) throw new FoveaError('ERR_ARGUMENT', `${op}: seed must be an integer, got ${seed}`);
}

/** Restarts this thread's random stream at `seed`, an integer. */
export function manualSeed(seed: number): void {
  checkSeed('manualSeed', seed);
  state.seed = seed;
  state.offset = 0;
}

/** This thread's place in the random stream, to store and hand to setRandomState(). */
export function randomState(): RandomState {
  return { ...state };
}

/** Goes on from a place that randomState() gave. Throws ERR_ARGUMENT for what is none. */
export function setRandomState(place: RandomState): void {
  expectObject('setRandomState', 'state', place);
  const { seed, offset } = place;
  checkSeed('setRandomState', seed);
  checkSeed('setRandomState', offset);
  Object.assign(state, { seed, offset });
}

/** Runs `fn` at a place of the random stream, and goes on from the present one. */
export function withRandomState<R>(state: RandomState, fn: () => R): R {
  const before = randomState();
  setRandomState(state);
  try {
    return fn();
  } finally {
    setRandomState(before);
  }
}

/** The (seed, offset) of the next call. */
export function nextRandom(op: string, seed?: number): RandomState {
  if (seed === undefined) return { seed: state.seed, offset: state.offset++ };
  checkSeed(op, seed);
  return { seed, offset: 0 };
}

function prepare(op: string, shape: readonly number[], options: RandomOptions): RandomState & { device: number } {
  checkShape(op, shape);
  return { ...nextRandom(op, options.seed), device: chosenDevice(options.device) };
}

/** Bounds of rand(). */
export interface UniformOptions extends RandomOptions {
  /** Default 0. */
  low?: number;
  /** Default 1. */
  high?: number;
}

const UNIFORM_OPTIONS: OptionNames<UniformOptions> = { ...RANDOM_OPTIONS, low: true, high: true };

/** Moments of randn(). */
export interface NormalOptions extends RandomOptions {
  /** Default 0. */
  mean?: number;
  /** Standard deviation; default 1. */
  std?: number;
}

const NORMAL_OPTIONS: OptionNames<NormalOptions> = { ...RANDOM_OPTIONS, mean: true, std: true };

/**
 * Uniform in [low, high), [0, 1) by default; f32 by default, any floating dtype (ERR_DTYPE). 16-bit floats in [0, 1) get as many random
 * bits as they hold exactly; other bounds scale an f32 draw, whose rounding may reach `high`.
 */
export function rand(shape: readonly number[], options: UniformOptions = {}): Tensor {
  expectOptions('rand', options, UNIFORM_OPTIONS);
  const { seed, offset, device } = prepare('rand', shape, options);
  const { low = 0, high = 1 } = options;
  expectNumbers('rand', { low, high });
  return finish(
    native().rand(shape, dtypeCode(options.dtype ?? 'f32'), seed, offset, high - low, low, device),
    options,
  );
}

/** Normal (Box-Muller) with mean 0 and standard deviation 1 by default; f32 by default, any floating dtype (ERR_DTYPE). */
export function randn(shape: readonly number[], options: NormalOptions = {}): Tensor {
  expectOptions('randn', options, NORMAL_OPTIONS);
  const { seed, offset, device } = prepare('randn', shape, options);
  const { mean = 0, std = 1 } = options;
  expectNumbers('randn', { mean, std });
  return finish(native().randn(shape, dtypeCode(options.dtype ?? 'f32'), seed, offset, std, mean, device), options);
}

/**
 * Integers uniform in [low, high); i32 by default, also i64 and u8 (ERR_DTYPE).
 * Throws ERR_ARGUMENT unless low < high are integers at most 2^32 apart.
 */
export function randint(low: number, high: number, shape: readonly number[], options: RandomOptions = {}): Tensor {
  expectOptions('randint', options, RANDOM_OPTIONS);
  if (!Number.isSafeInteger(low) || !Number.isSafeInteger(high)) {
    throw new FoveaError('ERR_ARGUMENT', `randint: bounds must be integers, got ${low} and ${high}`);
  }
  const { seed, offset, device } = prepare('randint', shape, options);
  return finish(native().randint(shape, dtypeCode(options.dtype ?? 'i32'), seed, offset, low, high, device), options);
}

/** 1 (true) with probability `p`, else 0; bool by default. Throws ERR_ARGUMENT for p outside [0, 1]. */
export function bernoulli(p: number, shape: readonly number[], options: RandomOptions = {}): Tensor {
  expectOptions('bernoulli', options, RANDOM_OPTIONS);
  if (!(p >= 0 && p <= 1)) throw new FoveaError('ERR_ARGUMENT', `bernoulli: p must be in [0, 1], got ${p}`);
  const { seed, offset, device } = prepare('bernoulli', shape, options);
  return finish(native().bernoulli(shape, dtypeCode(options.dtype ?? 'bool'), seed, offset, p, device), options);
}
