// Sums without an order (cuda/exact_sum.cuh) and the kernel that rounds them.
#pragma once

#include <cstdint>

namespace fovea::cuda {

constexpr int kExactBits = 28, kExactWords = 10;
enum ExactSpecial : uint32_t { kExactNaN = 1, kExactPlus = 2, kExactMinus = 4 };

struct ExactSumParams {
  const int64_t* words;  // kExactWords each
  float* to;
  int64_t count;
};

}  // namespace fovea::cuda
