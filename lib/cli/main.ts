#!/usr/bin/env node
/** The fovea command. Exit codes: 0 done, 1 failed, 2 wrong use. Results on stdout, everything else on stderr. */
import cac from 'cac';
import { FoveaError } from '../errors.ts';
import { VERSION } from '../version.ts';

const cli = cac('fovea');

// `fovea ... | head` closes the pipe early: no error of ours.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exit();
});

type Run = () => Promise<number> | number;

async function finish(run: Run): Promise<void> {
  try {
    process.exitCode = await run();
  } catch (error) {
    const known = error instanceof FoveaError;
    process.stderr.write(
      `fovea: ${known ? `${error.code}: ${error.message}` : error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`,
    );
    process.exitCode = known && error.code === 'ERR_ARGUMENT' ? 2 : 1;
  }
}

cli
  .command('doctor', 'What this machine has, what works, and why not where it does not')
  .option('--json', 'Print JSON')
  .action((options) => finish(async () => (await import('./doctor.ts')).doctor(options)));

cli
  .command('demo', 'Attention, training and pictures on real text and a photograph; under two minutes on two cores')
  .option('--json', 'Print JSON')
  .option('--out <folder>', 'Where pictures are written', { default: 'out' })
  .option('--quick', 'Shorter lengths and less training')
  .action((options) => finish(async () => (await import('./demo/index.ts')).demo(options)));

cli
  .command('bench', 'Times attention on this machine, masked and dense, against the FMA peak')
  .option('--json', 'Print JSON')
  .option('--length <n>', 'Queries and keys', { default: 4096 })
  .option('--heads <n>', 'Heads', { default: 8 })
  .option('--dim <n>', 'Head dimension', { default: 64 })
  .option('--dtype <name>', 'f32, bf16 or f16', { default: 'f32' })
  .option('--threads <n>', 'Threads; default all')
  .action((options) => finish(async () => (await import('./bench.ts')).bench(options)));

cli
  .command('mask <action> <what>', 'mask show WHAT: draws a library mask, "({ q, kv }) => ...", or file.mjs#export')
  .option('--json', 'Print JSON')
  .option('--q <n>', 'Queries', { default: 1024 })
  .option('--kv <n>', 'Keys; default as queries')
  .option('--block <n>', 'Block size, a multiple of 16', { default: 128 })
  .option('--args <json>', "The mask's arguments as a JSON array", { default: '[]' })
  .option('--style <name>', 'blocks or dots', { default: 'blocks' })
  .option('--svg <file>', 'Also write an SVG')
  .example('  fovea mask show slidingWindow --args "[256]"')
  .example('  fovea mask show "({ q, kv }) => q >= kv && (q - kv) % 4 === 0" --style dots')
  .action((action: string, what: string, options) =>
    finish(async () => {
      if (action !== 'show')
        throw new FoveaError('ERR_ARGUMENT', `unknown action 'mask ${action}'; there is 'mask show'`);
      return (await import('./mask_show.ts')).maskShow(what, options);
    }),
  );

cli
  .command('explain', 'What an attention call would do: kernel chosen and refused, tiles, FLOPs, bytes')
  .option('--json', 'Print JSON')
  .option('--batch <n>', 'Batch', { default: 1 })
  .option('--heads <n>', 'Query heads', { default: 8 })
  .option('--kv-heads <n>', 'Key heads; default as query heads')
  .option('--q <n>', 'Queries', { default: 4096 })
  .option('--kv <n>', 'Keys; default as queries')
  .option('--dim <n>', 'Head dimension', { default: 64 })
  .option('--dtype <name>', 'f32, bf16 or f16', { default: 'f32' })
  .option('--causal', 'Causal, aligned at the end')
  .option('--window <n>', 'Keys kept to the left')
  .option('--mask <what>', 'As in mask show')
  .option('--args <json>', "The mask's arguments as a JSON array", { default: '[]' })
  .action((options) => finish(async () => (await import('./explain.ts')).explainCall(options)));

cli
  .command('build', 'Compiles the addon from the sources in the package')
  .option('--cuda <mode>', 'AUTO, ON or OFF', { default: 'AUTO' })
  .action((options) => finish(async () => (await import('./build.ts')).build(options)));

cli.help();
cli.version(VERSION);

try {
  const { options } = cli.parse(process.argv, { run: false });
  if (!cli.matchedCommand && !options.help && !options.version) {
    if (cli.args.length > 0)
      process.stderr.write(`fovea: unknown command '${cli.args[0]}'; 'fovea --help' lists them\n`);
    else cli.outputHelp();
    process.exitCode = 2;
  } else await cli.runMatchedCommand();
} catch (error) {
  process.stderr.write(`fovea: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 2;
}
