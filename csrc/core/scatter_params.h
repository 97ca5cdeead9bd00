// What scatter kernels take, on every device.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "core/indices.h"

namespace fovea {

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

}  // namespace fovea
