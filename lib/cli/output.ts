/** How every command talks: results on stdout (text, or JSON with --json), progress and complaints on stderr. */
import { MultiBar, Presets, type SingleBar } from 'cli-progress';

export interface CommonOptions {
  json?: boolean;
}

/** Prints `data` as JSON, or as the text `show` makes of it. */
export function report<T>(options: CommonOptions, data: T, show: (data: T) => string): void {
  process.stdout.write(`${options.json ? JSON.stringify(data, null, 2) : show(data)}\n`);
}

export function note(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** Rows as aligned columns; numbers to the right. */
export function table(rows: readonly (readonly (string | number)[])[]): string {
  const text = rows.map((row) => row.map(String));
  const widths = text[0].map((_, column) => Math.max(...text.map((row) => (row[column] ?? '').length)));
  return text
    .map((row, r) =>
      row
        .map((cell, c) => (typeof rows[r][c] === 'number' ? cell.padStart(widths[c]) : cell.padEnd(widths[c])))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** "1.5 GB" */
export function bytesText(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let unit = 0;
  for (; bytes >= 1000 && unit < units.length - 1; unit++) bytes /= 1000;
  return `${bytes.toFixed(unit === 0 || bytes >= 100 ? 0 : 1)} ${units[unit]}`;
}

/** "12.3 ms" */
export function timeText(ms: number): string {
  if (ms >= 1000) return `${(ms / 1000).toFixed(2)} s`;
  return ms >= 1 ? `${ms.toFixed(1)} ms` : `${(ms * 1000).toFixed(0)} us`;
}

/** A progress bar on stderr; silent where stderr is not a terminal. */
export class Progress {
  readonly #bars = new MultiBar(
    {
      format: '{title} {bar} {value}/{total} {detail}',
      stream: process.stderr,
      hideCursor: true,
      clearOnComplete: true,
      noTTYOutput: false,
    },
    Presets.shades_grey,
  );
  readonly #bar: SingleBar | undefined;

  constructor(title: string, total: number) {
    this.#bar = process.stderr.isTTY ? this.#bars.create(total, 0, { title, detail: '' }) : undefined;
  }

  update(value: number, detail = ''): void {
    this.#bar?.update(value, { detail });
  }

  stop(): void {
    this.#bars.stop();
  }
}
