/** TCPA: a class token and image tokens that use different prompts, though all of them share the softmax. */
import { promptMask, promptMaskedAttention, promptPool, randn, manualSeed } from '../lib/index.ts';
import { shade } from './draw.ts';

manualSeed(5);
const [n, dim] = [10, 16];
const x = randn([1, n + 1, dim]);
const [clsKeys, imageKeys] = [randn([6, dim]), randn([8, dim])];
const cls = { index: promptPool(x.slice(1, 0, 1), clsKeys, 2).index.select(1, 0), entries: 6, tokens: 1 };
const image = { index: promptPool(x.slice(1, 1), imageKeys, 3).index, entries: 8, tokens: 1 };
const allowed = promptMask({ cls, image });
const keys = 1 + 6 + 8 + n;
console.log(`class token and ${n} image tokens (rows); class, 6 class prompts, 8 image prompts, image (columns)`);
console.log(shade(Array.from(allowed.dataSync() as Uint8Array), n + 1, keys));
const [q, k, v] = [randn([1, 1, n + 1, dim]), randn([1, 1, keys, dim]), randn([1, 1, keys, dim]).mul(0).add(1)];
const mass = promptMaskedAttention(q, k, v, { allowed }).select(3, 0).dataSync() as Float32Array;
console.log(`mass left to each query: ${Array.from(mass, (m) => m.toFixed(2)).join(' ')}`);
