// Cross entropy on the device.
#pragma once

#include "core/cross_entropy_params.h"
#include "cuda/cross_entropy_params.h"
#include "cuda/launch.h"

namespace fovea::cuda {

// bad: receives the first row with a bad target; starts as -1.
void cross_entropy(const CrossEntropyParams&, int64_t* bad, Stream&);
void cross_entropy_total(const CrossEntropyTotal&, Stream&);
void cross_entropy_backward(const CrossEntropyBackwardParams&, Stream&);

}  // namespace fovea::cuda
