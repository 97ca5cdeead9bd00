#include "cuda/cross_entropy.h"

#include "cuda/grid.h"
#include "cuda/indexed_params.h"
#include "cuda/row_slots.h"

namespace fovea::cuda {

void cross_entropy(const CrossEntropyParams& p, int64_t* bad, Stream& stream) {
  stream.launch("cross_entropy", grid_of(row_blocks(p.rows, p.classes)), {kRowThreads}, 0, IndexedLaunch<CrossEntropyParams>{p, bad});
}

void cross_entropy_total(const CrossEntropyTotal& p, Stream& stream) { stream.launch("cross_entropy_total", {1}, {kRowThreads}, 0, p); }

void cross_entropy_backward(const CrossEntropyBackwardParams& p, Stream& stream) {
  stream.launch("cross_entropy_backward", threads_for(p.rows * p.classes), {kThreads}, 0, p);
}

}  // namespace fovea::cuda
