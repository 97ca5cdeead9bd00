// Attention of few queries over long keys (decoding with a KV cache) on a CUDA device. See cuda/attention_decode.cuh for how.
#pragma once

#include "core/attention_params.h"
#include "cuda/attention_forward_params.h"
#include "cuda/launch.h"

namespace fovea::cuda {

// Null when attention_decode takes the call, else why not.
const char* attention_decode_refusal(const AttentionParams& p);

// Writes out, and lse when asked. Addresses in `p` are the device's. The caller has asked the refusal.
void attention_decode(const AttentionParams& p, const AttentionLimits& limits, Stream& stream);

}  // namespace fovea::cuda
