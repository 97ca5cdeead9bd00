#include "cuda/span_order.h"

#include "cuda/grid.h"
#include "cuda/merge_runs.h"
#include "cuda/span_order_params.h"

namespace fovea::cuda {

void span_order(const SpanOrderParams& p, int64_t* bad, Stream& stream) {
  const int64_t each = p.group * p.queries * p.spans, count = p.lists * each;
  const int chunk = sort_chunk_of(each);
  Scratch entries = stream.scratch(static_cast<size_t>(each > chunk ? 2 * count : count) * sizeof(uint64_t));
  auto* first = entries.data<uint64_t>();
  stream.launch("span_order_chunks", grid_of(p.lists * ((each + chunk - 1) / chunk)), {static_cast<unsigned>(chunk / 2)},
                chunk * sizeof(uint64_t), SpanOrderChunks{p, first, bad, chunk});
  const void* sorted = merge_runs("sort_merge_32", first, first + count, p.lists, each, chunk, stream);
  stream.launch("span_order_finish", threads_for(count), {kThreads}, 0, SpanOrderFinish{p, static_cast<const uint64_t*>(sorted)});
}

}  // namespace fovea::cuda
