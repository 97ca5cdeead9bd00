// Shared by cuda/convert.cu and its host code.
#pragma once

#include <cstdint>

namespace fovea::cuda {

constexpr int kConvertThreads = 256;
constexpr int kConvertPerThread = 4;

struct ConvertParams {
  const void* src;
  void* dst;
  uint32_t count;  // below 2^31: indices are divided in 32 bits
  int rank;        // 1 to 8
  uint32_t shape[8];
  int64_t src_strides[8], dst_strides[8];  // elements
};

}  // namespace fovea::cuda
