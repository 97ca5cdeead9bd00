// Optimizer steps and gradient clipping on the device.
#pragma once

#include "core/optimizer_params.h"
#include "cuda/launch.h"

namespace fovea::cuda {

void adamw(const AdamWParams&, Stream&);
void sgd(const SgdParams&, Stream&);
// norm receives the length of all gradients as one vector; they are scaled to at most max_norm.
void clip_norm(const GradList&, double max_norm, float* norm, Stream&);

}  // namespace fovea::cuda
