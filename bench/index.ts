/** Runs every family, or those named: npm run bench [-- attention matmul]. */
import { readdirSync } from 'node:fs';

const families = readdirSync(new URL('.', import.meta.url))
  .filter(
    (name) =>
      name.endsWith('.ts') && !['index.ts', 'report.ts', 'fit.ts', 'efficiency.ts', 'onnx_model.ts'].includes(name),
  )
  .map((name) => name.slice(0, -3));
const wanted = process.argv.slice(2);
const unknown = wanted.filter((name) => !families.includes(name));
if (unknown.length > 0) {
  process.stderr.write(`no family ${unknown.join(', ')}; there are ${families.join(', ')}\n`);
  process.exit(2);
}
for (const family of wanted.length ? wanted : families) {
  process.stdout.write(`\n# ${family}\n`);
  await import(`./${family}.ts`);
}
