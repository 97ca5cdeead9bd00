// Averages of rows as their kernels take them.
#pragma once

#include "core/mean_rows_params.h"

namespace fovea::cuda {

// `bad` receives the first position of ids that is out of range; it starts as -1.
struct MeanRowsOrder {
  MeanRowsParams params;
  uint64_t* entries;  // [groups, count]: row << 32 | position, sorted in chunks
  int64_t* bad;
  int chunk;
};

struct MeanRowsSum {
  MeanRowsParams params;
  const uint64_t* entries;
};

}  // namespace fovea::cuda
