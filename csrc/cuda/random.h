// Random tensors and dropout on the device.
#pragma once

#include "core/random_params.h"
#include "cuda/launch.h"

namespace fovea::cuda {

void random(const RandomParams&, Stream&);
void dropout(const DropoutParams&, Stream&);

}  // namespace fovea::cuda
