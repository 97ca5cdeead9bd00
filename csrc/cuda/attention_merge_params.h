// What the merge kernels get by value: the call, its lists on the device.
#pragma once

#include "core/attention_merge_params.h"

namespace fovea::cuda {

struct AttentionMergeKernel {
  AttentionMergeGrads call;  // forward: `call.forward` alone
  int32_t wide;              // rows are read and written in pieces of 16 bytes
};

}  // namespace fovea::cuda
