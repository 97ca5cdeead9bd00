/**
 * A golden file as a test, on the CPU and then on CUDA: inputs and weights become f32 leaves, outputs and, where the file has them, all
 * gradients are compared. Every `output.` tensor of the file has to be given, or named in `leave`.
 */
import { fileURLToPath } from 'node:url';
import { expect } from 'vitest';
import { cast, contiguous, grad, setDevice, type Module, type Tensor } from '../lib/index.ts';
import { loadSafetensors } from '../lib/io/safetensors.ts';
import { useCuda } from './cuda/device.ts';
import { numbers } from './inputs.ts';
import { relativeError, TOLERANCE } from './tolerance.ts';

export interface GoldenCase {
  input(name: string): Tensor;
  weight(name: string): Tensor;
  /** The module with the weights of the file, whose names must be its own, in evaluation; its parameters then are those that gradients are of. */
  module<M extends Module>(module: M): M;
  /** Whether the file has the input. */
  has(name: string): boolean;
  readonly config: Readonly<Record<string, never>>;
  readonly metadata: Readonly<Record<string, string>>;
}

export interface GoldenOptions {
  /** Outputs not compared. */
  readonly leave?: readonly string[];
  /** Of the tolerance of f32. */
  readonly factor?: number;
  /** Gradients of this size are compared absolutely: for those that are zero but for rounding. */
  readonly floor?: number;
}

type Run = (golden: GoldenCase) => Tensor | Readonly<Record<string, Tensor>>;

const FLOATING = ['f32', 'f64'];
const cuda = useCuda();

export function checkGolden(name: string, run: Run, options: GoldenOptions = {}): void {
  check(name, run, options, 'cpu');
  if (cuda.skip) return;
  setDevice('cuda');
  try {
    check(name, run, options, 'cuda');
  } finally {
    setDevice('cpu');
  }
}

function check(
  name: string,
  run: Run,
  { leave = [], factor = 1, floor = 0 }: GoldenOptions,
  device: 'cpu' | 'cuda',
): void {
  using file = loadSafetensors(fileURLToPath(new URL(`goldens/${name}.safetensors`, import.meta.url)));
  const leaves = new Map<string, Tensor>();
  const leaf = (key: string): Tensor => {
    let t = leaves.get(key);
    if (!t) {
      const stored = file.get(key);
      t = (FLOATING.includes(stored.dtype) ? contiguous(cast(stored, 'f32')).detach() : stored).to(device).detach();
      if (file.has(`grad.${key}`)) t.requiresGrad = true;
      leaves.set(key, t);
    }
    return t;
  };
  const result = run({
    input: (key) => leaf(`input.${key}`),
    weight: (key) => leaf(`weights.${key}`),
    module: (module) => {
      module.to('cpu').eval();
      const names = file.keys().filter((key) => key.startsWith('weights.'));
      module.loadStateDict(Object.fromEntries(names.map((key) => [key.slice('weights.'.length), file.get(key)])));
      module.to(device);
      for (const [key, t] of Object.entries(module.stateDict())) leaves.set(`weights.${key}`, t);
      return module;
    },
    has: (key) => file.has(`input.${key}`),
    get config() {
      return JSON.parse(file.metadata.config ?? '{}') as Record<string, never>;
    },
    metadata: file.metadata,
  });
  const single = 'dtype' in result;
  const outputs: Record<string, Tensor> = single ? { out: result as Tensor } : { ...result };
  const stored = file.keys().flatMap((key) => (key.startsWith('output.') ? [key.slice('output.'.length)] : []));
  expect(Object.keys(outputs).concat(leave).toSorted()).toEqual(stored.toSorted());
  for (const [key, out] of Object.entries(outputs)) {
    const expected = file.get(`output.${key}`);
    expect(out.shape, `${key} on ${device}`).toEqual(expected.shape);
    expect(relativeError(numbers(out), numbers(expected)), `output ${key} on ${device}`).toBeLessThanOrEqual(
      factor * TOLERANCE.f32,
    );
  }
  const seeds = Object.entries(outputs).flatMap(([key, out]) => {
    const own = `cotangent.output.${key}`;
    const named = file.has(own) ? own : key === 'out' && file.has('cotangent.output') ? 'cotangent.output' : null;
    return named && out.requiresGrad ? [{ out, seed: cast(file.get(named), 'f32').to(device) }] : [];
  });
  const wanted = file.keys().flatMap((key) => (key.startsWith('grad.') ? [key.slice('grad.'.length)] : []));
  if (wanted.length === 0) return;
  const grads = grad(
    seeds.map(({ out }) => out),
    wanted.map(leaf),
    { gradients: seeds.map(({ seed }) => seed) },
  );
  wanted.forEach((key, i) => {
    const g = grads[i];
    const expected = numbers(file.get(`grad.${key}`));
    if (g === null)
      return expect(
        expected.every((x) => x === 0),
        `gradient of ${key} on ${device}`,
      ).toBe(true);
    expect(g.shape).toEqual(leaf(key).shape);
    expect(
      relativeError([...numbers(g), floor], [...expected, floor]),
      `gradient of ${key} on ${device}`,
    ).toBeLessThanOrEqual(factor * TOLERANCE.f32);
  });
}
