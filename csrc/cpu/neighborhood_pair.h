// The two products of neighborhood attention by themselves, their transpose, and attention in plain loops to measure against.
#pragma once

#include <atomic>

#include "core/isa.h"
#include "core/neighborhood_pair_params.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

// weights = scale * x . keys
template <Isa>
void neighborhood_dot(const NeighborhoodPairParams&, ThreadPool&, const std::atomic<bool>* cancel);
// out = scale * sum over slots of weights * keys
template <Isa>
void neighborhood_gather(const NeighborhoodPairParams&, ThreadPool&, const std::atomic<bool>* cancel);
// out [batch, tokens, heads_kv, dim] = scale * sum over the queries that see a key of weights * x
template <Isa>
void neighborhood_scatter(const NeighborhoodPairParams&, ThreadPool&, const std::atomic<bool>* cancel);
// Attention as a reader would write it: out = softmax(scale * x . keys) values, one query after the other; values [.., heads_kv, dim].
template <Isa>
void neighborhood_loops(const NeighborhoodPairParams&, const float* values, ThreadPool&, const std::atomic<bool>* cancel);

}  // namespace fovea::cpu
