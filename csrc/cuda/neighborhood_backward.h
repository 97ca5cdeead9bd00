// Gradients of neighborhood attention on a CUDA device. See cuda/neighborhood_backward.cuh and cuda/neighborhood_backward_f32.cu for how.
#pragma once

#include "cuda/neighborhood.h"

namespace fovea::cuda {

// Null when neighborhood_backward takes the call, else why not.
const char* neighborhood_backward_refusal(const NeighborhoodParams& p, const NeighborhoodGrads& g);

// Writes every gradient. p.out and p.lse are the forward pass's. The caller has asked the refusal. Every sum has one order, so equal calls
// give equal bits.
void neighborhood_backward(const NeighborhoodParams& p, const NeighborhoodGrads& g, Stream& stream);

}  // namespace fovea::cuda
