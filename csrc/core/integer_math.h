// Whole numbers as elementwise ops have them, on every device.
#pragma once

#include <cstdint>

#include "core/host_device.h"

namespace fovea {
namespace {

// The type whose arithmetic wraps around; of floats themselves.
template <class T>
struct UnsignedOf {
  using type = T;
};
template <>
struct UnsignedOf<int32_t> {
  using type = uint32_t;
};
template <>
struct UnsignedOf<int64_t> {
  using type = uint64_t;
};

// Wraps around; of a negative exponent the whole part.
template <class T>
FOVEA_DEVICE T integer_power(T base, T exponent) {
  using U = typename UnsignedOf<T>::type;
  if (exponent < 0) return base == 1 ? 1 : base == -1 ? (exponent & 1 ? -1 : 1) : 0;
  U result = 1, square = static_cast<U>(base);
  for (U rest = static_cast<U>(exponent); rest; rest >>= 1) {
    if (rest & 1) result *= square;
    square *= square;
  }
  return static_cast<T>(result);
}

// Has the sign of the divisor; 0 where that is 0.
template <class T>
FOVEA_DEVICE T integer_remainder(T a, T b) {
  if (b == 0 || b == -1) return 0;
  const T r = a % b;
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}

}  // namespace
}  // namespace fovea
