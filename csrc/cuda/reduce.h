// Reductions on the device.
#pragma once

#include "core/reduce_params.h"
#include "cuda/launch.h"

namespace fovea::cuda {

void reduce(const ReduceParams&, Stream&);

}  // namespace fovea::cuda
