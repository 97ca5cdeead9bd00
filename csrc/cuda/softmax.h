// Softmax and log-softmax on the device.
#pragma once

#include "core/softmax_params.h"
#include "cuda/launch.h"

namespace fovea::cuda {

void softmax(const SoftmaxParams&, Stream&);
void softmax_backward(const SoftmaxParams&, Stream&);

}  // namespace fovea::cuda
