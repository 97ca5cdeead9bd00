import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { FoveaError } from '../errors.ts';
import { note } from './output.ts';

const root = join(dirname(fileURLToPath(import.meta.url)), '../..');

/**
 * `fovea build`: compiles the addon from the sources in the package, for machines without a prebuilt one. Needs a C++20 compiler, CMake, and
 * cmake-js, node-addon-api and node-api-headers installed in the project. Exit code: that of the build, 2 when a tool is missing.
 */
export function build(options: { cuda?: string }): number {
  if (options.cuda !== undefined && !['AUTO', 'ON', 'OFF'].includes(options.cuda))
    throw new FoveaError('ERR_ARGUMENT', `--cuda is ${options.cuda}, expected AUTO, ON or OFF`);
  let cmakeJs: string;
  try {
    const require = createRequire(join(root, 'package.json'));
    cmakeJs = require.resolve('cmake-js/bin/cmake-js');
    require.resolve('node-addon-api');
    require.resolve('node-api-headers');
  } catch {
    note('fovea build needs: npm install --save-dev cmake-js node-addon-api node-api-headers');
    return 2;
  }
  // "build" alone takes options only where nothing was configured before, and goes on with a configuration that failed.
  for (const step of ['configure', 'build']) {
    const args = [cmakeJs, step, `--CDFOVEA_CUDA=${options.cuda ?? 'AUTO'}`];
    const { status } = spawnSync(process.execPath, args, { cwd: root, stdio: ['ignore', 2, 2] });
    if (status !== 0) return status ?? 1;
  }
  return 0;
}
