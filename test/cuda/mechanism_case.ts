/**
 * A mechanism on CUDA against the same call on the CPU, which test/*.test.ts hold to double precision: results and the gradient of every
 * leaf. Meanwhile the default device is the other one, so that nothing a mechanism makes inside may depend on it.
 */
import { expect } from 'vitest';
import { cast, grad, setDevice, tensor, type DType, type Tensor } from '../../lib/index.ts';
import { uniform } from '../inputs.ts';
import { sizeOf } from '../reference.ts';
import { expectClose } from '../tolerance.ts';

export interface MechanismCase {
  /** Of the leaves; values are uniform in [-1, 1]. */
  readonly shapes: readonly (readonly number[])[];
  /** Integer results are compared exactly. */
  readonly op: (...leaves: Tensor[]) => Tensor | readonly Tensor[];
  /** Default f32 and bf16. */
  readonly dtypes?: readonly DType[];
  /** Times the dtype's tolerance; default 2. */
  readonly factor?: number;
  /** false: nothing of it is differentiable. */
  readonly gradient?: boolean;
}

const FLOATS: readonly DType[] = ['f32', 'bf16', 'f16'];
const values = (t: Tensor): Float32Array => cast(t, 'f32').dataSync() as Float32Array;

interface Results {
  readonly outputs: readonly { readonly dtype: DType; readonly values: ArrayLike<number> }[];
  /** Of each leaf; null where none reaches it. */
  readonly gradients: readonly (ArrayLike<number> | null)[];
}

function evaluate(c: MechanismCase, dtype: DType, device: 'cpu' | 'cuda'): Results {
  setDevice(device === 'cpu' ? 'cuda' : 'cpu');
  try {
    const { gradient = true } = c;
    const leaves = c.shapes.map((shape, i) =>
      tensor(uniform(sizeOf(shape), 11 + i), shape, { dtype, device, requiresGrad: gradient }),
    );
    const result = c.op(...leaves);
    const outputs = Array.isArray(result) ? (result as Tensor[]) : [result as Tensor];
    const smooth = outputs.filter((t) => t.requiresGrad);
    const seeds = smooth.map((t, i) => tensor(uniform(t.size, 99 + i), t.shape, { dtype: t.dtype, device }));
    expect(smooth.length > 0).toBe(gradient);
    const gradients = gradient ? grad(smooth, leaves, { gradients: seeds }) : [];
    return {
      outputs: outputs.map((t) => ({ dtype: t.dtype, values: values(t) })),
      gradients: gradients.map((g) => g && values(g)),
    };
  } finally {
    setDevice('cpu');
  }
}

export function checkMechanism(c: MechanismCase): void {
  const { factor = 2 } = c;
  for (const dtype of c.dtypes ?? (['f32', 'bf16'] as const)) {
    const expected = evaluate(c, dtype, 'cpu');
    const actual = evaluate(c, dtype, 'cuda');
    actual.outputs.forEach((out, i) => {
      const { dtype: kind, values: wanted } = expected.outputs[i];
      expect(out.dtype).toBe(kind);
      if (FLOATS.includes(kind)) expectClose(out.values, wanted, dtype, factor);
      else expect([...Array.from(out.values)]).toEqual([...Array.from(wanted)]);
    });
    actual.gradients.forEach((g, i) => {
      const wanted = expected.gradients[i];
      if (g === null || wanted === null) expect(g, `gradient ${i}`).toBe(wanted);
      else expectClose(g, wanted, dtype, factor);
    });
  }
}
