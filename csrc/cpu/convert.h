// Strided copy with conversion between any two dtypes: what contiguous(), to(dtype) and reading a tensor's data stand on.
//
// Conversions: widening is exact; narrowing to a float rounds to nearest even (f64 and integers reach the 16-bit floats through f32);
// any value to an integer truncates toward zero and saturates, NaN gives 0; to bool is x != 0, so NaN is true.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "core/isa.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

struct CopyParams {
  const void* src;
  DType src_dtype;
  void* dst;
  DType dst_dtype;
  int rank;  // 0 to 8
  // Strides in elements, of any sign; a source stride may be 0 (broadcast), destination elements must be distinct.
  int64_t shape[8], src_strides[8], dst_strides[8];
};

template <Isa>
void copy(const CopyParams&, ThreadPool&);

}  // namespace fovea::cpu
