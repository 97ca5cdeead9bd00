// What happens to one score between QK^T and the exponential: scale, softcap, score program, bias; and the derivatives of that.
//
// The score program is text. The marker lines below reach the PTX as they stand; the host puts instructions in their place
// (csrc/cuda/score_program.h) and hands the module to the driver. Unspliced, they are comments.
#pragma once

#include "attention_call.cuh"
#include "elements.cuh"

namespace fovea::cuda {

// c tanh(x / c), by 1 - 2 / (1 + e^2x): the absolute error stays near 1e-7 c.
__device__ __forceinline__ float soft_cap(float x, float cap) {
  const float e = exp2_fast(x * (2 * kLog2E / cap));
  return cap * (1.f - 2.f * reciprocal_fast(1.f + e));
}

// d(soft_cap) / dx, from its value.
__device__ __forceinline__ float soft_cap_slope(float capped, float cap) {
  const float ratio = capped * (1.f / cap);
  return 1.f - ratio * ratio;
}

__device__ __forceinline__ float grid_element(const void* base, DType dtype, int64_t offset) {
  if (dtype == DType::F32) return static_cast<const float*>(base)[offset];
  if (dtype == DType::BF16) return to_f32(static_cast<const bf16*>(base)[offset]);
  return to_f32(static_cast<const f16*>(base)[offset]);
}

// Elements before the one at (first query, first key) of a tile; the rest is 32-bit arithmetic.
__device__ __forceinline__ const void* grid_tile(const AttentionGrid& g, const Sequence& seq, int head, int first, int j0) {
  return static_cast<const char*>(g.data) +
         (seq.batch * g.sb + head * g.sh + first * g.sq + j0 * g.skv) * static_cast<int64_t>(g.dtype == DType::F32 ? 4 : 2);
}

// Program values of a tile's batch and head alone, for the programs that follow.
__device__ __forceinline__ void begin_scores(int batch, int head) { asm volatile("//@score_head %0, %1" ::"r"(batch), "r"(head)); }

// s = program(s; batch, head, query, key).
__device__ __forceinline__ void apply_score(float& s, int batch, int head, int query, int key) {
  asm volatile("//@score %0, %1, %2, %3, %4" : "+f"(s) : "r"(batch), "r"(head), "r"(query), "r"(key));
}

// d, the gradient of the program's value, becomes that of the score s it was made of. What is 0 stays 0.
__device__ __forceinline__ void apply_derivative(float& d, float s, int batch, int head, int query, int key) {
  asm volatile("//@derivative %0, %1, %2, %3, %4, %5" : "+f"(d) : "f"(s), "r"(batch), "r"(head), "r"(query), "r"(key));
}

// d, the gradient of the program's value, becomes that of one element of a table that the score loaded.
__device__ __forceinline__ void apply_scatter(float& d, int& element, float s, int batch, int head, int query, int key) {
  asm volatile("//@scatter %0, %1, %2, %3, %4, %5, %6" : "+f"(d), "+r"(element) : "f"(s), "r"(batch), "r"(head), "r"(query), "r"(key));
}

// Where a score is, as programs see it, in code that is compiled for calls with a program and for calls without one.
template <bool kProgram>
struct ScorePlace {
  static constexpr bool has_program = kProgram;
  int batch, head, query, key;
};

}  // namespace fovea::cuda
