import { spawnSync } from 'node:child_process';
import { expect, test } from 'vitest';

const root = new URL('..', import.meta.url).pathname;

function run(script: string): { status: number | null; signal: string | null; stdout: string; stderr: string } {
  const source = `
    import { tensor, cast, abortable, mergeAttentions, setNumThreads, synchronize, synchronizeSync, zeros } from ${JSON.stringify(root + 'lib/index.ts')};
    process.on('unhandledRejection', (error) => { console.log('unhandled', error); });
    const queue = () => {
      let t = tensor(new Float32Array(1 << 18));
      for (let i = 0; i < 60; i++) t = cast(cast(t, 'f64'), 'f32');
      return t;
    };
    ${script}`;
  const args = ['--import', 'tsx', '--input-type=module', '--eval', source];
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, args, {
    cwd: root,
    encoding: 'utf8',
    timeout: 30_000,
  });
  return { status, signal, stdout, stderr };
}

test.each([
  ['process.exit with work in flight', 'queue(); process.exit(3);', 3],
  ['process.exit while a read is pending', 'void queue().data(); setTimeout(() => process.exit(4), 5);', 4],
  ['an uncaught error with work in flight', 'queue(); throw new Error("mine");', 1],
  ['running off the end with work queued', 'queue();', 0],
  [
    'running off the end with a tensor over the memory of a TypedArray',
    'globalThis.held = tensor(new Float32Array(4), null, { copy: false });',
    0,
  ],
])('%s ends the process cleanly', (_, script, status) => {
  const result = run(script);
  expect(result.signal).toBe(null);
  expect(result.status).toBe(status);
  expect(result.stdout).toBe('');
});

test('a full queue lets in what its tasks let go of', () => {
  const result = run(`
    for (let i = 0; i < 10; i++) queue();
    const lse = zeros([1]);
    for (let i = 0; i < 6000; i++) {
      const out = tensor(new Float32Array(4), [1, 4], { copy: false });
      const merged = mergeAttentions([{ out, lse }]);
      for (const t of [out, merged.out, merged.lse]) t.dispose();
    }
    synchronizeSync();
    console.log('end');`);
  expect(result.stdout).toBe('end\n');
});

test('a pending read keeps the process alive until it settles', () => {
  expect(run('queue().data().then((x) => console.log("done", x.length));').stdout).toBe(`done ${1 << 18}\n`);
});

test('an aborted call whose result nobody awaits rejects nowhere', () => {
  const result = run(`
    const controller = new AbortController();
    abortable(controller.signal, queue);
    controller.abort();
    await new Promise((resolve) => setTimeout(resolve, 50));
    await synchronize().catch(() => undefined);
    console.log('end');`);
  expect(result.stdout).toBe('end\n');
  expect(result.status).toBe(0);
});

test('the event loop turns while kernels run', () => {
  const result = run(`
    let turns = 0, done = false;
    const tick = () => { turns++; if (!done) setImmediate(tick); };
    tick();
    await queue().data();
    done = true;
    console.log(turns > 10);`);
  expect(result.stdout).toBe('true\n');
});

test('a process without work takes no processor time', () => {
  const result = run(`
    const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
    setNumThreads(2);
    await queue().data();
    await sleep(100);
    const before = process.cpuUsage();
    await sleep(1000);
    const { user, system } = process.cpuUsage(before);
    console.log(user + system < 500_000);`);
  expect(result.stdout).toBe('true\n');
});
