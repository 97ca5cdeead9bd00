// Random tensors and dropout over the Philox streams of core/philox.h.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "core/isa.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

enum class Distribution { Uniform, Normal, Integer, Bernoulli };

struct RandomParams {
  Distribution distribution;
  void* out;  // contiguous
  DType dtype;
  int64_t count;
  uint64_t seed, offset;
  int64_t low;         // Integer: the lowest value and how many there are
  uint64_t range;      // at most 2^32
  uint64_t threshold;  // Bernoulli: p 2^32
  float scale, shift;  // Uniform, Normal: multiplied and added after the draw
};

// out[i] = word i < threshold ? x[i] * scale : 0, contiguous.
struct DropoutParams {
  const void* x;
  void* out;
  DType dtype;
  int64_t count;
  uint64_t seed, offset, threshold;
  float scale;
};

template <Isa>
void random(const RandomParams&, ThreadPool&);
template <Isa>
void dropout(const DropoutParams&, ThreadPool&);

}  // namespace fovea::cpu
