// Entry points of attention forward for bf16: head dims up to 32, 64, 128 and 256, plain calls and general ones. See attention_forward.cuh.
#include "attention_forward.cuh"

namespace fovea::cuda {

extern "C" {
__global__ void __launch_bounds__(128, 2) attention_forward_bf16_d32(const __grid_constant__ AttentionForwardParams params) {
  attention_forward<bf16, 32, false>(params);
}
__global__ void __launch_bounds__(128, 2) attention_forward_bf16_d64(const __grid_constant__ AttentionForwardParams params) {
  attention_forward<bf16, 64, false>(params);
}
__global__ void __launch_bounds__(128, 2) attention_forward_bf16_d128(const __grid_constant__ AttentionForwardParams params) {
  attention_forward<bf16, 128, false>(params);
}
__global__ void __launch_bounds__(128, 2) attention_forward_bf16_d256(const __grid_constant__ AttentionForwardParams params) {
  attention_forward<bf16, 256, false>(params);
}
__global__ void __launch_bounds__(128, 2) attention_forward_bf16_d32_general(const __grid_constant__ AttentionForwardParams params) {
  attention_forward<bf16, 32, true>(params);
}
__global__ void __launch_bounds__(128, 2) attention_forward_bf16_d64_general(const __grid_constant__ AttentionForwardParams params) {
  attention_forward<bf16, 64, true>(params);
}
__global__ void __launch_bounds__(128, 2) attention_forward_bf16_d128_general(const __grid_constant__ AttentionForwardParams params) {
  attention_forward<bf16, 128, true>(params);
}
__global__ void __launch_bounds__(128, 2) attention_forward_bf16_d256_general(const __grid_constant__ AttentionForwardParams params) {
  attention_forward<bf16, 256, true>(params);
}
}

}  // namespace fovea::cuda
