// Parameters of strided copies, for every device's kernels.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace fovea {

struct CopyParams {
  const void* src;
  DType src_dtype;
  void* dst;
  DType dst_dtype;
  int rank;  // 0 to 8
  // Strides in elements, of any sign; a source stride may be 0 (broadcast), destination elements must be distinct.
  int64_t shape[8], src_strides[8], dst_strides[8];
};

}  // namespace fovea
