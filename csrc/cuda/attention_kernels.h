// The kernels of attention on a CUDA device, in order of preference: the first that does not refuse a call runs it. All may refuse.
#pragma once

#include "cuda/attention_decode.h"
#include "cuda/attention_forward.h"

namespace fovea::cuda {

struct AttentionKernel {
  const char* name;
  const char* (*refusal)(const AttentionParams&);  // null: it takes the call
  void (*run)(const AttentionParams&, const AttentionLimits&, Stream&);
};

inline constexpr AttentionKernel kAttentionKernels[] = {{"cuda.decode", attention_decode_refusal, attention_decode},
                                                        {"cuda.forward", attention_forward_refusal, attention_forward}};

}  // namespace fovea::cuda
