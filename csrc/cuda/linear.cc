#include "cuda/linear.h"

#include "cuda/grid.h"

namespace fovea::cuda {

void activation_grad(const ActivationGradParams& p, Stream& stream) {
  stream.launch(p.dtype == DType::F64 ? "activation_grad_f64" : "activation_grad_f32", threads_for(p.count), {kThreads}, 0, p);
}

}  // namespace fovea::cuda
