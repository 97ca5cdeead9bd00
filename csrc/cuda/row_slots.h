// How kernels that reduce rows share them among threads.
#pragma once

#include <cstdint>

#include "core/host_device.h"

namespace fovea::cuda {

constexpr int kRowThreads = 256;

// A warp for short rows, else a block: by the length alone, so that a row's sums have one order.
FOVEA_DEVICE constexpr int row_slots(int64_t length) { return length <= 1024 ? 32 : kRowThreads; }
FOVEA_DEVICE constexpr int64_t row_blocks(int64_t rows, int64_t length) {
  const int64_t per_block = kRowThreads / row_slots(length);
  return (rows + per_block - 1) / per_block;
}

}  // namespace fovea::cuda
