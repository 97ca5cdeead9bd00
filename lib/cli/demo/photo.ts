/**
 * Part three: where does a patch of a photograph look?
 *
 * Patches of 8 x 8 pixels become vectors (their pixels, each patch's mean and contrast removed); queries and keys are these vectors, so the attention of one
 * patch is a map of where the photograph looks like it. Values are the patches' positions as one-hot columns, so that the output row is the map itself.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PNG } from 'pngjs';
import { attention } from '../../attention/attention.ts';
import { tensor } from '../../tensor/create.ts';

const PATCH = 8;
const SHARPNESS = 24;

export interface PhotoResult {
  png: string;
  svg: string;
  terminal: string;
  /** Patches across and down. */
  grid: [number, number];
  /** Query patches, column and row. */
  queries: [number, number][];
}

interface Picture {
  width: number;
  height: number;
  data: Uint8Array;
}

function patchVectors({ width, height, data }: Picture): {
  vectors: Float32Array;
  columns: number;
  rows: number;
  dim: number;
} {
  const columns = Math.floor(width / PATCH);
  const rows = Math.floor(height / PATCH);
  const dim = PATCH * PATCH * 3;
  const vectors = new Float32Array(columns * rows * dim);
  for (let p = 0; p < columns * rows; p++) {
    const [x0, y0] = [(p % columns) * PATCH, Math.floor(p / columns) * PATCH];
    const v = vectors.subarray(p * dim, (p + 1) * dim);
    for (let i = 0; i < PATCH * PATCH; i++) {
      const pixel = ((y0 + Math.floor(i / PATCH)) * width + x0 + (i % PATCH)) * 4;
      for (let c = 0; c < 3; c++) v[i * 3 + c] = data[pixel + c] / 255;
    }
    // Half the vector's length is colour, half is texture: both count, whatever the contrast.
    const mean = v.reduce((sum, x) => sum + x, 0) / dim;
    const norm = Math.sqrt(v.reduce((sum, x) => sum + (x - 0.5 * mean) ** 2, 0)) + 1e-6;
    for (let d = 0; d < dim; d++) v[d] = (v[d] - 0.5 * mean) / norm;
  }
  return { vectors, columns, rows, dim };
}

/** Black to red to yellow to white. */
function heat(x: number): [number, number, number] {
  const ramp = (from: number): number => Math.round(255 * Math.min(1, Math.max(0, (x - from) * 3)));
  return [ramp(0), ramp(1 / 3), ramp(2 / 3)];
}

/** Two picture rows per line: the upper half block has the upper pixel as ink, the lower as ground. */
function terminalPicture(
  pixel: (x: number, y: number) => [number, number, number],
  width: number,
  height: number,
): string {
  const lines: string[] = [];
  for (let y = 0; y + 1 < height; y += 2) {
    let line = '';
    for (let x = 0; x < width; x++)
      line += `\x1b[38;2;${pixel(x, y).join(';')}m\x1b[48;2;${pixel(x, y + 1).join(';')}m\u2580`;
    lines.push(`${line}\x1b[0m`);
  }
  return lines.join('\n');
}

export async function photoAttention(jpeg: Uint8Array, folder: string): Promise<PhotoResult> {
  const { decode } = await import('jpeg-js');
  const picture: Picture = decode(jpeg, { useTArray: true });
  const { vectors, columns, rows, dim } = patchVectors(picture);
  const patches = columns * rows;
  const queries: [number, number][] = [
    [Math.floor(columns * 0.5), Math.floor(rows * 0.15)],
    [Math.floor(columns * 0.3), Math.floor(rows * 0.6)],
    [Math.floor(columns * 0.7), Math.floor(rows * 0.85)],
  ];
  const queryVectors = new Float32Array(queries.length * dim);
  queries.forEach(([x, y], i) =>
    queryVectors.set(vectors.subarray((y * columns + x) * dim, (y * columns + x + 1) * dim), i * dim),
  );

  const maps = await attentionRows(queryVectors, vectors, queries.length, patches, dim);
  const levels = maps.map((map) => {
    const top = map.reduce((m, w) => Math.max(m, w), 0);
    return map.map((w) => Math.sqrt(w / top));
  });
  const at = (level: Float32Array, x: number, y: number): number =>
    level[Math.min(rows - 1, y) * columns + Math.min(columns - 1, x)];

  mkdirSync(folder, { recursive: true });
  const png = join(folder, 'attention.png');
  writeFileSync(
    png,
    overlay(picture, levels, queries, (map, x, y) => at(map, Math.floor(x / PATCH), Math.floor(y / PATCH))),
  );
  const svg = join(folder, 'attention.svg');
  writeFileSync(svg, mapSvg(levels[0], columns, rows, queries[0]));
  const width = 72;
  const height = Math.floor((width * rows) / columns / 2) * 2;
  const terminal = terminalPicture(
    (x, y) => heat(at(levels[0], Math.floor((x / width) * columns), Math.floor((y / height) * rows))),
    width,
    height,
  );
  return { png, svg, terminal, grid: [columns, rows], queries };
}

