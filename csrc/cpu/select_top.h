// The k largest elements of each row as a set: their indices in rising order.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "core/isa.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

// x [rows, n] contiguous f32, bf16 or f16; indices [rows, k]. Of equal elements those with the lowest index are taken; NaN is largest.
struct SelectTopParams {
  const void* x;
  DType dtype;
  int64_t rows, n, k;  // 0 < k <= n
  int32_t* indices;
};

template <Isa>
void select_top(const SelectTopParams&, ThreadPool&);

}  // namespace fovea::cpu
