// Attention forward on a CUDA device. See cuda/attention_forward.cuh and cuda/attention_forward_f32.cu for how.
#pragma once

#include "core/attention_params.h"
#include "cuda/attention_forward_params.h"
#include "cuda/launch.h"

namespace fovea::cuda {

// Null when attention_forward takes the call, else why not.
const char* attention_forward_refusal(const AttentionParams& p);

// Writes out, and lse when asked. Addresses in `p` are the device's, those of block_mask and score excepted (the tables of a score program
// are on the device). The caller has asked the refusal.
void attention_forward(const AttentionParams& p, const AttentionLimits& limits, Stream& stream);

// Smallest head-dim bucket of the kernels that holds both dims.
int attention_bucket(const AttentionParams& p);

// Parameters every attention kernel gets; `rows` is its query tile.
AttentionForwardParams attention_kernel_params(const AttentionParams& p, const AttentionLimits& limits, int64_t rows);

// Whether the rows of `t` may be read in whole 16-byte pieces.
bool attention_rows_wide(const AttentionTensor& t, int64_t dim, DType dtype);

}  // namespace fovea::cuda
