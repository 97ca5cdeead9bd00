// What rows kernels take, on every device.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "core/indices.h"

namespace fovea {

// out[o, i, :] = src[o, ids[i], :] for contiguous src [outer, size, row_bytes] and out [outer, count, row_bytes].
struct GatherRowsParams {
  const void* src;
  void* out;
  int64_t outer, size, count, row_bytes;
  Indices ids;
};

// out[o, r, :] = sum of src[o, i, :] over the i with ids[i] == r, in rising i, accumulated in f32. out [outer, size, width], every row is
// written. Bad ids are skipped.
struct AddRowsParams {
  const void* src;
  void* out;
  DType dtype;
  int64_t outer, size, count, width;
  Indices ids;
  int64_t* workspace;  // size + 1 + count
};

}  // namespace fovea
