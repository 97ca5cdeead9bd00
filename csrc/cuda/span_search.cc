#include "cuda/span_search.h"

#include <cstdio>

#include "cuda/grid.h"

namespace fovea::cuda {
namespace {

constexpr unsigned kSearchThreads = 128, kFirstThreads = 1024;

bool aligned(const AttentionTensor& t, DType dtype, int vector) {
  return reinterpret_cast<uintptr_t>(t.data) % (static_cast<size_t>(vector) * size_of(dtype)) == 0 && t.sb % vector == 0 &&
         t.sh % vector == 0 && t.sl % vector == 0;
}

// Elements a lane reads at once: the fewest with which a warp reads a row in one go, up to 4, as far as rows are aligned.
int vector_of(const SpanSearchParams& p) {
  int vector = p.dim > 64 ? 4 : p.dim > 32 ? 2 : 1;
  while (p.dim % vector != 0 || !aligned(p.q, p.dtype, vector) || !aligned(p.k, p.dtype, vector)) vector /= 2;
  return vector;
}

}  // namespace

void span_search(const SpanSearchParams& p, Stream& stream) {
  if (p.key_mask) stream.launch("span_search_first", grid_of(p.batch), {kFirstThreads}, 0, p);
  char kernel[32];
  std::snprintf(kernel, sizeof kernel, "span_search_%s_%d", name_of(p.dtype), vector_of(p));
  const int64_t per_block = kSearchThreads / 32, queries = p.batch * p.heads_q * p.len_q;
  stream.launch(kernel, grid_of((queries + per_block - 1) / per_block), {kSearchThreads}, 0, p);
}

}  // namespace fovea::cuda
