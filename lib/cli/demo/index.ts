/** `fovea demo`: the main job, on real data that a package brings. All seeds fixed. */
import { resolve } from 'node:path';
import { note, report, timeText, type CommonOptions } from '../output.ts';
import { chapters, expectPackages, photo } from './corpus.ts';
import { trainLanguageModel } from './language_model.ts';
import { photoAttention } from './photo.ts';
import { textAttention, textAttentionTable } from './text_attention.ts';

export interface DemoOptions extends CommonOptions {
  out: string;
  quick?: boolean;
}

export async function demo(options: DemoOptions): Promise<number> {
  const start = performance.now();
  expectPackages();
  const documents = chapters();
  const bytes = documents.reduce((n, d) => n + d.length, 0);

  note(
    `1. Attention over ${documents.length} chapters (${bytes} bytes) packed as documents: causal, same chapter, window 256`,
  );
  const rows = await textAttention(documents, options.quick ? [1024, 4096] : [1024, 4096, 16384, 32768]);

  note('\n2. Training a byte-level language model with that mask');
  let lastLine = 0;
  const training = await trainLanguageModel(documents, {
    steps: options.quick ? 40 : 300,
    dim: 192,
    layers: 4,
    heads: 4,
    onStep: (step, bits, tokensPerSecond) => {
      const now = performance.now();
      const terminal = process.stderr.isTTY;
      if (step > 1 && now - lastLine < (terminal ? 200 : 5000)) return;
      lastLine = now;
      process.stderr.write(
        `${terminal ? '\r' : ''}  step ${step}  ${bits.toFixed(3)} bits/byte  ${tokensPerSecond.toFixed(0)} tokens/s   ${terminal ? '' : '\n'}`,
      );
    },
  });

  note('\n3. Where patches of a photograph look');
  const picture = await photoAttention(photo(), resolve(options.out));

  const seconds = (performance.now() - start) / 1000;
  const { terminal, ...files } = picture;
  report(options, { attention: rows, training, photo: files, seconds }, () =>
    [
      '1. attention on text, masked against dense (error against double precision, sampled rows)',
      textAttentionTable(rows),
      '',
      `2. language model: ${training.parameters} parameters, ${training.steps} steps, ${training.tokens} bytes in ${timeText(training.seconds * 1000)} (${training.tokensPerSecond.toFixed(0)} tokens/s)`,
      `   held-out text: ${training.bitsPerByte.toFixed(3)} bits per byte; single bytes alone: ${training.unigramBits.toFixed(3)}`,
      `   sample: ${JSON.stringify(training.sample)}`,
      '',
      `3. photograph, ${picture.grid.join(' x ')} patches: ${files.png}, ${files.svg}`,
      ...(process.stdout.isTTY ? [terminal] : []),
      '',
      `done in ${timeText(seconds * 1000)}`,
    ].join('\n'),
  );
  const learned = training.bitsPerByte < training.unigramBits - 0.5;
  const exact = rows.every((row) => row.maxError < 1e-4);
  if (!learned) note('the language model did not get far below the entropy of single bytes');
  if (!exact) note('masked attention differs from the double-precision reference');
  return learned && exact ? 0 : 1;
}
