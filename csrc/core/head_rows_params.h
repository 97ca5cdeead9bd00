// What the row lists of mixtures of heads take, on every device.
#pragma once

#include <cstdint>

namespace fovea {

// rows[b, h] = the t with active[b, t, h] not 0, rising, then -1.
struct HeadRowsParams {
  const uint8_t* active;  // [batch, tokens, heads], contiguous
  int64_t batch, tokens, heads;
  int32_t* rows;  // [batch, heads, tokens]
};

}  // namespace fovea
