#!/usr/bin/env node
// Lets prebuildify build with cmake-js. It calls: <this> rebuild --target=X --devdir=Y --arch=x64 --release|--debug; Node-API makes the target irrelevant.
import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);
const option = Object.fromEntries(process.argv.slice(3).map((a) => a.replace(/^--/, '').split('=')));
const args = [require.resolve('cmake-js/bin/cmake-js'), 'build'];
if (option.arch) args.push('--arch', option.arch);
if ('debug' in option) args.push('--debug');
process.exit(spawnSync(process.execPath, args, { stdio: 'inherit' }).status ?? 1);
