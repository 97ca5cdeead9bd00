// Gradients of attention on a CUDA device. See cuda/attention_backward_keys.cuh and cuda/attention_backward_f32.cu for how.
#pragma once

#include "cuda/attention_backward_params.h"
#include "cuda/attention_forward.h"

namespace fovea::cuda {

// Null when attention_backward takes the call, else why not.
const char* attention_backward_refusal(const AttentionParams& p, const AttentionGrads& g);

// Writes dq, dk and dv, with q_rows the listed rows of dq alone. p.out and p.lse are the forward pass's. The caller has asked the refusal.
// Every sum has one order, so equal calls give equal bits.
void attention_backward(const AttentionParams& p, const AttentionLimits& limits, AttentionGrads g, Stream& stream);

}  // namespace fovea::cuda