/** Softmax weights of each query over all patches, [queries][patches]: attention with one-hot values, 256 columns at a time. */
async function attentionRows(
  q: Float32Array,
  k: Float32Array,
  count: number,
  patches: number,
  dim: number,
): Promise<Float32Array[]> {
  const maps = Array.from({ length: count }, () => new Float32Array(patches));
  using query = tensor(q, [1, 1, count, dim]);
  using keys = tensor(k, [1, 1, patches, dim]);
  for (let from = 0; from < patches; from += 256) {
    const columns = Math.min(256, patches - from);
    const onehot = new Float32Array(patches * columns);
    for (let c = 0; c < columns; c++) onehot[(from + c) * columns + c] = 1;
    using values = tensor(onehot, [1, 1, patches, columns]);
    using out = attention(query, keys, values, { scale: SHARPNESS });
    const weights = (await out.data()) as Float32Array;
    maps.forEach((map, i) => map.set(weights.subarray(i * columns, (i + 1) * columns), from));
  }
  return maps;
}

/** The photograph and, to its right, one heat map per query laid over it in grey; the query patch is framed. */
function overlay(
  picture: Picture,
  levels: readonly Float32Array[],
  queries: readonly [number, number][],
  weight: (map: Float32Array, x: number, y: number) => number,
): Buffer {
  const scale = 2;
  const [w, h] = [Math.floor(picture.width / scale), Math.floor(picture.height / scale)];
  const png = new PNG({ width: w * (levels.length + 1), height: h });
  for (let panel = 0; panel <= levels.length; panel++) {
    for (let y = 0; y < h; y++) {
      for (let x = 0; x < w; x++) {
        const from = (y * scale * picture.width + x * scale) * 4;
        let rgb = [picture.data[from], picture.data[from + 1], picture.data[from + 2]];
        if (panel > 0) {
          const grey = 0.3 * (0.3 * rgb[0] + 0.6 * rgb[1] + 0.1 * rgb[2]);
          rgb = heat(weight(levels[panel - 1], x * scale, y * scale)).map((c) => Math.min(255, c + grey));
          const [qx, qy] = queries[panel - 1].map((c) => (c * PATCH) / scale);
          const edge = Math.max(Math.abs(x - qx - 2), Math.abs(y - qy - 2));
          if (edge >= 5 && edge <= 6) rgb = [80, 220, 255];
        }
        png.data.set([...rgb, 255], (y * png.width + panel * w + x) * 4);
      }
    }
  }
  return PNG.sync.write(png);
}

function mapSvg(levels: Float32Array, columns: number, rows: number, [qx, qy]: [number, number]): string {
  const cells: string[] = [];
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++) {
      const level = levels[y * columns + x];
      if (level > 0.02)
        cells.push(`<rect x="${x}" y="${y}" width="1" height="1" fill="rgb(${heat(level).join(',')})"/>`);
    }
  }
  const frame = `<rect x="${qx - 0.5}" y="${qy - 0.5}" width="2" height="2" fill="none" stroke="#50dcff" stroke-width="0.4"/>`;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${columns} ${rows}" width="${columns * 6}" height="${rows * 6}" shape-rendering="crispEdges"><rect width="100%" height="100%"/>${cells.join('')}${frame}</svg>\n`;
}
