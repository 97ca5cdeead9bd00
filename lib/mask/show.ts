/**
 * Pictures of a block mask: for a terminal, and as SVG.
 *
 * Rows are queries from top to bottom, columns keys from left to right. Visible pairs of full blocks, visible pairs of partial blocks and
 * what is never visited have a colour or a character each, so that a picture shows both the mask and what it costs.
 */
import { expectOptions, type OptionNames } from '../options.ts';
import type { BlockMask } from './block_mask.ts';

export interface ShowOptions {
  /** Batch and head to draw; default 0. */
  readonly b?: number;
  readonly h?: number;
  /** Columns the picture may take; default 64. */
  readonly width?: number;
  /**
   * `blocks`: one character per block or group of blocks: full, partial, skipped (default). `dots`: braille, two by four pairs a
   * character, a dot where a pair is visible.
   */
  readonly style?: 'blocks' | 'dots';
  /** ANSI colours; default false. */
  readonly color?: boolean;
}

const SHOW_OPTIONS: OptionNames<ShowOptions> = { b: true, h: true, width: true, style: true, color: true };

export interface SvgOptions {
  readonly b?: number;
  readonly h?: number;
  /** Width of the picture in pixels; default 320. */
  readonly size?: number;
  /** Title for screen readers and tooltips. */
  readonly title?: string;
}

const SVG_OPTIONS: OptionNames<SvgOptions> = { b: true, h: true, size: true, title: true };

/** One line on the size of a mask: density, and blocks full, partial, skipped. */
export function describe(mask: BlockMask): string {
  const { full, partial, skipped, distinct } = mask.stats;
  const [blockQ, blockKv] = mask.block;
  const percent = (100 * mask.density()).toPrecision(3);
  return (
    `${mask.qLength} x ${mask.kvLength}, blocks of ${blockQ} x ${blockKv}: ${percent} % visible; ` +
    `${full} full, ${partial} partial (${distinct} distinct), ${skipped} skipped`
  );
}

/** A drawing for the terminal, with its legend and {@link describe} below it. */
export function show(mask: BlockMask, options: ShowOptions = {}): string {
  expectOptions('show', options, SHOW_OPTIONS);
  const { b = 0, h = 0, width = 64, style = 'blocks', color = false } = options;
  const lines = style === 'dots' ? dots(mask, b, h, width) : shades(mask, b, h, width, color);
  const legend = style === 'dots' ? [] : [color ? coloredLegend() : '█ full  ▒ partial  · skipped'];
  return [...lines, ...legend, describe(mask)].join('\n');
}

const SKIPPED = 0;
const PARTIAL = 1;
const SOLID = 2;
const CHARACTERS = ['·', '▒', '█'];
/** 256-colour codes of skipped, partial, full. */
const PALETTE = [236, 214, 32];

/** Class of each cell of a grid of groups of blocks: full only where all of the group's blocks are. */
function cells(mask: BlockMask, b: number, h: number, rows: number, columns: number): Uint8Array {
  const entries = new Float64Array(rows * columns);
  const full = new Float64Array(rows * columns);
  const size = new Float64Array(rows * columns);
  const cellOf = (row: number, column: number) =>
    Math.floor((row * rows) / mask.qBlocks) * columns + Math.floor((column * columns) / mask.kvBlocks);
  for (let row = 0; row < mask.qBlocks; ++row)
    for (let column = 0; column < mask.kvBlocks; ++column) ++size[cellOf(row, column)];
  forEachBlock(mask, b, h, (row, column, isFull) => {
    const cell = cellOf(row, column);
    ++entries[cell];
    if (isFull) ++full[cell];
  });
  return Uint8Array.from(entries, (count, i) => (count === 0 ? SKIPPED : full[i] === size[i] ? SOLID : PARTIAL));
}

function forEachBlock(
  mask: BlockMask,
  b: number,
  h: number,
  visit: (row: number, column: number, full: boolean) => void,
) {
  const first = ((mask.batch > 1 ? b : 0) * mask.heads + (mask.heads > 1 ? h : 0)) * mask.qBlocks;
  for (let row = 0; row < mask.qBlocks; ++row)
    for (let e = mask.rowBegin[first + row]; e < mask.rowBegin[first + row + 1]; ++e)
      visit(row, mask.columns[e], mask.tiles[e] < 0);
}

function shades(mask: BlockMask, b: number, h: number, width: number, color: boolean): string[] {
  const columns = Math.max(1, Math.min(mask.kvBlocks, color ? width : Math.floor(width / 2)));
  const rows = Math.max(1, Math.min(mask.qBlocks, Math.round((columns * mask.qBlocks) / Math.max(1, mask.kvBlocks))));
  if (mask.qBlocks === 0 || mask.kvBlocks === 0) return ['(empty)'];
  const grid = cells(mask, b, h, rows, columns);
  const lines: string[] = [];
  // Coloured: an upper half block shows two rows a line. Plain: a character twice makes a cell about square.
  for (let row = 0; row < rows; row += color ? 2 : 1) {
    let line = '';
    for (let column = 0; column < columns; ++column) {
      const top = grid[row * columns + column];
      if (!color) line += CHARACTERS[top].repeat(2);
      else if (row + 1 < rows)
        line += `\x1b[38;5;${PALETTE[top]};48;5;${PALETTE[grid[(row + 1) * columns + column]]}m▀`;
      else line += `\x1b[0;38;5;${PALETTE[top]}m▀`;
    }
    lines.push(color ? `${line}\x1b[0m` : line);
  }
  return lines;
}

function coloredLegend(): string {
  return ['full', 'partial', 'skipped'].map((name, i) => `\x1b[38;5;${PALETTE[2 - i]}m██\x1b[0m ${name}`).join('  ');
}

