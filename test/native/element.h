// Elements of every dtype as doubles.
#pragma once

#include <vector>

#include "sixteen_bit.h"

namespace {

inline double element(DType dtype, const void* data, size_t i) {
  switch (dtype) {
    case DType::F64: return static_cast<const double*>(data)[i];
    case DType::I32: return static_cast<const int32_t*>(data)[i];
    case DType::I64: return static_cast<double>(static_cast<const int64_t*>(data)[i]);
    case DType::U8:
    case DType::Bool: return static_cast<const uint8_t*>(data)[i];
    default: return widen(dtype, data, static_cast<int64_t>(i));
  }
}

inline void set_element(DType dtype, void* data, size_t i, double x) {
  switch (dtype) {
    case DType::F32: static_cast<float*>(data)[i] = static_cast<float>(x); break;
    case DType::F64: static_cast<double*>(data)[i] = x; break;
    case DType::I32: static_cast<int32_t*>(data)[i] = static_cast<int32_t>(x); break;
    case DType::I64: static_cast<int64_t*>(data)[i] = static_cast<int64_t>(x); break;
    case DType::U8:
    case DType::Bool: static_cast<uint8_t*>(data)[i] = static_cast<uint8_t>(x); break;
    default: static_cast<uint16_t*>(data)[i] = narrow(dtype, static_cast<float>(x));
  }
}

// The nearest that `dtype` holds.
inline std::vector<double> rounded(DType dtype, std::vector<double> values) {
  uint64_t memory;
  for (double& x : values) {
    set_element(dtype, &memory, 0, x);
    x = element(dtype, &memory, 0);
  }
  return values;
}

}  // namespace
