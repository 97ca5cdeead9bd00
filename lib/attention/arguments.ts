/**
 * Options of an attention call, checked and turned into what the addon takes (csrc/ops/attention_call.h).
 *
 * Mask functions become a block mask, built once per (functions, sizes) and kept as long as the functions live; its arrays, and the
 * constant tables of score programs, are tensors kept the same way. The native side has one block mask and one mask tensor per call, so
 * several of a kind are intersected here.
 */
import { FoveaError } from '../errors.ts';
import { and } from '../mask/compose.ts';
import { BlockMask } from '../mask/block_mask.ts';
import { buildBlockMask, DEFAULT_BLOCK } from '../mask/build.ts';
import { intersect } from '../mask/intersect.ts';
import { encodeProgram, uniformBits, type Program, type Table } from '../mask/program.ts';
import type { Mask, Score } from '../mask/mask.ts';
import { native, type AttentionArguments } from '../native.ts';
import { evaluateTilesOn } from '../ops/block_mask.ts';
import { cast, contiguous } from '../ops/copy.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import type { DeviceName } from '../tensor/device.ts';
import { dtypeCode } from '../tensor/dtype.ts';
import { shapeText } from '../tensor/shape.ts';
import { Tensor } from '../tensor/tensor.ts';
import { expectRank } from './checks.ts';
import { constant, onDevice } from './constant.ts';

/** A mask function's object, a block mask, or a bool tensor (true = visible) that broadcasts to [batch, heads, q, kv]. */
export type AttentionMask = Mask | BlockMask | Tensor;

/** Integers as an array or an i32 tensor. */
export type IntegerList = readonly number[] | Int32Array | Tensor;

export interface AttentionOptions {
  /** Which keys a query sees; several are combined with "and", also with `causal` and `window`. */
  readonly mask?: AttentionMask | readonly AttentionMask[];
  /** A change of the scaled logits made by `score(fn, captures)`. */
  readonly score?: Score;
  /** Added to the logits last: a floating tensor that broadcasts to [batch, heads, q, kv]; may have requiresGrad. */
  readonly bias?: Tensor;
  /** Keys up to the query's own position. true = 'top-left'; 'bottom-right' aligns the last query with the last key in use. */
  readonly causal?: boolean | 'top-left' | 'bottom-right';
  /**
   * Keys kept to the left and right of the aligned position, -1 = all. One number n stands for [n, n]. Aligned as `causal`; without it,
   * query i sits on key i where there are as many keys as queries, and else the last query on the last key in use.
   */
  readonly window?: number | readonly [number, number];
  /** c: logits become c * tanh(logit / c) before `score` and `bias`. */
  readonly softcap?: number;
  /** Factor of q.k; default 1 / sqrt(dim). */
  readonly scale?: number;
  /** Keys in use of each batch entry; those behind are not read. Numbers in a tensor beyond the keys there are count as that many. */
  readonly kvLengths?: IntegerList;
  /**
   * Pages of each batch entry, an i32 tensor [batch, pages], -1 = none. k and v are then [pages there are, kv heads, page size, dim], and key j
   * of entry b is row j % size of page pageTable[b, floor(j / size)]; with `kvLengths`, pages behind the length are not read. Without
   * gradient: for decoding.
   */
  readonly pageTable?: Tensor;
  /** Packed sequences (batch 1): beginnings of each, and the total. One list for both, or one each for queries and keys. */
  readonly cuSeqlens?: IntegerList | { readonly q: IntegerList; readonly kv: IntegerList };
  /** Stops the call: results reject with ERR_ABORTED, whose cause is the signal's reason. */
  readonly signal?: AbortSignal;
}

export const ATTENTION_OPTIONS: OptionNames<AttentionOptions> = {
  mask: true,
  score: true,
  bias: true,
  causal: true,
  window: true,
  softcap: true,
  scale: true,
  kvLengths: true,
  pageTable: true,
  cuSeqlens: true,
  signal: true,
};

/** Options as attention() takes them: `returnLse` chooses its result. */
const CALL_OPTIONS = { ...ATTENTION_OPTIONS, returnLse: true } as const;
const PACKED_SEQUENCES = { q: true, kv: true } as const;

