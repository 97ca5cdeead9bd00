/** A training step of the byte-level language model: width 256, 4 layers, 4 heads, 512 bytes, batch 8, f32, AdamW, gradient clipping. */
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { AdamW, clipGradNorm, crossEntropy, manualSeed, randint, reshape, scope } from '../lib/index.ts';
import { ByteModel } from '../lib/cli/demo/language_model.ts';
import { measure, round, save, type Row } from './report.ts';

const [LENGTH, BATCH] = [512, 8];
manualSeed(1);
const model = new ByteModel(256, 4, 4);
const parameters = [...model.parameters()];
const optimizer = new AdamW(parameters, { lr: 1e-3 });
const inputs = randint(0, 256, [BATCH, LENGTH], { dtype: 'i32' });
const targets = randint(0, 256, [BATCH * LENGTH], { dtype: 'i32' });

const step = (): void =>
  scope(() => {
    optimizer.zeroGrad();
    const logits = model.forward(inputs, { causal: true });
    crossEntropy(reshape(logits, [-1, 256]), targets).backward();
    clipGradNorm(parameters, 1);
    optimizer.step();
  });

const count = parameters.reduce((n, t) => n + t.size, 0);
// Six operations per parameter and token; attention: 4 forward and 10 backward per pair, channel and layer, half of the pairs.
const flops = 6 * count * BATCH * LENGTH + 14 * 4 * BATCH * 256 * LENGTH * LENGTH * 0.5;

/** The same step in PyTorch, tokens per second; undefined where no Python has it. */
function torchTokensPerSecond(threads: number): number | undefined {
  const script = fileURLToPath(new URL('./peers/language_model.py', import.meta.url));
  try {
    const out = execFileSync(process.env.PYTHON ?? 'python3', [script, String(threads)], { encoding: 'utf8' });
    return (JSON.parse(out) as { tokensPerSecond: number }).tokensPerSecond;
  } catch {
    process.stderr.write(
      '(no PyTorch in python3; set PYTHON to an interpreter that has it, its BLAS on the same threads: Debian python3-torch with libopenblas0-openmp)\n',
    );
    return undefined;
  }
}

const rows: Row[] = [];
for (const threads of [1, 2]) {
  const row = await measure('byte LM train step d256 L512 B8', step, { threads, flops, repeat: 4, seconds: 2 });
  const tokensPerSecond = (BATCH * LENGTH * 1000) / row.ms;
  const torch = torchTokensPerSecond(threads);
  const extra = {
    tokensPerSecond: round(tokensPerSecond),
    ...(torch === undefined
      ? {}
      : { torchTokensPerSecond: round(torch), ratioToTorch: round(tokensPerSecond / torch) }),
    peakRssMiB: round(process.resourceUsage().maxRSS / 1024),
  };
  process.stdout.write(
    `  ${extra.tokensPerSecond} tokens/s (PyTorch ${extra.torchTokensPerSecond ?? 'not here'}), peak RSS ${extra.peakRssMiB} MiB\n`,
  );
  rows.push({ ...row, ...extra });
}
save('language_model', rows);
