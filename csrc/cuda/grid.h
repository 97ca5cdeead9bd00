// Grids of kernels that take a thread or a block an item.
#pragma once

#include "core/error.h"
#include "cuda/launch.h"

namespace fovea::cuda {

constexpr unsigned kThreads = 256;

inline Dim3 grid_of(int64_t blocks) {
  check(blocks <= INT32_MAX, "ERR_UNSUPPORTED", "cuda: the operation needs ", blocks, " blocks, more than a grid has; split it");
  return {static_cast<unsigned>(blocks), 1, 1};
}

// Blocks of kThreads for `count` threads.
inline Dim3 threads_for(int64_t count) { return grid_of((count + kThreads - 1) / kThreads); }

}  // namespace fovea::cuda
