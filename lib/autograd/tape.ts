/**
 * Reverse-mode automatic differentiation over whole tensors.
 *
 * Each differentiable call records one node: its inputs, and a rule from output gradients to input gradients. Node ids rise with time, so
 * running the nodes that have gradients by falling id is a topological order. Gradients of intermediate tensors are freed as soon as they were used, and
 * every rule runs in a scope of its own: backward holds no more than the frontier of the walk.
 */
import { FoveaError } from '../errors.ts';
import { native } from '../native.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { expectFunction, expectTensorList } from '../tensor/expect.ts';
import { scope, keep } from '../tensor/scope.ts';
import { setBackwardHook, Tensor, type BackwardOptions } from '../tensor/tensor.ts';

export type Gradients = readonly (Tensor | null)[];
/** What a rule found besides the gradients of its inputs: those of tensors that a checkpointed function uses. */
export interface FoundGradients {
  readonly inputs: Gradients;
  readonly others: readonly { readonly tensor: Tensor; readonly grad: Tensor }[];
}
/** From the gradients of a node's outputs (null = zero) to those of its inputs, in order (null = none). */
export type BackwardRule = (grads: Gradients) => Gradients | FoundGradients;

let nextId = 1;
let enabled = true;

/** The id that the next recorded node will have. */
export function nextNodeId(): number {
  return nextId;
}

export function gradEnabled(): boolean {
  return enabled;
}

function withRecording<R>(recording: boolean, fn: () => R): R {
  const op = recording ? 'enableGrad' : 'noGrad';
  expectFunction(op, 'fn', fn);
  const before = enabled;
  enabled = recording;
  try {
    const result = fn();
    if (!(result instanceof Promise)) return result;
    result.catch(() => undefined);
    throw new FoveaError('ERR_ARGUMENT', `${op}: fn returned a promise; compute inside, await outside it`);
  } finally {
    enabled = before;
  }
}

/** Runs `fn`, which must be synchronous (ERR_ARGUMENT for a promise), without recording: results need no gradients. */
export function noGrad<R>(fn: () => R): R {
  return withRecording(false, fn);
}

/** Runs `fn` recording, also inside noGrad (checkpoint needs that). */
export function enableGrad<R>(fn: () => R): R {
  return withRecording(true, fn);
}

export class GradNode {
  readonly id = nextId++;
  readonly op: string;
  readonly inputs: readonly Tensor[];
  readonly outputCount: number;
  rule: BackwardRule | null;
  saved: readonly Tensor[];
  readonly versions: readonly number[];

  constructor(
    op: string,
    outputCount: number,
    inputs: readonly Tensor[],
    rule: BackwardRule,
    saved: readonly Tensor[],
  ) {
    this.op = op;
    this.inputs = inputs;
    this.outputCount = outputCount;
    this.rule = rule;
    this.saved = saved;
    this.versions = saved.map((t) => native().version(t.handle));
  }

  /** Every tensor that must stay alive for this node's backward. */
  holds(): Iterable<Tensor> {
    return [...this.inputs, ...this.saved];
  }

  run(grads: Gradients, retain: boolean): FoundGradients {
    if (!this.rule) {
      throw new FoveaError(
        'ERR_AUTOGRAD',
        `${this.op}: its part of the graph was freed by an earlier backward(); pass { retainGraph: true } to that one, or compute the loss again`,
      );
    }
    this.saved.forEach((t, i) => {
      if (t.disposed) {
        throw new FoveaError(
          'ERR_DISPOSED',
          `${this.op}: a tensor its gradient needs was disposed before backward(); call backward() inside the same scope()`,
        );
      }
      if (native().version(t.handle) !== this.versions[i]) {
        throw new FoveaError(
          'ERR_AUTOGRAD',
          `${this.op}: a tensor its gradient needs was changed in place after it was used; use a copy, or call backward() before changing it`,
        );
      }
    });
    const rule = this.rule;
    const result = noGrad(() => scope(() => rule(grads)));
    if (!retain) {
      this.rule = null;
      this.saved = [];
    }
    return 'inputs' in result ? result : { inputs: result, others: [] };
  }
}

