/**
 * What optimizers share: parameter groups, per-parameter state in f32, zeroGrad, and state in and out.
 *
 * Steps are in place (each raises the version of what it writes) and are queued like any op: step() returns before it has run. 16-bit
 * parameters have an f32 master copy, because an update is often smaller than half a unit in their last place.
 */
import { FoveaError } from '../errors.ts';
import { native } from '../native.ts';
import { zerosLike } from '../ops/creation.ts';
import { copyFrom } from '../ops/copy.ts';
import { expectOptions, type OptionNames } from '../options.ts';
import { dtypeCode } from '../tensor/dtype.ts';
import { expectTensorList, kindText } from '../tensor/expect.ts';
import { keep, scope } from '../tensor/scope.ts';
import { sameShape, shapeText } from '../tensor/shape.ts';
import { Tensor } from '../tensor/tensor.ts';

/** Parameters that share settings; settings left out are those of the optimizer. */
export type ParameterGroup<Settings> = { params: Iterable<Tensor> } & Partial<Settings>;

export interface Group<Settings> {
  readonly params: readonly Tensor[];
  readonly settings: Settings;
}

/** Settings and step counts as numbers, moments as tensors named "<parameter index>.<moment>". */
export interface OptimizerState<Settings> {
  /** Steps taken by each parameter. */
  steps: number[];
  groups: Settings[];
  tensors: Record<string, Tensor>;
}

function isGroup<S>(item: Tensor | ParameterGroup<S>): item is ParameterGroup<S> {
  return (
    !(item instanceof Tensor) &&
    typeof (item as Partial<ParameterGroup<S>> | null)?.params?.[Symbol.iterator] === 'function'
  );
}

/** Throws ERR_ARGUMENT unless 0 <= value < limit. */
export function expectSetting(name: string, value: number, limit = Infinity): void {
  if (!(value >= 0 && value < limit))
    throw new FoveaError(
      'ERR_ARGUMENT',
      `optimizer: ${name} is ${value}, expected a number of at least 0${limit < Infinity ? ` and below ${limit}` : ''}`,
    );
}

/** What AdamW and SGD share: groups of parameters with their settings, steps, and state to save. */
export abstract class Optimizer<Settings extends { lr: number }> {
  /** Parameters by settings, which may be changed between steps. */
  readonly groups: Group<Settings>[] = [];
  readonly #state = new Map<Tensor, Record<string, Tensor>>();
  readonly #steps = new Map<Tensor, number>();

  /**
   * `params`: tensors with requiresGrad, or groups of them; `settings` those that are not the `defaults`, which name all there are. Throws
   * ERR_ARGUMENT for no tensors, duplicates, other tensors, unknown settings or settings out of range.
   */
  constructor(
    params: Iterable<Tensor> | Iterable<ParameterGroup<Settings>>,
    settings: Partial<Settings>,
    defaults: Settings,
  ) {
    const names = Object.fromEntries(Object.keys(defaults).map((name) => [name, true as const]));
    expectOptions('optimizer', settings, names as OptionNames<Settings>);
    const common = { ...defaults, ...settings };
    if (typeof params?.[Symbol.iterator] !== 'function')
      throw new FoveaError('ERR_ARGUMENT', `optimizer: got ${kindText(params)}, expected parameters or groups of them`);
    const items = [...params] as (Tensor | ParameterGroup<Settings>)[];
    for (const item of items)
      if (!(item instanceof Tensor || isGroup(item)))
        throw new FoveaError('ERR_ARGUMENT', `optimizer: got ${kindText(item)}, expected parameters or groups of them`);
    const grouped = items.filter(isGroup);
    const loose = items.filter((item) => item instanceof Tensor);
    const lists = grouped.map(({ params: list, ...own }) => {
      expectOptions('optimizer: group', own, names as OptionNames<typeof own>);
      const tensors = [...list];
      expectTensorList('optimizer', 'params', tensors);
      return { tensors, own };
    });
    if (loose.length > 0) lists.unshift({ tensors: loose, own: {} as (typeof lists)[number]['own'] });
    const seen = new Set<Tensor>();
    for (const { tensors, own } of lists) {
      for (const t of tensors) {
        if (!t.isLeaf || !t.requiresGrad) {
          throw new FoveaError(
            'ERR_ARGUMENT',
            `optimizer: a tensor of shape ${shapeText(t.shape)} is not a parameter; expected leaves with requiresGrad`,
          );
        }
        if (seen.has(t)) throw new FoveaError('ERR_ARGUMENT', 'optimizer: a parameter was given twice');
        seen.add(t);
      }
      this.groups.push({ params: tensors, settings: { ...common, ...own } as Settings });
    }
    if (seen.size === 0) throw new FoveaError('ERR_ARGUMENT', 'optimizer: no parameters given');
    for (const group of this.groups) this.check(group.settings);
  }

