// What the kernels of attention's gradients get, by value.
#pragma once

#include "cuda/attention_forward_params.h"

namespace fovea::cuda {

struct AttentionBackwardParams {
  AttentionForwardParams forward;  // q_tiles of the kernel's own query tile
  AttentionGrads grads;
  float* delta;      // [batch, heads_q, rows of q]: dout . out - dlse of each row
  int64_t delta_sh;  // rows of q
  int32_t kv_tiles;  // blocks along the keys of one head; see attention_tiles
};

}  // namespace fovea::cuda
