// What the main loop of a kernel is made of, counted in its PTX: the smallest natural loop that holds nearly all of the entry's products (mma,
// else fma). Counts are static, per thread and pass: both sides of a branch count, and a loop inside counts once. ptxas makes one instruction
// of each in the named classes; the others (addresses, predicates, moves) it merges and drops.

const classes = [
  ['mma', /^(?:mma|wgmma\.mma)/],
  ['ldmatrix', /^ldmatrix/],
  ['cp.async', /^cp\.async(?!\.(?:commit|wait))/],
  ['fma', /^fma\.rn(?:\.ftz)?\.f32/],
  ['f32', /^(?:add|sub|mul|min|max)(?:\.rn)?(?:\.ftz)?\.f32/],
  ['ex2', /^ex2/],
  ['shfl', /^shfl/],
  ['ld.shared', /^ld\.(?:volatile\.)?shared/],
  ['st.shared', /^st\.(?:volatile\.)?shared/],
  ['ld.global', /^ld\.(?:volatile\.)?global/],
  ['ld.param', /^ld\.param/],
  ['barrier', /^(?:bar|barrier|mbarrier|cp\.async\.(?:commit|wait))/],
  ['branch', /^bra/],
];
const instructionClasses = [...classes.map(([name]) => name), 'other'];

/** Entry points of a PTX text: [name, lines of the body]. */
function* entriesOf(text) {
  const starts = [...text.matchAll(/^\.visible \.entry (\w+)/gm)];
  for (const [i, start] of starts.entries())
    yield [start[1], text.slice(start.index, starts[i + 1]?.index ?? text.length).split('\n')];
}

/** Basic blocks of an entry in the order of the text: their opcodes and successors. */
function blocksOf(lines) {
  const blocks = [];
  const byLabel = new Map();
  const tables = new Map();
  let open = null;
  const start = () => {
    const next = { at: blocks.length, opcodes: [], to: [], targets: [] };
    if (open) open.to.push(next.at); // falls through
    blocks.push(next);
    return (open = next);
  };
  start();
  for (const line of lines) {
    const label = /^\s*(\$\w+):(.*)/.exec(line);
    const table = label && /\.branchtargets(.*)/.exec(label[2]);
    if (table) tables.set(label[1], table[1].match(/\$\w+/g) ?? []);
    else if (label) byLabel.set(label[1], start().at);
    const [, guard, opcode, rest] = /^\s*(@!?%\w+\s+)?([a-z][\w.:]*)\b(.*)/.exec(line) ?? [];
    if (!opcode) continue;
    open.opcodes.push(opcode);
    if (!/^(?:bra|brx|ret|exit|trap)\b/.test(opcode)) continue;
    open.targets.push(...(rest.match(/\$\w+/g) ?? []));
    if (!guard) open = null; // nothing falls through
    start();
  }
  for (const block of blocks)
    for (const target of block.targets)
      block.to.push(...(tables.get(target) ?? [target]).map((name) => byLabel.get(name)));
  return blocks;
}

/** Natural loops: the blocks of each, by its header. */
function loopsOf(blocks) {
  const reached = new Set([0]);
  for (const at of reached) for (const to of blocks[at].to) reached.add(to);
  const from = blocks.map(() => []);
  for (const at of reached) for (const to of blocks[at].to) from[to].push(at);
  const dominators = blocks.map((_, i) => (i === 0 ? new Set([0]) : reached));
  for (let changed = true; changed;) {
    changed = false;
    for (const i of reached) {
      if (i === 0) continue;
      const [first, ...others] = from[i].map((p) => dominators[p]);
      const next = new Set([i, ...[...first].filter((d) => others.every((set) => set.has(d)))]);
      if (next.size === dominators[i].size) continue;
      dominators[i] = next;
      changed = true;
    }
  }
  const loops = new Map();
  for (const last of reached)
    for (const header of blocks[last].to.filter((to) => dominators[last].has(to))) {
      const body = loops.get(header) ?? new Set([header]);
      const open = [last];
      while (open.length) {
        const at = open.pop();
        if (body.has(at)) continue;
        body.add(at);
        open.push(...from[at]);
      }
      loops.set(header, body);
    }
  return [...loops.values()].map((body) => [...body].map((at) => blocks[at]));
}

function count(blocks) {
  const counts = Object.fromEntries(instructionClasses.map((name) => [name, 0]));
  const opcodes = blocks.flatMap((block) => block.opcodes);
  for (const opcode of opcodes) counts[classes.find(([, pattern]) => pattern.test(opcode))?.[0] ?? 'other']++;
  return { total: opcodes.length, ...counts };
}

/**
 * One row per entry whose products are in a loop: kernel, instructions of a pass of that loop by class.
 * @param {string} text PTX
 * @returns {Record<string, string | number>[]}
 */
export function mainLoops(text) {
  const rows = [];
  for (const [kernel, lines] of entriesOf(text)) {
    const blocks = blocksOf(lines);
    const whole = count(blocks);
    const weight = whole.mma ? 'mma' : 'fma';
    if (!whole.mma && whole.fma < 32) continue; // not a kernel of products
    const [main] = loopsOf(blocks)
      .map(count)
      .filter((counts) => counts[weight] > 0.8 * whole[weight])
      .toSorted((a, b) => a.total - b.total);
    if (main) rows.push({ kernel, ...main });
  }
  return rows;
}
