// Strided copy with conversion between any two dtypes, as csrc/cpu/convert.h states it.
#pragma once

#include "core/dtype.h"
#include "cuda/convert_params.h"
#include "cuda/launch.h"

namespace fovea::cuda {

struct StridedCopy {
  const void* src;
  DType src_dtype;
  void* dst;
  DType dst_dtype;
  int rank;
  int64_t shape[8], src_strides[8], dst_strides[8];  // as in cpu::CopyParams
};

void convert(const StridedCopy& copy, Stream& stream);

}  // namespace fovea::cuda
