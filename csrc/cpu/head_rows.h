// Which tokens each head is taken by: row lists of mixtures of heads.
#pragma once

#include <cstdint>

#include "core/isa.h"
#include "core/thread_pool.h"

namespace fovea::cpu {

// rows[b, h] = the t with active[b, t, h] not 0, rising, then -1.
struct HeadRowsParams {
  const uint8_t* active;  // [batch, tokens, heads], contiguous
  int64_t batch, tokens, heads;
  int32_t* rows;  // [batch, heads, tokens]
};

template <Isa>
void head_rows(const HeadRowsParams&, ThreadPool&);

}  // namespace fovea::cpu
