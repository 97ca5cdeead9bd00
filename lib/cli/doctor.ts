import { cpus, totalmem, release } from 'node:os';
import { devices, getNumThreads, type DeviceReport } from '../runtime.ts';
import { FoveaError } from '../errors.ts';
import { tensor } from '../tensor/create.ts';
import '../tensor/methods.ts';
import { VERSION } from '../version.ts';
import { bytesText, report, table, type CommonOptions } from './output.ts';

interface Diagnosis {
  fovea: string;
  node: string;
  platform: string;
  cpu: string;
  memoryBytes: number;
  native: { ok: boolean; detail: string };
  devices: DeviceReport[];
}

function diagnose(): Diagnosis {
  const facts = {
    fovea: VERSION,
    node: process.version,
    platform: `${process.platform}-${process.arch} ${release()}`,
    cpu: cpus()[0]?.model ?? 'unknown',
    memoryBytes: totalmem(),
  };
  try {
    const sum = tensor([1, 2, 3]).sum().itemSync();
    return {
      ...facts,
      native: {
        ok: sum === 6,
        detail: sum === 6 ? `loaded and computing, ${getNumThreads()} threads` : `1 + 2 + 3 gave ${sum}`,
      },
      devices: devices(),
    };
  } catch (error) {
    const detail = error instanceof FoveaError ? error.message : String(error);
    return { ...facts, native: { ok: false, detail }, devices: [] };
  }
}

/** `fovea doctor`: what this machine has, what works, and why not where it does not. Exit code 1 when the native part does not load. */
export function doctor(options: CommonOptions): number {
  const found = diagnose();
  report(options, found, (d) =>
    table([
      ['fovea', d.fovea],
      ['node', d.node],
      ['platform', d.platform],
      ['cpu', d.cpu],
      ['memory', bytesText(d.memoryBytes)],
      ['native', `${d.native.ok ? 'ok' : 'FAILED'}: ${d.native.detail}`],
      ...d.devices.map((device) => [
        device.name,
        `${device.available ? 'available' : 'not available'}: ${device.detail}`,
      ]),
    ]),
  );
  return found.native.ok ? 0 : 1;
}
