#include "cuda/layer_norm.h"

#include "cuda/grid.h"
#include "cuda/row_slots.h"

namespace fovea::cuda {

void norm(const NormParams& p, Stream& stream) {
  if (p.width > 0) stream.launch("norm_forward", grid_of(row_blocks(p.rows, p.width)), {kRowThreads}, 0, p);
}

void norm_backward(const NormBackwardParams& p, Stream& stream) {
  if (p.width == 0) return;
  if (p.grad_x) stream.launch("norm_backward_rows", grid_of(row_blocks(p.rows, p.width)), {kRowThreads}, 0, p);
  if (!p.partial) return;
  const Dim3 columns = threads_for(p.width);
  stream.launch("norm_backward_columns", {columns.x, static_cast<unsigned>(norm_groups(p.rows)), 1}, {kThreads}, 0, p);
  stream.launch("norm_backward_groups", columns, {kThreads}, 0, p);
}

}  // namespace fovea::cuda
