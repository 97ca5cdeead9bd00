/** The error of a table read that may be out of range. */
import { FoveaError } from '../errors.ts';
import type { Program } from './program.ts';

/** `range`: the index, or its lowest and highest value. */
export function indexError(
  program: Program,
  read: number,
  axis: number,
  range: number | readonly [number, number],
  title: string = program.kind,
): FoveaError {
  const { table: number, text } = program.checks?.reads[read] ?? { table: 0, text: '' };
  const { name, shape } = program.tables[number];
  const where = shape.length > 1 ? `axis ${axis} of "${name}"` : `"${name}"`;
  const index = typeof range === 'number' ? `is ${range}` : `may be anything from ${range[0]} to ${range[1]}`;
  return new FoveaError(
    'ERR_MASK_INDEX',
    `${title}: ${text}: the index ${index}, ${where} has ${shape[axis]} entries (0 to ${shape[axis] - 1})\n\n` +
      'Hint: keep it in range with Math.min and Math.max, or guard the read: kv > 0 ? table[kv - 1] : 0',
  );
}
