// The kernels of attention that csrc/ops/attention.cc chooses from, in its order: the first that does not refuse a call runs it.
#pragma once

#include "cuda/attention_decode.h"
#include "cuda/attention_forward.h"

namespace fovea::gpu {

struct AttentionKernel {
  const char* name;
  const char* (*refusal)(const AttentionParams&);
  void (*run)(const AttentionParams&, const cuda::AttentionLimits&, cuda::Stream&);
};

inline constexpr AttentionKernel kAttentionKernels[] = {{"decode", cuda::attention_decode_refusal, cuda::attention_decode},
                                                        {"forward", cuda::attention_forward_refusal, cuda::attention_forward}};

}  // namespace fovea::gpu
