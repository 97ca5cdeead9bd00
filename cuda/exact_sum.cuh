// Sums of floats that have no order: each is kept exactly, as a whole number of units of 2^-149 cut in digits of 28 bits, one 64-bit word a
// digit. A float falls on two neighbouring digits at most. Words are added to by integer atomics, which commute, so the sum has the
// same bits whatever the schedule; it is rounded once, at the end. A word holds 2^35 additions.
#pragma once

#include "cuda/exact_sum_params.h"

namespace fovea::cuda {

__device__ __forceinline__ void add_digit(int64_t* word, int64_t x) {
  if (x) atomicAdd(reinterpret_cast<unsigned long long*>(word), static_cast<unsigned long long>(x));
}

// words: kExactWords of the sum. special: notes what is not finite, see exact_value.
__device__ __forceinline__ void add_exact(int64_t* words, uint32_t* special, float x) {
  const uint32_t bits = __float_as_uint(x), exponent = bits >> 23 & 255, fraction = bits & 0x7fffff;
  if (exponent == 255) {
    atomicOr(special, fraction ? kExactNaN : bits >> 31 ? kExactMinus : kExactPlus);
    return;
  }
  const uint32_t place = exponent ? exponent - 1 : 0, digit = place / kExactBits;  // of the lowest bit
  const int64_t wide = static_cast<int64_t>(exponent ? fraction | 0x800000 : fraction) << (place - digit * kExactBits);
  const int64_t low = wide & ((1 << kExactBits) - 1), high = wide >> kExactBits, sign = bits >> 31 ? -1 : 1;
  add_digit(words + digit, sign * low);
  add_digit(words + digit + 1, sign * high);
}

__device__ __forceinline__ float exact_value(const int64_t* words, uint32_t special) {
  if (special)
    return special == kExactPlus    ? __int_as_float(0x7f800000)
           : special == kExactMinus ? __int_as_float(0xff800000)
                                    : __int_as_float(0x7fc00000);
  // Digits in [-2^27, 2^27), so that the first one that isn't 0 rules.
  constexpr int64_t kHalf = 1 << (kExactBits - 1);
  int64_t digits[kExactWords], carry = 0;
#pragma unroll
  for (int i = 0; i < kExactWords; i++) {
    const int64_t word = words[i] + carry;
    digits[i] = ((word + kHalf) & (2 * kHalf - 1)) - kHalf;
    carry = (word - digits[i]) >> kExactBits;
  }
  double value = static_cast<double>(carry);
#pragma unroll
  for (int i = kExactWords - 1; i >= 0; i--) value = value * (1 << kExactBits) + static_cast<double>(digits[i]);
  return static_cast<float>(value * 0x1p-149);
}

}  // namespace fovea::cuda
