// The derivative of an activation fused into a matrix product.
#pragma once

#include "core/linear_params.h"
#include "cuda/launch.h"

namespace fovea::cuda {

void activation_grad(const ActivationGradParams&, Stream&);

}  // namespace fovea::cuda
