// Batched matrix product with an epilogue: out = activation(a b + bias).
//
// f32, bf16 and f16 accumulate in f32, in one chain of fused multiply-adds per output element in the order of k (bf16 with AVX512-BF16: one
// chain of pairwise dot products). The value of an element therefore depends on its row of a, its column of b and the instruction set
// alone: not on the other rows, the batch, the tiling or the number of threads. f64 is a plain blocked loop for references.
#pragma once

#include <atomic>
#include <cstdint>

#include "core/dtype.h"
#include "core/isa.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

constexpr int kMatmulBatchRank = 6;

enum class Activation : int { None, Relu, Gelu, GeluTanh, Silu };

// Element (batch index, i, j) at data + sum(index * batch) + i*row + j*column; strides in elements, 0 where broadcast.
struct MatmulOperand {
  void* data = nullptr;
  int64_t row = 0, column = 0;
  int64_t batch[kMatmulBatchRank] = {};
};

struct MatmulParams {
  DType dtype;      // of a, b and bias: f32, bf16, f16 or f64
  DType out_dtype;  // dtype, or f32
  int64_t m, n, k;
  int batch_rank = 0;
  int64_t batch_shape[kMatmulBatchRank] = {};
  MatmulOperand a, b, out;  // [m, k], [k, n], [m, n]; out must not overlap a or b
  MatmulOperand bias;       // [m, n], usually with row stride 0; data null = none
  Activation activation = Activation::None;
  MatmulOperand pre;  // [m, n] of out_dtype: receives a b + bias before the activation; data null = not wanted
  const std::atomic<bool>* cancel = nullptr;
};

template <Isa>
void matmul(const MatmulParams&, ThreadPool&);

}  // namespace fovea::cpu
