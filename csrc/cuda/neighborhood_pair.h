// The two products of neighborhood attention and their transpose on a CUDA device. See cuda/neighborhood_pair.cu.
#pragma once

#include "core/neighborhood_pair_params.h"
#include "cuda/launch.h"

namespace fovea::cuda {

// Null when the kernels take the call, else why not.
const char* neighborhood_pair_refusal(const NeighborhoodPairParams&);

// weights = scale * x . keys
void neighborhood_dot(const NeighborhoodPairParams&, Stream&);
// out = scale * sum over slots of weights * keys
void neighborhood_gather(const NeighborhoodPairParams&, Stream&);
// out [batch, tokens, heads_kv, dim] = scale * sum over the queries that see a key of weights * x, in the order of heads and queries
void neighborhood_scatter(const NeighborhoodPairParams&, Stream&);

}  // namespace fovea::cuda
