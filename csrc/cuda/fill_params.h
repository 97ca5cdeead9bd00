// Shared by cuda/fill.cu and its host code.
#pragma once

#include <cstdint>

namespace fovea::cuda {

constexpr int kFillThreads = 256;

// out[i] = pattern, 8 bytes each.
struct FillParams {
  uint64_t* out;
  int64_t count;
  uint64_t pattern;
};

// out[i] = start + i * step in double, then converted.
struct SequenceParams {
  void* out;
  int64_t count;
  double start, step;
};

}  // namespace fovea::cuda
