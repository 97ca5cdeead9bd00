#include "cuda/rows.h"

#include "cuda/grid.h"
#include "cuda/indexed_params.h"
#include "cuda/merge_runs.h"

namespace fovea::cuda {
namespace {

bool aligned(const void* p, size_t bytes) { return reinterpret_cast<uintptr_t>(p) % bytes == 0; }

}  // namespace

void gather_rows(const GatherRowsParams& p, int64_t* bad, Stream& stream) {
  const int64_t rows = p.outer * p.count;
  if (rows == 0 || p.row_bytes == 0) return;
  int word = 16;
  auto fits = [&] {
    return p.row_bytes % word == 0 && aligned(p.src, static_cast<size_t>(word)) && aligned(p.out, static_cast<size_t>(word));
  };
  if (!fits()) word = 4;
  while (word > 1 && !fits()) word /= 2;
  const char* kernel = word == 16 ? "gather_rows_16" : word == 4 ? "gather_rows_4" : word == 2 ? "gather_rows_2" : "gather_rows_1";
  stream.launch(kernel, threads_for(rows * (p.row_bytes / word)), {kThreads}, 0, IndexedLaunch<GatherRowsParams>{p, bad});
}

void add_rows(const AddRowsParams& p, int64_t* bad, Stream& stream) {
  check(p.size <= INT32_MAX && p.count <= INT32_MAX, "ERR_UNSUPPORTED", "adding rows on cuda: ", p.count, " rows into ", p.size,
        "; at most 2^31 - 1 of each");
  if (p.outer * p.size * p.width == 0) return;
  const int chunk = sort_chunk_of(p.count);
  Scratch entries = stream.scratch(static_cast<size_t>(2 * p.count + 2) * sizeof(uint64_t));
  auto* first = entries.data<uint64_t>();
  if (p.count > 0)
    stream.launch("add_rows_order", grid_of((p.count + chunk - 1) / chunk), {static_cast<unsigned>(chunk / 2)}, chunk * sizeof(uint64_t),
                  AddRowsOrder{p.ids, p.count, p.size, first, bad, chunk});
  const void* sorted = merge_runs("sort_merge_32", first, first + p.count, 1, p.count, chunk, stream);
  const unsigned threads = p.width >= 256 ? 256 : p.width >= 64 ? 64 : 32;
  stream.launch("add_rows_sum", grid_of(p.outer * p.size), {threads}, 0, AddRowsSum{p, static_cast<const uint64_t*>(sorted)});
}

}  // namespace fovea::cuda
