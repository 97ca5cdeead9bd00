/** A training step of the byte-level language model: width 256, 4 layers, 4 heads, 512 bytes, batch 8, f32, AdamW, gradient clipping. */
import { AdamW, clipGradNorm, crossEntropy, manualSeed, randint, reshape, scope } from '../lib/index.ts';
import { ByteModel } from '../lib/cli/demo/language_model.ts';
import { measure, round, save, type Row } from './report.ts';
import { inTorch } from './torch.ts';

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

const rows: Row[] = [];
for (const threads of [1, 2]) {
  const row = await measure('byte LM train step d256 L512 B8', step, { threads, flops, repeat: 4, seconds: 2 });
  const tokensPerSecond = (BATCH * LENGTH * 1000) / row.ms;
  /** The same step in PyTorch. */
  const torch = inTorch<{ tokensPerSecond: number }>('language_model.py', threads)?.tokensPerSecond;
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
