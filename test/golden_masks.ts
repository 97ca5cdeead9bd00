/** Masks of the library whose visible pairs a golden file has. */
import { loadSafetensors } from '../lib/io/safetensors.ts';
import { and } from '../lib/mask/compose.ts';
import * as masks from '../lib/mask/masks/index.ts';
import type { Mask } from '../lib/mask/mask.ts';

export interface GoldenMask {
  readonly name: string;
  readonly mask: Mask;
  /** Of queries and keys. */
  readonly length: number;
  /** 1 where query i sees key j, at i length + j. */
  readonly shown: readonly number[];
  readonly area?: number;
}

const golden = (file: string): ReturnType<typeof loadSafetensors> =>
  loadSafetensors(new URL(`goldens/${file}.safetensors`, import.meta.url).pathname);

export function goldenMasks(): GoldenMask[] {
  return [
    ...longContext(),
    named(golden('masks_block_streaming'), 'mask', masks.blockStreaming(1, 2, 8)),
    ...neighborhoods('na1d_all'),
    ...neighborhoods('na2d_all'),
  ];
}

function named(file: ReturnType<typeof golden>, name: string, mask: Mask): GoldenMask {
  const expected = file.get(`output.${name}`);
  const area = file.has(`output.area_${name}`) && { area: Number(file.get(`output.area_${name}`).dataSync()[0]) };
  return { name, mask, length: expected.shape[0], shown: Array.from(expected.dataSync(), Number), ...area };
}

/** Of a benchmark of long-context attention. */
function longContext(): GoldenMask[] {
  const file = golden('masks_longca');
  const doc = masks.documentIds(Array.from(file.get('input.doc_lens').dataSync(), Number));
  const cases: Record<string, Mask> = {
    causal: masks.causal(),
    full_document: masks.document(doc),
    causal_document: and(masks.causal(), masks.document(doc)),
    sliding_window: masks.slidingWindow(5, 5),
    sliding_window_causal: masks.slidingWindow(5),
    share_question: masks.sharedPrefix(doc),
    causal_blockwise: masks.causalBlockwise(doc),
    prefix_lm_causal: masks.prefixLM(4),
    prefix_lm_document: masks.prefixDocument(doc, 4),
    global_sliding_window: masks.globalWindow(5, 5),
    block_causal_document: masks.blockDocument(doc, 4),
    streaming: masks.streaming(3, 6),
    triangle: masks.triangle(3, 6, 5, doc.length),
  };
  return Object.entries(cases).map(([name, mask]) => named(file, name, mask));
}

function neighborhoods(stem: string): GoldenMask[] {
  const file = golden(stem);
  const cases = JSON.parse(file.metadata.cases) as {
    case: number;
    shape: number[];
    kernel: number[];
    stride: number[];
    dilation: number[];
    causal: number[];
  }[];
  return cases.flatMap(({ case: id, shape, kernel, stride, dilation, causal }) => {
    const key = `${String(id).padStart(3, '0')}.output.mask`;
    if (!file.has(key)) return [];
    const mask = masks.natten({ shape, kernelSize: kernel, stride, dilation, causal: causal.map(Boolean) });
    const length = shape.reduce((a, b) => a * b, 1);
    return [{ name: `${stem} ${id}`, mask, length, shown: Array.from(file.get(key).dataSync(), Number) }];
  });
}
