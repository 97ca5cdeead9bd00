/** Learning rates as functions of the step, for optimizer.setLearningRate(schedule(step)). */
import { FoveaError } from '../errors.ts';
import { expectOptions, type OptionNames } from '../options.ts';

/** The learning rate at a step, counted from 0. */
export type Schedule = (step: number) => number;

export interface ScheduleOptions {
  /** The highest learning rate. */
  lr: number;
  /** Steps in all; later steps stay at the end value. */
  steps: number;
  /** Steps of linear rise from 0: step s < warmup has lr (s + 1) / warmup. Default 0. */
  warmup?: number;
  /** Learning rate at the end. Default 0. */
  minLr?: number;
}

const SCHEDULE_OPTIONS: OptionNames<ScheduleOptions> = { lr: true, steps: true, warmup: true, minLr: true };

function schedule(options: ScheduleOptions, fall: (progress: number) => number): Schedule {
  expectOptions('schedule', options, SCHEDULE_OPTIONS);
  const { lr, steps, warmup = 0, minLr = 0 } = options;
  if (![steps, warmup].every(Number.isFinite) || steps <= 0 || warmup < 0 || warmup > steps) {
    throw new FoveaError(
      'ERR_ARGUMENT',
      `schedule: steps ${String(steps)}, warmup ${String(warmup)}; expected 0 <= warmup <= steps`,
    );
  }
  if (!Number.isFinite(lr) || !Number.isFinite(minLr))
    throw new FoveaError('ERR_ARGUMENT', `schedule: lr ${String(lr)}, minLr ${String(minLr)}; expected finite numbers`);
  return (step) => {
    if (step < warmup) return (lr * (step + 1)) / warmup;
    const progress = Math.min(1, (step - warmup) / Math.max(1, steps - warmup));
    return minLr + (lr - minLr) * fall(progress);
  };
}

/**
 * Linear warm-up, then half a cosine down to minLr.
 * Source: Loshchilov and Hutter 2017, "SGDR: Stochastic Gradient Descent with Warm Restarts", equation 5.
 */
export function cosineSchedule(options: ScheduleOptions): Schedule {
  return schedule(options, (progress) => 0.5 * (1 + Math.cos(Math.PI * progress)));
}

/** Linear warm-up, then a straight line down to minLr. */
export function linearSchedule(options: ScheduleOptions): Schedule {
  return schedule(options, (progress) => 1 - progress);
}
