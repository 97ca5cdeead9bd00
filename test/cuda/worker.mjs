// Started by runtime.test.ts: uses a tensor of another thread, shares a result, and holds memory until it is ended.
import { parentPort, workerData } from 'node:worker_threads';
import { tsImport } from 'tsx/esm/api';

const fovea = await tsImport('../../lib/index.ts', import.meta.url);
const t = fovea.receive(workerData.token);
const out = t.to('bf16').to('f32');
const held = fovea.zeros([1 << 20], { device: 'cuda' });
const bytes = fovea.memory().devices['cuda:0'].liveBytes;
parentPort.postMessage({ device: t.device, token: out.share(), bytes });
setInterval(() => held.shape, 1000);
