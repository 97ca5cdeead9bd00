// What the kernels of attention's gradients get, by value.
#pragma once

#include "cuda/attention_forward_params.h"

namespace fovea::cuda {

struct AttentionBackwardParams {
  AttentionForwardParams forward;  // q_tiles of the kernel's own query tile
  AttentionGrads grads;
  float* delta;      // [batch, heads_q, len_q]: dout . out - dlse of each query
  int64_t delta_sh;  // len_q
  int32_t kv_tiles;  // blocks along the keys of one head; see attention_tiles
};

// Rows of a gradient that a warp of attention_backward_rows owns.
constexpr int kBackwardWarpRows = 8;

struct AttentionBackwardRowsParams {
  const float* from;   // [batch, heads, count, dim]: the gradient of each entry of the list
  AttentionTensor to;  // f32; every row is written
  int64_t batch, heads, rows;
  int32_t count, dim;
  const int32_t* list;  // row of each entry; what lies outside [0, rows) is left out
  int64_t list_sb, list_sh;
};

}  // namespace fovea::cuda
