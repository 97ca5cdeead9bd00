#include "cuda/rotary.h"

#include "cuda/grid.h"
#include "cuda/indexed_params.h"

namespace fovea::cuda {

void rotary(const RotaryParams& p, int64_t* bad, Stream& stream) {
  const int64_t per_row = p.width - p.dims / 2;
  stream.launch("rotary", threads_for(p.batch * p.heads * p.length * per_row), {kThreads}, 0, IndexedLaunch<RotaryParams>{p, bad});
}

void rotary_table(const RotaryTableParams& p, Stream& stream) {
  stream.launch("rotary_table", threads_for(p.length * p.half), {kThreads}, 0, p);
}

}  // namespace fovea::cuda
