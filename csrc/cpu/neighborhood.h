// Neighborhood attention and its gradients: the tile kernel for every call, the shift kernel for small windows.
#pragma once

#include <atomic>

#include "core/isa.h"
#include "core/neighborhood_params.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

// Writes out and, where given, lse.
template <Isa>
void neighborhood_tiles(const NeighborhoodParams&, ThreadPool&, const std::atomic<bool>* cancel);
// Writes gradients; out and lse are inputs.
template <Isa>
void neighborhood_tiles_backward(const NeighborhoodParams&, const NeighborhoodGrads&, ThreadPool&, const std::atomic<bool>* cancel);

// The same for calls that neighborhood_shift_refusal lets through.
template <Isa>
void neighborhood_shift(const NeighborhoodParams&, ThreadPool&, const std::atomic<bool>* cancel);
template <Isa>
void neighborhood_shift_backward(const NeighborhoodParams&, const NeighborhoodGrads&, ThreadPool&, const std::atomic<bool>* cancel);
// Why the shift kernel would not take a call or not be the better one; null: it is.
const char* neighborhood_shift_refusal(const NeighborhoodParams&);

// What explain says of the tile kernel: queries of a box along each axis.
template <Isa>
void neighborhood_tile_shape(const NeighborhoodParams&, int64_t tile[3]);

}  // namespace fovea::cpu
