// Matrix products of bf16.
#define ELEMENT bf16
#include "matmul_entries.cuh"

extern "C" __global__ void __launch_bounds__(256) matmul_bf16_add_chunks(const __grid_constant__ fovea::cuda::MatmulCall call) {
  fovea::cuda::add_chunks<fovea::bf16>(call);
}