/**
 * Records that `outputs` were computed from `inputs`, when any of them needs a gradient and recording is on.
 * `saved` are the tensors the rule uses: they are kept alive, and checked for changes in place.
 */
export function record(
  op: string,
  outputs: readonly Tensor[],
  inputs: readonly Tensor[],
  rule: BackwardRule,
  saved: readonly Tensor[] = [],
): void {
  if (enabled && inputs.some((t) => t.requiresGrad)) attach(op, outputs, inputs, rule, saved);
}

/** As record(), whether or not an input needs a gradient: for rules that reach leaves of their own. */
export function attach(
  op: string,
  outputs: readonly Tensor[],
  inputs: readonly Tensor[],
  rule: BackwardRule,
  saved: readonly Tensor[] = [],
): void {
  const node = new GradNode(op, outputs.length, inputs, rule, saved);
  outputs.forEach((t, i) => {
    t.node = node;
    t.nodeOutput = i;
  });
}

/** A tensor around `handle`, recorded as `record` does; the form most ops use. The rule sees the one output gradient, never null. */
export function result(
  op: string,
  handle: number,
  inputs: readonly Tensor[],
  rule: (grad: Tensor) => Gradients,
  saved: readonly Tensor[] = [],
): Tensor {
  const out = new Tensor(handle);
  if (enabled && inputs.some((t) => t.requiresGrad)) record(op, [out], inputs, ([g]) => rule(g as Tensor), saved);
  return out;
}

/** The sum of two gradients, either of which may be missing. Takes ownership of both. */
function sum(held: Tensor | undefined | null, grad: Tensor): Tensor {
  if (!held) return grad;
  const total = new Tensor(native().add(held.handle, grad.handle));
  held.dispose();
  grad.dispose();
  return total;
}

/** `grad`, which is given away, in memory of its own: what a rule passes through is also the gradient of others, or the caller's. */
function own(grad: Tensor): Tensor {
  const owned = new Tensor(native().own(grad.handle));
  grad.dispose();
  return owned;
}

/** Adds `grad`, which is given away, to `leaf.grad`, which may then be changed in place (clipGradNorm). */
export function accumulateGrad(leaf: Tensor, grad: Tensor): void {
  leaf.grad = keep(leaf.grad ? sum(leaf.grad.detach(), grad) : own(grad));
}

/** Nodes with gradients that were not run yet, by rising id. */
class Frontier {
  readonly #nodes: GradNode[] = [];
  readonly #grads = new Map<GradNode, (Tensor | null)[]>();

