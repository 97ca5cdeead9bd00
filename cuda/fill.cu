// Filling memory. Patterns of up to four bytes are the driver's own fill; these are the rest. Products are rounded before they are added,
// as on the CPU, so that sequences have the same bits.
#include "cuda/fill_params.h"

namespace fovea::cuda {
namespace {

__device__ int64_t element() { return static_cast<int64_t>(blockIdx.x) * kFillThreads + threadIdx.x; }

template <class T>
__device__ void sequence(const SequenceParams& p) {
  const int64_t i = element();
  if (i < p.count) static_cast<T*>(p.out)[i] = static_cast<T>(__dadd_rn(p.start, __dmul_rn(static_cast<double>(i), p.step)));
}

}  // namespace
}  // namespace fovea::cuda

extern "C" __global__ void fill_64(const __grid_constant__ fovea::cuda::FillParams params) {
  const int64_t i = fovea::cuda::element();
  if (i < params.count) params.out[i] = params.pattern;
}

extern "C" __global__ void fill_sequence_f32(const __grid_constant__ fovea::cuda::SequenceParams params) {
  fovea::cuda::sequence<float>(params);
}
extern "C" __global__ void fill_sequence_f64(const __grid_constant__ fovea::cuda::SequenceParams params) {
  fovea::cuda::sequence<double>(params);
}
extern "C" __global__ void fill_sequence_i32(const __grid_constant__ fovea::cuda::SequenceParams params) {
  fovea::cuda::sequence<int32_t>(params);
}
extern "C" __global__ void fill_sequence_i64(const __grid_constant__ fovea::cuda::SequenceParams params) {
  fovea::cuda::sequence<int64_t>(params);
}