  /** Updates every parameter that has a gradient. */
  step(): void {
    for (const { params, settings } of this.groups) {
      const byStep = new Map<number, Tensor[]>();
      for (const t of params) {
        if (!t.grad) continue;
        const step = (this.#steps.get(t) ?? 0) + 1;
        byStep.set(step, [...(byStep.get(step) ?? []), t]);
      }
      for (const [step, active] of byStep) {
        this.update(active, settings, step);
        for (const t of active) this.#steps.set(t, step);
      }
    }
  }

  /** Forgets all gradients, and frees them. */
  zeroGrad(): void {
    for (const { params } of this.groups) {
      for (const t of params) {
        t.grad?.dispose();
        t.grad = null;
      }
    }
  }

  /** Sets the learning rate of every group, for schedules. */
  setLearningRate(lr: number): void {
    expectSetting('lr', lr);
    for (const { settings } of this.groups) settings.lr = lr;
  }

  /** Throws ERR_ARGUMENT for settings out of range; called by the constructor, before fields of subclasses exist. */
  protected abstract check(settings: Settings): void;

  /** Takes step number `step` (1 is the first) of `params`, which all have gradients. */
  protected abstract update(params: readonly Tensor[], settings: Settings, step: number): void;

  /** The state tensor `name` of a parameter: zeros at first, or its value in f32 for 'master'. */
  protected state(param: Tensor, name: string): Tensor {
    const all = this.#state.get(param) ?? {};
    this.#state.set(param, all);
    if (!all[name]) {
      all[name] = keep(
        name === 'master'
          ? new Tensor(native().cast(param.handle, dtypeCode('f32')))
          : zerosLike(param, { dtype: 'f32' }),
      );
    }
    return all[name];
  }

  /** Handles of the f32 copies of 16-bit parameters, null for the others. */
  protected masters(params: readonly Tensor[]): (number | null)[] {
    return params.map((t) => (t.dtype === 'f32' ? null : this.state(t, 'master').handle));
  }

  /** Everything needed to go on later. The tensors are the live ones: save them before the next step. */
  stateDict(): OptimizerState<Settings> {
    const tensors: Record<string, Tensor> = {};
    this.#parameters().forEach((param, i) => {
      for (const [name, t] of Object.entries(this.#state.get(param) ?? {})) tensors[`${i}.${name}`] = t;
    });
    const steps = this.#parameters().map((t) => this.#steps.get(t) ?? 0);
    return { steps, groups: this.groups.map(({ settings }) => ({ ...settings })), tensors };
  }

  /** Takes over (copies) a state of the same parameters in the same order. Throws ERR_ARGUMENT or ERR_SHAPE when it does not fit. */
  loadStateDict(state: OptimizerState<Settings>): void {
    const params = this.#parameters();
    if (state.groups.length !== this.groups.length || state.steps.length !== params.length) {
      throw new FoveaError(
        'ERR_ARGUMENT',
        `loadStateDict: ${state.groups.length} groups of ${state.steps.length} parameters, expected ${this.groups.length} of ${params.length}`,
      );
    }
    const entries = Object.entries(state.tensors).map(([key, t]) => {
      const [index, name] = key.split('.');
      const param = params[Number(index)];
      if (!param || !name) throw new FoveaError('ERR_ARGUMENT', `loadStateDict: no parameter for state '${key}'`);
      if (!sameShape(param.shape, t.shape)) {
        throw new FoveaError(
          'ERR_SHAPE',
          `loadStateDict: '${key}' has shape ${shapeText(t.shape)}, its parameter ${shapeText(param.shape)}`,
        );
      }
      return { param, name, t };
    });
    scope(() => {
      for (const { param, name, t } of entries) copyFrom(this.state(param, name), t);
    });
    params.forEach((t, i) => this.#steps.set(t, state.steps[i] ?? 0));
    state.groups.forEach((settings, i) => Object.assign(this.groups[i].settings, settings));
  }

  #parameters(): Tensor[] {
    return this.groups.flatMap(({ params }) => params);
  }
}
