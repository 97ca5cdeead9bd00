// Elementwise kernels on the device.
#pragma once

#include "core/elementwise_params.h"
#include "cuda/launch.h"

namespace fovea::cuda {

void binary(const ElementwiseParams&, Stream&);
void unary(const ElementwiseParams&, Stream&);
void unary_backward(const ElementwiseParams&, Stream&);
void where(const ElementwiseParams&, Stream&);

}  // namespace fovea::cuda
