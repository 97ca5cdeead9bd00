// Ordering spans as its kernels take it: entries, block << 32 | turn, sorted in chunks and merged (cuda/sort.cuh).
#pragma once

#include "core/span_order_params.h"

namespace fovea::cuda {

// `bad` receives the first pair whose span lies outside the keys; it starts as -1.
struct SpanOrderChunks {
  SpanOrderParams params;
  uint64_t* entries;
  int64_t* bad;
  int chunk;
};

struct SpanOrderFinish {
  SpanOrderParams params;
  const uint64_t* entries;
};

}  // namespace fovea::cuda
