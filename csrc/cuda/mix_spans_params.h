// Joining spans as its kernels take it.
#pragma once

#include "core/mix_spans_params.h"

namespace fovea::cuda {

// `bad` receives the first entry of `pairs` that is out of range; it starts as -1.
struct MixSpansPlaces {
  MixSpansParams params;
  int64_t* bad;
};

}  // namespace fovea::cuda
