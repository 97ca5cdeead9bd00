// Elements of the float dtypes as numbers, rounding to nearest even: plain code for tests, apart from the kernels' own.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "core/dtype.h"

using fovea::DType;

namespace {

float widen(DType d, const void* data, int64_t i) {
  if (d == DType::F32) return static_cast<const float*>(data)[i];
  uint16_t bits = static_cast<const uint16_t*>(data)[i];
  if (d == DType::BF16) {
    uint32_t u = static_cast<uint32_t>(bits) << 16;
    float f;
    std::memcpy(&f, &u, 4);
    return f;
  }
  int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  float sign = bits & 0x8000 ? -1.f : 1.f;
  if (exponent == 31) return mantissa ? NAN : sign * INFINITY;
  return sign * (exponent ? std::ldexp(1024.f + mantissa, exponent - 25) : std::ldexp(static_cast<float>(mantissa), -24));
}

uint16_t narrow(DType d, float x) {
  uint32_t u;
  std::memcpy(&u, &x, 4);
  if (d == DType::BF16) return static_cast<uint16_t>((u + 0x7fff + (u >> 16 & 1)) >> 16);
  if (std::isinf(x)) return x < 0 ? 0xfc00 : 0x7c00;
  int exponent;
  float fraction = std::frexp(std::fabs(x), &exponent);
  uint16_t sign = x < 0 ? 0x8000 : 0;
  if (x == 0 || exponent < -13) return static_cast<uint16_t>(sign | static_cast<uint16_t>(std::lrint(std::ldexp(std::fabs(x), 24))));
  return static_cast<uint16_t>(sign + ((exponent + 14) << 10) + static_cast<int>(std::lrint(fraction * 2048)) - 1024);
}

}  // namespace
