import { FoveaError } from '../errors.ts';

/** "[2, 3]"; what is no shape as it is. */
export function shapeText(shape: readonly number[]): string {
  return Array.isArray(shape) ? `[${shape.map(String).join(', ')}]` : String(shape);
}

/** An axis counted from the end when negative, as an index. Throws ERR_ARGUMENT when out of range. */
export function axisOf(op: string, axis: number, rank: number): number {
  if (!Number.isInteger(axis) || axis < -rank || axis >= rank) {
    throw new FoveaError('ERR_ARGUMENT', `${op}: axis ${String(axis)} is out of range for rank ${rank}`);
  }
  return axis < 0 ? axis + rank : axis;
}

export function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((n, i) => n === b[i]);
}

/** The shape both broadcast to, by trailing axes. Throws ERR_SHAPE. */
export function broadcastShapes(op: string, a: readonly number[], b: readonly number[]): number[] {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, i) => {
    const x = a[i - rank + a.length] ?? 1;
    const y = b[i - rank + b.length] ?? 1;
    if (x !== y && x !== 1 && y !== 1) {
      throw new FoveaError(
        'ERR_SHAPE',
        `${op}: shapes ${shapeText(a)} and ${shapeText(b)} do not broadcast: sizes ${x} and ${y} differ`,
      );
    }
    return x === 1 ? y : x;
  });
}