  /** The gradients of a node's outputs, to be added to. */
  of(node: GradNode): (Tensor | null)[] {
    let grads = this.#grads.get(node);
    if (!grads) {
      this.#grads.set(node, (grads = Array<Tensor | null>(node.outputCount).fill(null)));
      let at = this.#nodes.length;
      while (at > 0 && this.#nodes[at - 1].id > node.id) at--;
      this.#nodes.splice(at, 0, node);
    }
    return grads;
  }

  /** Takes the latest node out: whatever used its outputs has been run. */
  pop(): { node: GradNode; grads: (Tensor | null)[] } | null {
    const node = this.#nodes.pop();
    if (!node) return null;
    const grads = this.#grads.get(node) as (Tensor | null)[];
    this.#grads.delete(node);
    return { node, grads };
  }
}

/**
 * Walks the graph below `outputs` and calls `leaf(t, grad)` once for each tensor of `wanted` (or each leaf with requiresGrad when null),
 * with its whole gradient, which then belongs to the callee. Tensors of nodes before `since` are leaves.
 */
export function walk(
  outputs: readonly Tensor[],
  seeds: readonly Tensor[],
  wanted: ReadonlySet<Tensor> | null,
  retain: boolean,
  leaf: (t: Tensor, grad: Tensor) => void,
  since = 0,
): void {
  const frontier = new Frontier();
  const ofLeaf = new Map<Tensor, Tensor>();
  const give = (t: Tensor, grad: Tensor): void => {
    const node = t.node && t.node.id >= since ? t.node : null;
    const takes = wanted ? wanted.has(t) : !node && t.requiresGrad;
    if (takes) ofLeaf.set(t, sum(ofLeaf.get(t), node ? grad.detach() : grad));
    if (node) {
      const grads = frontier.of(node);
      grads[t.nodeOutput] = sum(grads[t.nodeOutput], grad);
    } else if (!takes) grad.dispose();
  };
  outputs.forEach((t, i) => give(t, seeds[i].detach()));
  for (let next = frontier.pop(); next; next = frontier.pop()) {
    const { node, grads } = next;
    const { inputs: inputGrads, others } = node.run(grads, retain);
    const given = new Set<Tensor>(grads.filter((g) => g !== null));
    node.inputs.forEach((t, i) => {
      const g = inputGrads[i];
      if (!g || !t.requiresGrad) {
        if (g && !given.has(g)) {
          given.add(g);
          g.dispose();
        }
        return;
      }
      // A rule may pass one tensor on to several inputs, or its own output gradient through.
      give(t, given.has(g) ? g.detach() : g);
      given.add(g);
    });
    for (const { tensor, grad } of others) give(tensor, grad);
    for (const g of grads) g?.dispose();
  }
  for (const [t, grad] of ofLeaf) leaf(t, grad);
}

function seedOf(t: Tensor, gradient: Tensor | undefined): Tensor {
  if (gradient) {
    if (!((gradient as unknown) instanceof Tensor))
      throw new FoveaError('ERR_ARGUMENT', `backward: gradient is ${typeof gradient}, expected a tensor`);
    if (String(gradient.shape) !== String(t.shape)) {
      throw new FoveaError(
        'ERR_SHAPE',
        `backward: gradient has shape [${gradient.shape.join(', ')}], the tensor [${t.shape.join(', ')}]`,
      );
    }
    return gradient;
  }
  if (t.size !== 1) {
    throw new FoveaError(
      'ERR_AUTOGRAD',
      `backward: a tensor of shape [${t.shape.join(', ')}] needs { gradient }; only scalars have the default gradient 1`,
    );
  }
  const one = new Tensor(native().fromBytes(new Float32Array([1]), 0, t.shape, native().device(t.handle)));
  return t.dtype === 'f32' ? one : new Tensor(native().cast(one.handle, native().dtype(t.handle)));
}

function expectGraph(t: Tensor, what: string): void {
  if (!t.requiresGrad) {
    throw new FoveaError(
      'ERR_AUTOGRAD',
      `${what}: no input of this tensor has requiresGrad (or it was computed under noGrad)`,
    );
  }
}

setBackwardHook((t: Tensor, options: BackwardOptions) => {
  expectGraph(t, 'backward');
  const seed = seedOf(t, options.gradient);
  walk([t], [seed], null, options.retainGraph ?? false, accumulateGrad);
  if (!options.gradient) seed.dispose();
});

export interface GradOptions {
  /** Gradients of the outputs; default 1 each, which needs scalars. */
  gradients?: readonly Tensor[];
  retainGraph?: boolean;
}

const GRAD_OPTIONS: OptionNames<GradOptions> = { gradients: true, retainGraph: true };

/**
 * Gradients of the sum of `outputs` with respect to each of `inputs` (leaves or computed tensors), without touching `.grad`.
 * An input no output depends on gets null.
 */
export function grad(
  outputs: Tensor | readonly Tensor[],
  inputs: readonly Tensor[],
  options: GradOptions = {},
): (Tensor | null)[] {
  expectOptions('grad', options, GRAD_OPTIONS);
  const list = outputs instanceof Tensor ? [outputs] : outputs;
  expectTensorList('grad', 'outputs', list);
  expectTensorList('grad', 'inputs', inputs);
  for (const t of list) expectGraph(t, 'grad');
  const seeds = list.map((t, i) => seedOf(t, options.gradients?.[i]));
  const found = new Map<Tensor, Tensor>();
  walk(list, seeds, new Set(inputs), options.retainGraph ?? false, (t, g) => found.set(t, g));
  return inputs.map((t) => found.get(t) ?? null);
}
