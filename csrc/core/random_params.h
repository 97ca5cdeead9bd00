// What random kernels take, on every device.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace fovea {

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

}  // namespace fovea