function dots(mask: BlockMask, b: number, h: number, width: number): string[] {
  const columns = Math.max(1, Math.min(mask.kvLength, 2 * width));
  const rows = Math.max(1, Math.min(mask.qLength, Math.round((columns * mask.qLength) / Math.max(1, mask.kvLength))));
  if (mask.qLength === 0 || mask.kvLength === 0) return ['(empty)'];
  const at = (row: number, column: number) =>
    row < rows &&
    column < columns &&
    mask.visible(b, h, Math.floor((row * mask.qLength) / rows), Math.floor((column * mask.kvLength) / columns));
  // Bit of each dot in U+2800 and up, by row and column of the character.
  const bits = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]]; // prettier-ignore
  const lines: string[] = [];
  for (let row = 0; row < rows; row += 4) {
    let line = '';
    for (let column = 0; column < columns; column += 2) {
      let code = 0x2800;
      for (let y = 0; y < 4; ++y) for (let x = 0; x < 2; ++x) if (at(row + y, column + x)) code |= bits[y][x];
      line += String.fromCharCode(code);
    }
    lines.push(line);
  }
  return lines;
}

const COLORS = { full: '#2166ac', partial: '#e08214', visited: '#fde8cd', skipped: '#f4f4f4', grid: '#ffffff' };

/** Largest number of pairs along one side that are drawn one by one; beyond, blocks are drawn whole. */
const MAX_DRAWN = 256;

/** A drawing as an SVG document: pairs one by one for small masks, whole blocks for large ones, with a legend. The text is deterministic. */
export function toSVG(mask: BlockMask, options: SvgOptions = {}): string {
  expectOptions('toSVG', options, SVG_OPTIONS);
  const { b = 0, h = 0, size = 320, title } = options;
  const scale = size / Math.max(mask.kvLength, 1);
  const height = mask.qLength * scale;
  const shapes = new Shapes(scale);
  shapes.rect('skipped', 0, 0, mask.kvLength, mask.qLength);
  const [blockQ, blockKv] = mask.block;
  const small = mask.qLength <= MAX_DRAWN && mask.kvLength <= MAX_DRAWN;
  forEachBlock(mask, b, h, (row, column, full) => {
    const [x0, y0] = [column * blockKv, row * blockQ];
    const [x1, y1] = [Math.min(x0 + blockKv, mask.kvLength), Math.min(y0 + blockQ, mask.qLength)];
    shapes.rect(full ? 'full' : small ? 'visited' : 'partial', x0, y0, x1, y1);
    if (full || !small) return;
    for (let q = y0; q < y1; ++q)
      for (let kv = x0; kv < x1; ++kv) {
        let end = kv;
        while (end < x1 && mask.visible(b, h, q, end)) ++end;
        if (end > kv) shapes.rect('partial', kv, q, end, q + 1);
        kv = end;
      }
  });
  const grid = gridLines(mask, scale);
  const labels = [['full', 'full'], ['partial', 'partial'], [small ? 'visited' : 'skipped', small ? 'visited, masked' : 'skipped'], ['skipped', 'skipped']] as const; // prettier-ignore
  const legend = labels.slice(0, small ? 4 : 3).map(([kind, text], i) => {
    const x = i * 78;
    return `<rect x="${x}" y="${number(height + 8)}" width="10" height="10" fill="${COLORS[kind]}" stroke="#999" stroke-width="0.5"/><text x="${x + 14}" y="${number(height + 17)}">${text}</text>`;
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="-1 -1 ${number(Math.max(size, 320) + 2)} ${number(height + 54)}" width="${number(Math.max(size, 320) + 2)}" height="${number(height + 54)}" font-family="sans-serif" font-size="11">`,
    `<title>${escape(title ?? describe(mask))}</title>`,
    ...shapes.paths(),
    ...grid,
    ...legend,
    ...describe(mask)
      .split('; ')
      .map((line, i) => `<text x="0" y="${number(height + 34 + 14 * i)}">${escape(line)}</text>`),
    '</svg>',
    '',
  ].join('\n');
}

/** Rectangles collected into one path per colour. */
class Shapes {
  readonly #paths = new Map<keyof typeof COLORS, string[]>();
  readonly #scale: number;

  constructor(scale: number) {
    this.#scale = scale;
  }

  rect(kind: keyof typeof COLORS, x0: number, y0: number, x1: number, y1: number): void {
    const at = (value: number) => number(value * this.#scale);
    const path = `M${at(x0)} ${at(y0)}H${at(x1)}V${at(y1)}H${at(x0)}Z`;
    const known = this.#paths.get(kind);
    if (known) known.push(path);
    else this.#paths.set(kind, [path]);
  }

  paths(): string[] {
    const order = ['skipped', 'visited', 'full', 'partial'] as const;
    return order.flatMap((kind) => {
      const path = this.#paths.get(kind);
      return path ? [`<path fill="${COLORS[kind]}" d="${path.join('')}"/>`] : [];
    });
  }
}

function gridLines(mask: BlockMask, scale: number): string[] {
  if (mask.qBlocks > 64 || mask.kvBlocks > 64) return [];
  let path = '';
  for (let row = 1; row < mask.qBlocks; ++row)
    path += `M0 ${number(row * mask.block[0] * scale)}H${number(mask.kvLength * scale)}`;
  for (let column = 1; column < mask.kvBlocks; ++column)
    path += `M${number(column * mask.block[1] * scale)} 0V${number(mask.qLength * scale)}`;
  return path === '' ? [] : [`<path stroke="${COLORS.grid}" stroke-width="1" fill="none" d="${path}"/>`];
}

const number = (value: number): string => String(Math.round(value * 100) / 100);

const escape = (text: string): string => text.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;');
