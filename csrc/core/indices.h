// An index tensor as kernels take it.
#pragma once

#include "core/dtype.h"

namespace fovea {

// Contiguous i32, i64 or u8 indices.
struct Indices {
  const void* data;
  DType dtype;
};

}  // namespace fovea
