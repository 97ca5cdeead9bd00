#include "cuda/mix_spans.h"

#include "cuda/grid.h"
#include "cuda/mix_spans_params.h"

namespace fovea::cuda {

void mix_spans(const MixSpansParams& p, int64_t* bad, Stream& stream) {
  const int64_t pairs = p.rows * p.spans;
  stream.fill(p.places, 0, 4, static_cast<size_t>(pairs));  // of a list that is no permutation, some would stay unset
  stream.launch("mix_spans_places", threads_for(pairs), {kThreads}, 0, MixSpansPlaces{p, bad});
  stream.launch("mix_spans", threads_for(p.rows * 32), {kThreads}, 0, p);
}

}  // namespace fovea::cuda
