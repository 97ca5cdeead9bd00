// The last step of cross entropy as its kernel takes it.
#pragma once

#include "core/indices.h"

namespace fovea::cuda {

struct CrossEntropyTotal {
  int64_t rows, ignore;
  Indices targets;
  const float* losses;
  float *total, *count;  // total null: not wanted
  bool mean;             // of the rows that count, instead of the sum
};

}  // namespace fovea::cuda
