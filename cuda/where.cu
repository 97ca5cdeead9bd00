// where(condition, a, b) of bytes and two values.
#include "elementwise.cuh"

namespace fovea::cuda {

namespace {

template <class T>
__device__ __forceinline__ void where(const ElementwiseLaunch& launch) {
  const ElementwiseParams& p = launch.params;
  for_elements<3>(launch, [&](int64_t position, const int64_t(&offset)[3]) {
    const bool first = *at<uint8_t>(p.in[0].data, offset[0]) != 0;
    store_as<T>(p.out_dtype, p.out, position, first ? load_input<T>(p, 1, offset[1]) : load_input<T>(p, 2, offset[2]));
  });
}

}  // namespace

extern "C" __global__ void where_f32(const __grid_constant__ ElementwiseLaunch p) { where<float>(p); }
extern "C" __global__ void where_f64(const __grid_constant__ ElementwiseLaunch p) { where<double>(p); }
extern "C" __global__ void where_i32(const __grid_constant__ ElementwiseLaunch p) { where<int32_t>(p); }
extern "C" __global__ void where_i64(const __grid_constant__ ElementwiseLaunch p) { where<int64_t>(p); }

}  // namespace fovea::cuda
