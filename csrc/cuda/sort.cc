#include "cuda/sort.h"

#include <utility>

#include "cuda/grid.h"
#include "cuda/merge_runs.h"

namespace fovea::cuda {

int sort_chunk_of(int64_t n) {
  int chunk = 64;
  while (chunk < n && chunk < kSortChunk) chunk *= 2;
  return chunk;
}

void* merge_runs(const char* kernel, void* from, void* other, int64_t rows, int64_t n, int64_t chunk, Stream& stream) {
  for (int64_t run = chunk; run < n; run *= 2) {
    stream.launch(kernel, threads_for(rows * n), {kThreads}, 0, MergeRuns{from, other, rows, n, run});
    std::swap(from, other);
  }
  return from;
}

void sort(const SortParams& p, Stream& stream) {
  if (p.rows == 0 || p.k == 0) return;
  const bool wide = p.dtype == DType::F64 || p.dtype == DType::I64;
  const size_t entry_bytes = wide ? sizeof(WideEntry) : sizeof(uint64_t), bytes = static_cast<size_t>(p.rows * p.n) * entry_bytes;
  const int chunk = sort_chunk_of(p.n);
  Scratch entries = stream.scratch(p.n > chunk ? 2 * bytes : bytes);
  const int64_t chunks = p.rows * ((p.n + chunk - 1) / chunk);
  stream.launch(wide ? "sort_chunks_64" : "sort_chunks_32", grid_of(chunks), {static_cast<unsigned>(chunk / 2)}, chunk * entry_bytes,
                SortChunks{p, entries.data(), chunk});
  const void* sorted =
      merge_runs(wide ? "sort_merge_64" : "sort_merge_32", entries.data(), entries.data<char>() + bytes, p.rows, p.n, chunk, stream);
  stream.launch(wide ? "sort_finish_64" : "sort_finish_32", threads_for(p.rows * p.k), {kThreads}, 0, SortFinish{p, sorted});
}

}  // namespace fovea::cuda
