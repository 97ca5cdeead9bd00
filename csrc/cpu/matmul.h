// Batched matrix product with an epilogue: out = activation(a b + bias).
//
// f32, bf16 and f16 accumulate in f32, in one chain of fused multiply-adds per output element in the order of k (bf16 with AVX512-BF16: one
// chain of pairwise dot products; with AMX of sums of 32). The value of an element therefore depends on its row of a, its column of b and
// the instruction set alone: not on the other rows, the batch, the tiling or the number of threads. f64 is a plain blocked loop for
// references.
#pragma once

#include <atomic>

#include "core/isa.h"
#include "core/matmul_params.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

using fovea::Activation;
using fovea::kMatmulBatchRank;
using fovea::MatmulOperand;
using fovea::MatmulParams;

// `cancel` is looked at between tiles; may be null.
template <Isa>
void matmul(const MatmulParams&, ThreadPool&, const std::atomic<bool>* cancel);

// What matmul<Isa::Avx512> leaves products of bf16 to at the two levels above, with as many rows as there can be.
void matmul_bf16_dot(const MatmulParams&, ThreadPool&, const std::atomic<bool>* cancel);
void matmul_amx(const MatmulParams&, ThreadPool&, const std::atomic<bool>* cancel);

}  // namespace fovea::cpu
