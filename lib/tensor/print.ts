import type { TensorData } from './dtype.ts';
import type { Tensor } from './tensor.ts';

const EDGE = 3;
const MAX_ELEMENTS = 1000;

/** How floating values are written, all in one form. */
function formatter(values: readonly number[]): (x: number) => string {
  const finite = values.filter(Number.isFinite).map(Math.abs);
  const largest = Math.max(0, ...finite);
  const smallest = Math.min(Infinity, ...finite.filter((x) => x > 0));
  if (finite.every(Number.isInteger) && largest < 1e6) return (x) => (Number.isFinite(x) ? `${x}.` : String(x));
  if (largest >= 1e6 || smallest < 1e-4) return (x) => (Number.isFinite(x) ? x.toExponential(4) : String(x));
  return (x) => (Number.isFinite(x) ? x.toFixed(4) : String(x));
}

/** The tensor as text, long axes abbreviated to their ends; blocks until the values are there. */
export function print(t: Tensor): string {
  const { shape, dtype } = t;
  const head = `Tensor(${dtype}, [${shape.join(', ')}]${t.requiresGrad ? ', requiresGrad' : ''})`;
  if (t.size === 0) return `${head} []`;
  const data: TensorData = t.dataSync();
  const shorten = t.size > MAX_ELEMENTS;
  const floating = !['i32', 'i64', 'u8', 'bool'].includes(dtype);
  const shown: (number | bigint)[] = [];
  const visit = (axis: number, at: number, each: (value: number | bigint) => string): string => {
    if (axis === shape.length) return each(data[at]);
    const step = shape.slice(axis + 1).reduce((n, extent) => n * extent, 1);
    const parts: string[] = [];
    for (let i = 0; i < shape[axis]; i++) {
      if (shorten && shape[axis] > 2 * EDGE && i === EDGE) {
        parts.push('...');
        i = shape[axis] - EDGE;
      }
      parts.push(visit(axis + 1, at + i * step, each));
    }
    const inner = axis === shape.length - 1;
    return `[${parts.join(inner ? ', ' : `,${'\n'.repeat(shape.length - axis - 1)}${' '.repeat(axis + 1)}`)}]`;
  };
  visit(0, 0, (value) => String(shown.push(value)));
  const pretty = formatter(shown.map(Number));
  const format = (value: number | bigint): string => (floating ? pretty(Number(value)) : String(value));
  const width = Math.max(...shown.map((value) => format(value).length));
  return `${head}\n${visit(0, 0, (value) => format(value).padStart(width))}`;
}
