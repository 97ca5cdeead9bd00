// Ranges of rising lists on the device.
#pragma once

#include "core/causal_ranges_params.h"
#include "cuda/launch.h"

namespace fovea::cuda {

void causal_ranges(const CausalRangesParams&, Stream&);

}  // namespace fovea::cuda
