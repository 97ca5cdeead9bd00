// Depth-wise 2-D convolution with "same" zero padding: every channel has a small odd filter of its own.
#pragma once

#include "core/depthwise_conv_params.h"
#include "core/isa.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

using fovea::DepthwiseConvParams;
using fovea::DepthwiseConvWeightParams;

template <Isa>
void depthwise_conv(const DepthwiseConvParams&, ThreadPool&);
template <Isa>
void depthwise_conv_weight(const DepthwiseConvWeightParams&, ThreadPool&);

}  // namespace fovea::cpu
