// Matrix products of f16.
#define ELEMENT f16
#include "matmul_entries.cuh"

extern "C" __global__ void __launch_bounds__(256) matmul_f16_add_chunks(const __grid_constant__ fovea::cuda::MatmulCall call) {
  fovea::cuda::add_chunks<fovea::f16>(call);
}