/** A checked call. */
export interface AttentionCall {
  readonly operands: readonly (Tensor | null)[];
  readonly block: readonly Tensor[];
  readonly tables: readonly Tensor[];
  readonly score: Program | null;
  readonly integers: readonly number[];
  readonly scale: number;
  readonly softcap: number;
}

export const OPERANDS = [
  'q', 'k', 'v', 'bias', 'mask', 'kvLengths', 'cuQ', 'cuKv', 'qRows', 'kvRows', 'pageTable', 'keyRanges',
] as const; // prettier-ignore

/** The call as the addon's functions take it. */
export function nativeCall(call: AttentionCall): AttentionArguments {
  return [
    call.operands.map((t) => t?.handle ?? null),
    call.block.map((t) => t.handle),
    call.tables.map((t) => t.handle),
    call.score ? encodeProgram(call.score) : null,
    call.score ? uniformBits(call.score) : null,
    call.integers,
    call.scale,
    call.softcap,
  ];
}

/** Checks a call and builds its masks. Throws ERR_SHAPE, ERR_DTYPE, ERR_ARGUMENT. */
export function bindAttention(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions): AttentionCall {
  checkOperands(q, k, v);
  expectOptions('attention', options, CALL_OPTIONS);
  const { causal = false, scale = 1 / Math.sqrt(q.shape[3]), softcap = 0 } = options;
  if (![true, false, 'top-left', 'bottom-right'].includes(causal))
    throw bad(`causal is ${String(causal)}, expected a boolean, 'top-left' or 'bottom-right'`);
  if (!Number.isFinite(scale)) throw bad(`scale is ${scale}, expected a finite number`);
  if (!(softcap >= 0 && softcap < Infinity)) throw bad(`softcap is ${softcap}, expected a positive number (0 = none)`);
  const window = windowOf(options.window);
  const score = options.score ? checkScore(options.score).program : null;
  const lists = listsOf(q, k, options);
  const masks = masksOf(q, k, options, lists.longest);
  const { bias = null, pageTable = null } = options;
  if (pageTable !== null && !(pageTable instanceof Tensor)) throw bad('pageTable must be an i32 tensor [batch, pages]');
  if (bias !== null && !(bias instanceof Tensor)) throw bad('bias must be a tensor');
  const { block } = masks;
  return {
    operands: [q, k, v, bias, masks.tensor, lists.kvLengths, lists.cuQ, lists.cuKv, null, null, pageTable, null],
    block: block ? blockTensors(block, q.device) : [],
    tables: score ? score.tables.map((table) => tableTensor(table, q.device)) : [],
    score,
    integers: [
      causal === false ? 0 : 1,
      causal === 'bottom-right' || (causal === false && windowFollowsEnd(q, k, options)) ? 1 : 0,
      ...window,
      0,
      0,
      ...(block ? [...block.block, block.qLength, block.kvLength, block.batch, block.heads] : [0, 0, 0, 0, 0, 0]),
      0,
    ],
    scale,
    softcap,
  };
}

const bad = (what: string): FoveaError => new FoveaError('ERR_ARGUMENT', `attention: ${what}`);

function checkOperands(q: Tensor, k: Tensor, v: Tensor): void {
  expectRank('attention', '[batch, heads, length, dim]', 4, { q, k, v });
  if (q.shape[3] === 0) throw new FoveaError('ERR_SHAPE', `attention: q ${shapeText(q.shape)} has heads of no dims`);
}

function checkScore(score: Score): Score {
  if ((score as Partial<Score>).kind !== 'score') throw bad('score must be made by score(fn, captures)');
  return score;
}

/** Whether a window without `causal` puts the last query on the last key: where keys may be more or fewer than queries. */
function windowFollowsEnd(q: Tensor, k: Tensor, { window, cuSeqlens, pageTable }: AttentionOptions): boolean {
  return window !== undefined && (Boolean(cuSeqlens ?? pageTable) || q.shape[2] !== k.shape[2]);
}

function windowOf(window: AttentionOptions['window']): readonly [number, number] {
  if (window === undefined) return [-1, -1];
  const sides = typeof window === 'number' ? [window, window] : window;
  if (sides?.length !== 2 || ![sides[0], sides[1]].every((n) => Number.isSafeInteger(n) && n >= -1))
    throw bad(`window is ${String(window)}, expected [left, right], each -1 (unbounded) or more`);
  return [sides[0], sides[1]];
}

