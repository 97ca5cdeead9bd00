// Depth-wise convolution on the device.
#pragma once

#include "core/depthwise_conv_params.h"
#include "cuda/launch.h"

namespace fovea::cuda {

void depthwise_conv(const DepthwiseConvParams&, Stream&);
void depthwise_conv_weight(const DepthwiseConvWeightParams&, Stream&);

}  // namespace fovea::cuda
