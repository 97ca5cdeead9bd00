/** PyTorch as a peer, where there is a Python that has it. */
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** What peers/<script> prints, one JSON value; undefined with a note where no Python has PyTorch. */
export function inTorch<T>(script: string, ...args: readonly (string | number)[]): T | undefined {
  const file = fileURLToPath(new URL(`./peers/${script}`, import.meta.url));
  try {
    return JSON.parse(execFileSync(process.env.PYTHON ?? 'python3', [file, ...args.map(String)], { encoding: 'utf8' })) as T; // prettier-ignore
  } catch {
    process.stderr.write(
      '(no PyTorch in python3; set PYTHON to an interpreter that has it, its BLAS on the same threads: Debian python3-torch with libopenblas0-openmp)\n',
    );
    return undefined;
  }
}