interface Lists {
  readonly kvLengths: Tensor | null;
  readonly cuQ: Tensor | null;
  readonly cuKv: Tensor | null;
  /** Longest packed sequence [queries, keys], where it is known now. */
  readonly longest: readonly [number, number] | null;
}

function listsOf(q: Tensor, k: Tensor, { kvLengths, cuSeqlens, pageTable }: AttentionOptions): Lists {
  const keys = pageTable ? Infinity : k.shape[2];
  if (kvLengths !== undefined) expectList('kvLengths', kvLengths);
  if (kvLengths && !(kvLengths instanceof Tensor) && !kvLengths.every((n) => n >= 0 && n <= keys))
    throw bad(`kvLengths are ${kvLengths.join(', ')}, expected 0 to ${keys}, the keys there are`);
  const lengths = kvLengths === undefined ? null : listTensor(q, kvLengths);
  if (cuSeqlens === undefined) return { kvLengths: lengths, cuQ: null, cuKv: null, longest: null };
  if (q.shape[0] !== 1)
    throw new FoveaError(
      'ERR_SHAPE',
      `attention: q has shape ${shapeText(q.shape)}; with cuSeqlens all sequences lie one after the other in batch 1`,
    );
  const both = isList(cuSeqlens) ? { q: cuSeqlens, kv: cuSeqlens } : cuSeqlens;
  expectOptions('attention: cuSeqlens', both, PACKED_SEQUENCES);
  expectList('cuSeqlens', both.q);
  expectList('cuSeqlens', both.kv);
  const longest = [longestOf(both.q), longestOf(both.kv)];
  const cuQ = listTensor(q, both.q);
  return {
    kvLengths: lengths,
    cuQ,
    cuKv: both.kv === both.q ? cuQ : listTensor(q, both.kv),
    longest: longest[0] === null || longest[1] === null ? null : [longest[0], longest[1]],
  };
}

/** Throws ERR_ARGUMENT for what is no list; the values of a tensor are looked at by the kernel. */
function expectList(name: string, list: unknown): void {
  if (list instanceof Tensor || list instanceof Int32Array) return;
  if (!Array.isArray(list) || !list.every((n) => Number.isInteger(n) && (n | 0) === n))
    throw bad(`${name} must be an array of integers of 32 bits, an Int32Array or an i32 tensor`);
}

function isList(value: NonNullable<AttentionOptions['cuSeqlens']>): value is IntegerList {
  return Array.isArray(value) || value instanceof Int32Array || value instanceof Tensor;
}

function longestOf(list: IntegerList): number | null {
  if (list instanceof Tensor) return null;
  let longest = 0;
  for (let i = 1; i < list.length; ++i) longest = Math.max(longest, list[i] - list[i - 1]);
  return longest;
}

function listTensor(q: Tensor, list: IntegerList): Tensor {
  if (list instanceof Tensor) return contiguous(list.detach());
  return onDevice(new Tensor(native().fromBytes(Int32Array.from(list), dtypeCode('i32'), [list.length])), q.device);
}

function masksOf(
  q: Tensor,
  k: Tensor,
  { mask = [], cuSeqlens, pageTable }: AttentionOptions,
  longest: Lists['longest'],
): { block: BlockMask | null; tensor: Tensor | null } {
  const functions: Mask[] = [];
  const blocks: BlockMask[] = [];
  const tensors: Tensor[] = [];
  for (const m of (Array.isArray(mask) ? mask : [mask]) as readonly AttentionMask[]) {
    if (m instanceof Tensor) tensors.push(m);
    else if (m instanceof BlockMask) blocks.push(m);
    else if (typeof m === 'object' && m !== null && m.kind === 'mask') functions.push(m);
    else
      throw bad(
        'mask must be made by mask(fn, captures) or blockMask(...), or be a bool tensor, or an array of them; a block mask that another ' +
          'thread posted is new BlockMask(message)',
      );
  }
  if (functions.length > 0) {
    const packed = cuSeqlens !== undefined;
    const keys = pageTable ? pageTable.shape[1] * k.shape[2] : k.shape[2];
    const [qLength, kvLength] = longest ?? [q.shape[2], keys];
    blocks.push(
      maskFunctionBlocks(
        functions,
        {
          b: packed ? 1 : q.shape[0] || 1,
          h: q.shape[1],
          q: qLength,
          kv: kvLength,
          block: blocks[0]?.block ?? defaultBlock(qLength, kvLength),
        },
        q.device,
      ),
    );
  }
  const tensor = tensors.reduce<Tensor | null>((a, b) => (a ? bothVisible(a, b) : b), null);
  return { block: blocks.reduce<BlockMask | null>((a, b) => (a ? intersectCached(a, b) : b), null), tensor };
}

