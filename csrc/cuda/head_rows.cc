#include "cuda/head_rows.h"

#include "cuda/grid.h"

namespace fovea::cuda {

void head_rows(const HeadRowsParams& p, Stream& stream) { stream.launch("head_rows", grid_of(p.batch * p.heads), {kThreads}, 0, p); }

}  // namespace fovea::cuda
