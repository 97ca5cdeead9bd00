// What scan kernels take, on every device.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace fovea {

struct ScanParams {
  const void* in;
  void* out;
  DType in_dtype, out_dtype;  // floats keep their dtype, integers and bools give I64
  int64_t outer, length, inner;
  bool reverse;  // sums of what follows instead of what comes before, the element itself included in both
};

}  // namespace fovea