/** Short sequences get smaller blocks, so that skipping pays there too. */
function defaultBlock(q: number, kv: number): readonly [number, number] {
  return Math.max(q, kv) <= 2048 ? [64, 64] : [DEFAULT_BLOCK, DEFAULT_BLOCK];
}

function bothVisible(a: Tensor, b: Tensor): Tensor {
  for (const t of [a, b])
    if (t.dtype !== 'bool')
      throw new FoveaError('ERR_DTYPE', `attention: mask is ${t.dtype}, expected bool (true = visible)`);
  const LOGICAL_AND = 15;
  return new Tensor(native().binary(LOGICAL_AND, a.handle, b.handle));
}

interface Sizes {
  readonly b: number;
  readonly h: number;
  readonly q: number;
  readonly kv: number;
  readonly block: readonly [number, number];
}

/** Mask functions in order, and what was built from exactly these. */
interface MaskNode {
  readonly next: WeakMap<Mask, MaskNode>;
  readonly built: Map<string, BlockMask>;
}

const BUILT_PER_MASK = 32;
/** Pairs of undecided blocks from which it pays to wait for the operands' device to evaluate them. */
const DEVICE_PAIRS = 2 ** 22;
const newNode = (): MaskNode => ({ next: new WeakMap(), built: new Map() });
const masksRoot = newNode();

function maskFunctionBlocks(masks: readonly Mask[], sizes: Sizes, device: DeviceName): BlockMask {
  let node = masksRoot;
  for (const m of masks) {
    let next = node.next.get(m);
    if (!next) node.next.set(m, (next = newNode()));
    node = next;
  }
  const key = `${sizes.b},${sizes.h},${sizes.q},${sizes.kv},${sizes.block.join('x')}`;
  let built = node.built.get(key);
  if (!built) {
    const all = masks.length === 1 ? masks[0] : and(...masks);
    built = buildBlockMask(all, sizes, evaluateTilesOn(device, DEVICE_PAIRS));
    if (node.built.size >= BUILT_PER_MASK) node.built.delete(node.built.keys().next().value as string);
    node.built.set(key, built);
  }
  return built;
}

const intersections = new WeakMap<BlockMask, WeakMap<BlockMask, BlockMask>>();

function intersectCached(a: BlockMask, b: BlockMask): BlockMask {
  let of = intersections.get(a);
  if (!of) intersections.set(a, (of = new WeakMap()));
  let both = of.get(b);
  if (!both) of.set(b, (both = intersect(a, b)));
  return both;
}

/** By device. */
const blockArrays = new WeakMap<BlockMask, Map<string, readonly Tensor[]>>();

/** The arrays of a block mask as tensors, made once per device. */
function blockTensors(m: BlockMask, device: DeviceName): readonly Tensor[] {
  let made = blockArrays.get(m);
  if (!made) blockArrays.set(m, (made = new Map()));
  let tensors = made.get(device);
  if (!tensors || tensors.some((t) => t.disposed)) {
    const i32 = (array: Int32Array): Tensor => constant(array, 'i32', device);
    tensors = [i32(m.rowBegin), i32(m.columns), i32(m.tiles), constant(m.bits, 'u8', device)];
    made.set(device, tensors);
  }
  return tensors;
}

const constantTables = new WeakMap<Table, Map<string, Tensor>>();

/** A captured table: the present values of the tensor it was read from, where there is one, else a copy made once per device. */
function tableTensor(table: Table, device: DeviceName): Tensor {
  const { source, dtype } = table;
  if (dtype === 'f32' && source instanceof Tensor && !source.disposed)
    return onDevice(contiguous(cast(source, 'f32')), device);
  let copies = constantTables.get(table);
  if (!copies) constantTables.set(table, (copies = new Map()));
  let made = copies.get(device);
  if (!made || made.disposed) copies.set(device, (made = constant(table.data, dtype, device)));
  return made;
}
