// Gradients of attention on a CUDA device. See cuda/attention_backward_keys.cuh and cuda/attention_backward_f32.cu for how.
#pragma once

#include "cuda/attention_backward_params.h"
#include "cuda/attention_forward.h"

namespace fovea::cuda {

// Rows of a block's tiles as the gradient kernels of a call have them.
struct BackwardTiles {
  explicit BackwardTiles(const AttentionParams& p)
      : single(p.dtype == DType::F32),
        bucket(attention_bucket(p)),
        owned(!single         ? 64
              : bucket <= 128 ? 32
                              : 16),
        queries(single         ? owned
                : bucket <= 64 ? 64
                               : 32),
        keys(single          ? owned
             : bucket <= 128 ? 64
                             : 32) {}

  // Two tiles of owned rows and two of visited ones; rows of f32 are padded.
  size_t operand_bytes(int visited) const {
    return static_cast<size_t>(2 * (owned + visited)) * static_cast<size_t>(single ? 4 * (bucket + 4) : 2 * bucket);
  }

  const bool single;
  const int bucket;
  const int owned, queries, keys;  // owned: of queries or of keys; queries and keys: visited at a time
};

// Null when attention_backward takes the call, else why not.
const char* attention_backward_refusal(const AttentionParams& p, const AttentionGrads& g);

// Writes dq, dk and dv, with q_rows the listed rows of dq alone, and adds to dbias and dtables, which are 0. p.out and p.lse are the
// forward pass's. The caller has asked the refusal. Every sum has one order, so equal calls give equal bits.
void attention_backward(const AttentionParams& p, const AttentionLimits& limits, AttentionGrads g, Stream& stream);

}  // namespace fovea::cuda
