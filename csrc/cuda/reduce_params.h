// A reduction as its kernels take it.
#pragma once

#include "core/reduce_params.h"

namespace fovea::cuda {

constexpr int kReduceThreads = 256;
constexpr int64_t kReduceChunk = 1 << 16;
constexpr int kReduceStateBytes = 24;

struct ReduceLaunch {
  ReduceParams params;  // axes merged where possible
  int64_t kept, reduced, chunks;
  int slots;     // threads that share an output: 8, 32 or 256
  bool columns;  // neighbouring threads take neighbouring outputs
  void* states;  // kReduceStateBytes for each output and chunk, output by output; null with one chunk
};

}  // namespace fovea::cuda
