// Normalisation of rows: layer norm (mean and variance) and RMS norm (mean of squares), forward and backward.
#pragma once

#include "core/isa.h"
#include "core/layer_norm_params.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

using fovea::kNormGroups;
using fovea::norm_groups;
using fovea::norm_partial_floats;
using fovea::NormBackwardParams;
using fovea::NormParams;

template <Isa>
void norm(const NormParams&, ThreadPool&);
template <Isa>
void norm_backward(const NormBackwardParams&, ThreadPool&);

}  // namespace fovea::cpu
