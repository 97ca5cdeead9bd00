import { score, type Score } from '../mask.ts';
import { seen, type FloatTable2 } from './table.ts';

/**
 * Spatial bias of a graph: a learned bias per head and shortest-path distance between the two nodes.
 *
 * @param bias [heads, distances]; a tensor is trained
 * @param distance [nodes, nodes] shortest-path distances, clipped to the number of entries; unreachable pairs have an entry of their own
 *
 * Source: Ying et al., "Do Transformers Really Perform Bad for Graph Representation?" (Graphormer), 2021, section 3.1.2.
 */
export function graphormer(bias: FloatTable2, distance: FloatTable2): Score {
  return score(({ s, h, q, kv }, { bias, distance }) => s + bias[h][distance[q][kv]], {
    bias: seen(bias),
    distance: seen(distance),
  });
}
