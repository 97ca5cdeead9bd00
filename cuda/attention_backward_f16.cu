// Entry points of the gradients of attention for f16. See attention_backward.cuh.
#include "attention_backward.cuh"

namespace fovea::cuda {

extern "C" {
__global__ void __launch_bounds__(128, 2) attention_backward_f16_keys_d32(const __grid_constant__ AttentionBackwardParams params) {
  attention_backward_keys<f16, 32, false, true, true>(params);
}
__global__ void __launch_bounds__(128, 2) attention_backward_f16_queries_d32(const __grid_constant__ AttentionBackwardParams params) {
  attention_backward_queries<f16, 32, false>(params);
}
__global__ void __launch_bounds__(128, 2) attention_backward_f16_keys_d64(const __grid_constant__ AttentionBackwardParams params) {
  attention_backward_keys<f16, 64, false, true, true>(params);
}
__global__ void __launch_bounds__(128, 2) attention_backward_f16_queries_d64(const __grid_constant__ AttentionBackwardParams params) {
  attention_backward_queries<f16, 64, false>(params);
}
__global__ void __launch_bounds__(128, 2) attention_backward_f16_keys_d128(const __grid_constant__ AttentionBackwardParams params) {
  attention_backward_keys<f16, 128, false, true, true>(params);
}
__global__ void __launch_bounds__(128, 2) attention_backward_f16_queries_d128(const __grid_constant__ AttentionBackwardParams params) {
  attention_backward_queries<f16, 128, false>(params);
}
__global__ void __launch_bounds__(128, 2) attention_backward_f16_keys_k_d256(const __grid_constant__ AttentionBackwardParams params) {
  attention_backward_keys<f16, 256, false, true, false>(params);
}
__global__ void __launch_bounds__(128, 2) attention_backward_f16_keys_v_d256(const __grid_constant__ AttentionBackwardParams params) {
  attention_backward_keys<f16, 256, false, false, true>(params);
}
__global__ void __launch_bounds__(128, 2) attention_backward_f16_queries_d256(const __grid_constant__ AttentionBackwardParams params) {
  attention_backward_queries<f16, 256, false>(params);
}
__global__ void __launch_bounds__(128, 2) attention_backward_f16_keys_d32_general(const __grid_constant__ AttentionBackwardParams params) {
  attention_backward_keys<f16, 32, true, true, true>(params);
}
__global__ void __launch_bounds__(128, 2)
    attention_backward_f16_queries_d32_general(const __grid_constant__ AttentionBackwardParams params) {
  attention_backward_queries<f16, 32, true>(params);
}
__global__ void __launch_bounds__(128, 2) attention_backward_f16_keys_d64_general(const __grid_constant__ AttentionBackwardParams params) {
  attention_backward_keys<f16, 64, true, true, true>(params);
}
__global__ void __launch_bounds__(128, 2)
    attention_backward_f16_queries_d64_general(const __grid_constant__ AttentionBackwardParams params) {
  attention_backward_queries<f16, 64, true>(params);
}
__global__ void __launch_bounds__(128, 2) attention_backward_f16_keys_d128_general(const __grid_constant__ AttentionBackwardParams params) {
  attention_backward_keys<f16, 128, true, true, true>(params);
}
__global__ void __launch_bounds__(128, 2)
    attention_backward_f16_queries_d128_general(const __grid_constant__ AttentionBackwardParams params) {
  attention_backward_queries<f16, 128, true>(params);
}
__global__ void __launch_bounds__(128, 2)
    attention_backward_f16_keys_k_d256_general(const __grid_constant__ AttentionBackwardParams params) {
  attention_backward_keys<f16, 256, true, true, false>(params);
}
__global__ void __launch_bounds__(128, 2)
    attention_backward_f16_keys_v_d256_general(const __grid_constant__ AttentionBackwardParams params) {
  attention_backward_keys<f16, 256, true, false, true>(params);
}
__global__ void __launch_bounds__(128, 2)
    attention_backward_f16_queries_d256_general(const __grid_constant__ AttentionBackwardParams params) {
  attention_backward_queries<f16, 256, true>(params);
}
}

}  // namespace fovea::cuda
