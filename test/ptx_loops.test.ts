import { expect, test } from 'vitest';
import { mainLoops } from '../scripts/ptx-loops.mjs';

const fmas = (n: number): string => '\tfma.rn.f32 %f1, %f2, %f3, %f1;\n'.repeat(n);
const entry = (name: string, body: string): string => `.visible .entry ${name}(\n\t.param .u64 p\n)\n{\n${body}}\n`;

test('the main loop is the smallest that holds nearly all products', () => {
  const [row, ...rest] = mainLoops(
    entry(
      'product',
      `\tmov.u32 %r1, 0;
$L_outer:
\tld.global.f32 %f2, [%rd1];
\tbar.sync 0;
$L_tile:
\tld.shared.v4.f32 {%f3, %f4, %f5, %f6}, [%r2];
${fmas(40)}\tadd.s32 %r1, %r1, 1;
\tsetp.lt.s32 %p1, %r1, 8;
\t@%p1 bra $L_tile;
\tex2.approx.ftz.f32 %f7, %f3;
\t@%p2 bra $L_outer;
\tst.global.f32 [%rd1], %f1;
\tret;
`,
    ) + entry('copy', '$L_1:\n\tld.global.f32 %f1, [%rd1];\n\t@%p1 bra $L_1;\n\tret;\n'),
  );
  expect(rest).toEqual([]);
  expect(row).toMatchObject({ kernel: 'product', total: 44, fma: 40, 'ld.shared': 1, ex2: 0, branch: 1, other: 2 });
});

test('a jump backwards in the text is no loop unless it comes back', () => {
  const text = `\tbra $L_start;
$L_tail:
${fmas(40)}\tret;
$L_start:
\tbra $L_tail;
`;
  expect(mainLoops(entry('straight', text))).toEqual([]);
});

test('products in both halves of a loop count together', () => {
  const mma = '\tmma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f1}, {%r1}, {%r2}, {%f1};\n'.repeat(20);
  const text = `$L_head:
\t@%p1 bra $L_second;
${mma}\tbra.uni $L_next;
$L_second:
${mma}$L_next:
\t@!%p2 bra $L_head;
\tret;
`;
  expect(mainLoops(entry('halves', text))).toMatchObject([{ mma: 40, branch: 3, total: 43 }]);
});

test('a loop with few mma is one of products, one with few fma is not', () => {
  const loop = (body: string): string => `$L_1:\n${body}\t@%p1 bra $L_1;\n\tret;\n`;
  const mma = '\tmma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f1}, {%r1}, {%r2}, {%f1};\n'.repeat(8);
  const rows = mainLoops(entry('decode', loop(mma)) + entry('scale', loop(fmas(8))));
  expect(rows).toEqual([expect.objectContaining({ kernel: 'decode', mma: 8 })]);
});
