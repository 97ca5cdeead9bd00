// What averages of rows take, on every device.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace fovea {

// inverse[g, r] = 1 / (n + epsilon), n = how often r occurs in ids[g]; out[g, r] = inverse[g, r] * sum of src[g, i] over the i with
// ids[g, i] = r, in rising i, in f32. Everything is contiguous; bad ids are skipped.
struct MeanRowsParams {
  const void* src;  // [groups, count, width]
  void* out;        // [groups, size, width]
  DType dtype;      // of both: f32, bf16, f16
  int64_t groups, count, size, width;
  const int32_t* ids;  // [groups, count]
  float epsilon;       // > 0
  float* inverse;      // [groups, size]
  int32_t* workspace;  // [groups, size + 1 + count], on the CPU alone
};

}  // namespace fovea
