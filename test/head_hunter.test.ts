/** headHunter on set functions whose best heads are known; resuming; aborting. */
import { describe, expect, test } from 'vitest';
import { headHunter, type HeadHunterState } from '../lib/index.ts';
import { numbers } from './inputs.ts';
import { loadSafetensors } from '../lib/io/safetensors.ts';
import { fileURLToPath } from 'node:url';
import { range } from './plain_attention.ts';

/** A set function from single worths and worths of pairs. */
const worth =
  (unary: ArrayLike<number>, pair: (i: number, j: number) => number) =>
  (set: readonly number[]): number =>
    set.reduce((sum, i, at) => sum + unary[i] + set.slice(0, at).reduce((s, j) => s + pair(Math.min(i, j), Math.max(i, j)), 0), 0); // prettier-ignore

test('golden: headhunter_greedy', async () => {
  using file = loadSafetensors(fileURLToPath(new URL('goldens/headhunter_greedy.safetensors', import.meta.url)));
  const config = JSON.parse(file.metadata.config) as { num_heads: number; rounds: number; topk_per_round: number };
  const [unary, pairs] = ['input.unary', 'input.pair'].map((name) => numbers(file.get(name)));
  const { selected } = await headHunter({
    candidates: range(0, config.num_heads),
    evaluate: worth(unary, (i, j) => pairs[i * config.num_heads + j]),
    k: config.topk_per_round,
    rounds: config.rounds,
  });
  expect(selected).toEqual([...numbers(file.get('output.selected'))]);
});

describe('search', () => {
  const alone = [5, 1, 4, 1, 3];

  test('worths that add up: the best heads, ties by place', async () => {
    const { selected, state } = await headHunter({
      candidates: ['a', 'b', 'c', 'd', 'e'],
      evaluate: (set) => set.reduce((sum, name) => sum + alone['abcde'.indexOf(name)], 0),
      k: 2,
      rounds: 2,
    });
    expect(selected).toEqual(['a', 'c', 'e', 'b']);
    expect(state.rounds[1].scores).toEqual([null, 10, null, 10, 12]);
  });

  test('a pair that helps only together is found in rounds and missed in one', async () => {
    const evaluate = worth([3, 2.9, 2.8, 0, 0], (i, j) => (i === 0 && j === 3 ? 9 : 0));
    const candidates = range(0, 5);
    expect((await headHunter({ candidates, evaluate, k: 1, rounds: 2 })).selected).toEqual([0, 3]);
    expect((await headHunter({ candidates, evaluate, k: 2, rounds: 1 })).selected).toEqual([0, 1]);
  });

  test('goes on from the state of any score; every score is asked once', async () => {
    const asked: string[] = [];
    const evaluate = (set: readonly number[]): Promise<number> => {
      asked.push(set.join());
      return Promise.resolve(worth(alone, () => 0.5)(set));
    };
    const options = { candidates: range(0, 5), evaluate, k: 1, rounds: 3 };
    const states: HeadHunterState[] = [];
    const whole = await headHunter({ ...options, onScore: (state) => void states.push(state) });
    expect(asked).toEqual([...new Set(asked)]);
    expect(states.length).toBe(5 + 4 + 3);
    for (const state of states) {
      asked.length = 0;
      const resumed = await headHunter({ ...options, resume: JSON.parse(JSON.stringify(state)) as HeadHunterState });
      expect(resumed).toEqual(whole);
      expect(asked.length).toBe(states.length - 1 - states.indexOf(state));
    }
  });

  test('refuses what it cannot search', async () => {
    const options = { candidates: range(0, 3), evaluate: () => 0, k: 1, rounds: 2 };
    const refused = { code: 'ERR_ARGUMENT' };
    await expect(headHunter({ ...options, k: 2 })).rejects.toMatchObject(refused);
    await expect(headHunter({ ...options, rounds: 0 })).rejects.toMatchObject(refused);
    await expect(headHunter({ ...options, evaluate: () => NaN })).rejects.toMatchObject(refused);
    const resume = { rounds: [{ scores: [1], added: [0] }], current: [] };
    await expect(headHunter({ ...options, resume })).rejects.toMatchObject(refused);
    await expect(headHunter({ ...options, signal: AbortSignal.abort() })).rejects.toMatchObject({
      code: 'ERR_ABORTED',
    });
  });
});
