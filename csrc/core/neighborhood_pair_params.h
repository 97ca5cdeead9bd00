// The two products of neighborhood attention by themselves, as the kernels see them.
//
// Everything f32 and contiguous: queries and results [batch, tokens, heads_q, dim], keys [batch, tokens, heads_kv, dim], weights
// [batch, tokens, heads_q, slots] where slot number s of a query is key number s of its window, row-major.
#pragma once

#include "core/neighborhood_params.h"

namespace fovea {

struct NeighborhoodPairParams {
  NeighborhoodParams space;  // axes, batch, tokens, heads and dim alone
  int64_t slots;
  const float* x;  // queries or gradients of results
  const float* keys;
  float* weights;
  float* out;
  float scale;
  float unseen;  // weight of slots beyond a causal window
};

}  // namespace fovea
