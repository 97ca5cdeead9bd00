#include "cuda/neighborhood_pair.h"

#include "cuda/grid.h"

namespace fovea::cuda {
namespace {

constexpr unsigned kWarps = 8;  // of a block; a row each

void launch(const char* kernel, const NeighborhoodPairParams& p, int64_t heads, Stream& stream) {
  stream.launch(kernel, grid_of((p.space.batch * p.space.tokens * heads + kWarps - 1) / kWarps), {32, kWarps}, 0, p);
}

}  // namespace

const char* neighborhood_pair_refusal(const NeighborhoodPairParams& p) {
  constexpr int64_t kLargest = 1 << 30;  // rows and slots are 32-bit
  return p.space.batch * p.space.tokens * p.space.heads_q >= kLargest || p.slots >= kLargest
             ? "2^30 rows or slots and more are not addressed"
             : nullptr;
}

void neighborhood_dot(const NeighborhoodPairParams& p, Stream& stream) { launch("neighborhood_pair_dot", p, p.space.heads_q, stream); }

void neighborhood_gather(const NeighborhoodPairParams& p, Stream& stream) {
  launch("neighborhood_pair_gather", p, p.space.heads_q, stream);
}

void neighborhood_scatter(const NeighborhoodPairParams& p, Stream& stream) {
  launch("neighborhood_pair_scatter", p, p.space.heads_kv, stream);
}

}  // namespace fovea::cuda
