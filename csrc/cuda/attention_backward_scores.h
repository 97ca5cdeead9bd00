// Gradients of what is done to scores: an additive bias, and the tables that a score program captures. They recompute P and dP, once for
// the bias and once for each load of a table, see cuda/attention_backward_bias_owner.cuh and cuda/attention_backward_scatter.cuh.
#pragma once

#include "cuda/attention_backward_params.h"
#include "cuda/launch.h"

namespace fovea::cuda {

// Adds to params.grads.dbias and params.grads.dtables, which are 0. delta is there, q_tiles are of BackwardTiles::owned queries.
void attention_backward_scores(const AttentionLimits& limits, const AttentionBackwardParams& params, Stream& stream);

}  // namespace fovea::cuda
