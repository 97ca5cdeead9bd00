// Layer norm and RMS norm on the device.
#pragma once

#include "core/layer_norm_params.h"
#include "cuda/launch.h"

namespace fovea::cuda {

void norm(const NormParams&, Stream&);
void norm_backward(const NormBackwardParams&, Stream&);

}  // namespace fovea::cuda
