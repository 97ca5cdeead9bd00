// An elementwise operation as its kernels take it.
#pragma once

#include "core/elementwise_params.h"

namespace fovea::cuda {

constexpr int kElementsPerThread = 4;

struct ElementwiseLaunch {
  ElementwiseParams params;  // axes merged where all inputs allow
  int64_t count;
  bool flat;     // every input is dense in the order of the output, or one value
  int repeated;  // bit k: input k is one value
};

}  // namespace fovea::cuda
