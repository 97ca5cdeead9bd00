// Filling memory: one value, or an arithmetic sequence.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "core/isa.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

// out[i] = the element whose bytes are in `pattern`.
struct FillParams {
  void* out;
  int64_t count;
  int element_bytes;
  uint64_t pattern;
};

// out[i] = start + i * step in double, converted to f32, f64, i32 or i64.
struct SequenceParams {
  void* out;
  int64_t count;
  DType dtype;
  double start, step;
};

template <Isa>
void fill(const FillParams&, ThreadPool&);
template <Isa>
void sequence(const SequenceParams&, ThreadPool&);

}  // namespace fovea::cpu
