// Started by stream.test.ts: leaves with work on a stream that it never disposed.
import { tsImport } from 'tsx/esm/api';

const fovea = await tsImport('../../lib/index.ts', import.meta.url);
const stream = new fovea.Stream('cuda');
stream.run(() => fovea.full([1000], 3, { device: 'cuda' }).add(1));
