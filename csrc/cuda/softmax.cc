#include "cuda/softmax.h"

#include "cuda/grid.h"
#include "cuda/row_slots.h"

namespace fovea::cuda {

void softmax(const SoftmaxParams& p, Stream& stream) {
  const Dim3 grid = grid_of(row_blocks(p.outer * p.inner, p.length));
  stream.launch(p.dtype == DType::F64 ? "softmax_f64" : "softmax_f32", grid, {kRowThreads}, 0, p);
}

void softmax_backward(const SoftmaxParams& p, Stream& stream) {
  const Dim3 grid = grid_of(row_blocks(p.outer * p.inner, p.length));
  stream.launch(p.dtype == DType::F64 ? "softmax_backward_f64" : "softmax_backward_f32", grid, {kRowThreads}, 0, p);
}

}  // namespace fovea::cuda
