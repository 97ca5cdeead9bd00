// What the selection of the largest elements takes, on every device.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace fovea {

// x [rows, n] contiguous f32, bf16 or f16; indices [rows, k]. Of equal elements those with the lowest index are taken; NaN is largest.
struct SelectTopParams {
  const void* x;
  DType dtype;
  int64_t rows, n, k;  // 0 < k <= n
  int32_t* indices;
};

}  // namespace fovea
