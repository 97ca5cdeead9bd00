// Strided copy with conversion between any two dtypes: what contiguous(), to(dtype) and reading a tensor's data stand on.
//
// Conversions: widening is exact; narrowing to a float rounds to nearest even (f64 and integers reach the 16-bit floats through f32);
// any value to an integer truncates toward zero and saturates, NaN gives 0; to bool is x != 0, so NaN is true.
#pragma once

#include "core/copy_params.h"
#include "core/isa.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

using fovea::CopyParams;

template <Isa>
void copy(const CopyParams&, ThreadPool&);

// One element, on the calling thread: for those who must not wait for the pool.
template <Isa>
void convert_one(const void* from, DType from_dtype, void* to, DType to_dtype);

}  // namespace fovea::cpu
