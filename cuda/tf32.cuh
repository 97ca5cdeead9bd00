// Tensor-core products of TF32 with f32 sums (sm_80 and later): mma.m16n8k8 and the rounding of its operands.
//
// Fragments of lane 4g + t, one element a register: A (16x8) holds {row g, row g + 8} x {column t, t + 4}, rows first; B (8x8) rows t and
// t + 4 of column g; C (16x8) as that of 16-bit products (mma.cuh).
#pragma once

#include <cstdint>

namespace fovea::cuda {

// The bits of an f32 of which an mma takes the upper 19: 10 bits of mantissa.
struct tf32 {
  uint32_t bits;
};

// Rounds f32 to TF32, to nearest, ties away from zero.
__device__ __forceinline__ void round_to_tf32(uint32_t (&r)[4]) {
#pragma unroll
  for (uint32_t& x : r) asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(x) : "f"(__uint_as_float(x)));
}

__device__ __forceinline__ void multiply_add(tf32, float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

}  // namespace fovea::cuda
