#include "cuda/causal_ranges.h"

#include "cuda/grid.h"

namespace fovea::cuda {

void causal_ranges(const CausalRangesParams& p, Stream& stream) {
  stream.launch("causal_ranges", threads_for(p.lists * p.queries), {kThreads}, 0, p);
}

}  // namespace fovea::cuda
