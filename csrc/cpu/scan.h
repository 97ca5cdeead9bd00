// Running sums along one axis of a contiguous tensor seen as [outer, length, inner].
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "core/isa.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

struct ScanParams {
  const void* in;
  void* out;
  DType in_dtype, out_dtype;  // floats keep their dtype, integers and bools give I64
  int64_t outer, length, inner;
  bool reverse;  // sums of what follows instead of what comes before, the element itself included in both
};

template <Isa>
void cumsum(const ScanParams&, ThreadPool&);

}  // namespace fovea::cpu
