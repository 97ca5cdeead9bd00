// Merging partial attention results on a CUDA device. See cuda/attention_merge.cu for how.
#pragma once

#include "core/attention_merge_params.h"
#include "cuda/launch.h"

namespace fovea::cuda {

// The lists of parts are the host's, what they point to the device's.
void attention_merge(const AttentionMergeParams& p, Stream& stream);
void attention_merge_backward(const AttentionMergeGrads& g, Stream& stream);

}  // namespace fovea::cuda
