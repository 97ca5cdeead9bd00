// Sorting rows, and the k first of each.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "core/isa.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

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

template <Isa>
void sort(const SortParams&, ThreadPool&);

}  // namespace fovea::cpu
