#include "cuda/mean_rows.h"

#include "cuda/grid.h"
#include "cuda/mean_rows_params.h"
#include "cuda/merge_runs.h"

namespace fovea::cuda {

void mean_rows(const MeanRowsParams& p, int64_t* bad, Stream& stream) {
  const int64_t entries_each = p.groups * p.count;
  const int chunk = sort_chunk_of(p.count);
  const Scratch memory = stream.scratch(static_cast<size_t>(p.count > chunk ? 2 * entries_each : entries_each) * sizeof(uint64_t));
  auto* entries = memory.data<uint64_t>();
  stream.launch("mean_rows_order", grid_of(p.groups * ((p.count + chunk - 1) / chunk)), {static_cast<unsigned>(chunk / 2)},
                chunk * sizeof(uint64_t), MeanRowsOrder{p, entries, bad, chunk});
  const void* sorted = merge_runs("sort_merge_32", entries, entries + entries_each, p.groups, p.count, chunk, stream);
  stream.launch("mean_rows_sum", threads_for(p.groups * p.size * 32), {kThreads}, 0, MeanRowsSum{p, static_cast<const uint64_t*>(sorted)});
}

}  // namespace fovea::cuda
