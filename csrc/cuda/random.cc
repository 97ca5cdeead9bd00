#include "cuda/random.h"

#include "cuda/grid.h"

namespace fovea::cuda {

void random(const RandomParams& p, Stream& stream) { stream.launch("random_fill", threads_for((p.count + 3) / 4), {kThreads}, 0, p); }

void dropout(const DropoutParams& p, Stream& stream) { stream.launch("dropout", threads_for((p.count + 3) / 4), {kThreads}, 0, p); }

}  // namespace fovea::cuda
