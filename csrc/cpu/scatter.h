// Elements by index along one axis: gather, scatter and scatter-add. Tensors are contiguous [outer, axis, inner]; the index is
// [outer, count, index_inner] with index_inner = inner, or 1 where one index serves a whole row.
#pragma once

#include "core/dtype.h"
#include "core/isa.h"
#include "core/thread_pool.h"
#include "cpu/indices.h"

namespace fovea::cpu {

struct IndexedShape {
  int64_t outer, size, count, inner, index_inner;  // `size` of the indexed axis, `count` of the index
  Indices index;
};

// out[o, j, i] = t[o, index, i]
struct GatherParams {
  IndexedShape shape;
  const void* t;
  void* out;
  int element_bytes;
};

// out[o, index, i] = src[o, j, i], in rising j: the last one stays.
struct ScatterParams {
  IndexedShape shape;
  const void* src;
  void* out;
  int element_bytes;
};

// out[o, index, i] += src[o, j, i], in rising j, in f32. counts [outer, size, index_inner] += 1 each, unless null.
struct ScatterAddParams {
  IndexedShape shape;
  const void* src;
  DType dtype;  // of src
  float* out;
  float* counts;
};

// out[o, s, i] /= max(counts, 1), which is also what counts become.
struct DivideCountsParams {
  int64_t rows, inner, index_inner;  // rows = outer * size
  float *out, *counts;
};

// Returns the first position of the index that is out of range (skipped), or -1.
template <Isa>
int64_t gather(const GatherParams&, ThreadPool&);
template <Isa>
int64_t scatter(const ScatterParams&, ThreadPool&);
template <Isa>
int64_t scatter_add(const ScatterAddParams&, ThreadPool&);
template <Isa>
void divide_counts(const DivideCountsParams&, ThreadPool&);

}  // namespace fovea::cpu
