// out[i] = grad[i] * activation'(pre[i]).
#include "activation.cuh"
#include "core/linear_params.h"
#include "elements.cuh"

namespace fovea::cuda {

namespace {

template <class T>
__device__ __forceinline__ void activation_grad(const ActivationGradParams& p) {
  for (int64_t i = global_thread(); i < p.count; i += global_threads()) {
    const T slope = activation_derivative(p.activation, load_as<T>(p.dtype, p.pre, i));
    store_as<T>(p.dtype, p.out, i, load_as<T>(p.dtype, p.grad, i) * slope);
  }
}

}  // namespace

extern "C" __global__ void activation_grad_f32(const __grid_constant__ ActivationGradParams p) { activation_grad<float>(p); }
extern "C" __global__ void activation_grad_f64(const __grid_constant__ ActivationGradParams p) { activation_grad<double>(p); }

}  // namespace fovea::cuda
