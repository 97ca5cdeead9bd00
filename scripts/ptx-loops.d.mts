/** One row per entry whose products are in a loop: kernel, instructions of a pass of that loop by class. */
export function mainLoops(ptx: string): Record<string, string | number>[];
