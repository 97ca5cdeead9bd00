// What sort kernels take, on every device.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace fovea {

// x contiguous [rows, n]; values and indices [rows, k], the first k in order (k = n sorts). Equal elements come in rising index either way.
// NaN counts as larger than everything, -0 equals 0.
struct SortParams {
  const void* x;
  DType dtype;
  int64_t rows, n, k;
  bool descending;
  void* values;
  int32_t* indices;
};

}  // namespace fovea
