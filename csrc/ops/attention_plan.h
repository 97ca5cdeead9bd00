// What an attention call will visit: numbers for explain(), from params alone.
//
// Tiles are those of the block mask where there is one, else kPlanQueries x kPlanKeys. The structural limits (lengths, causal, window,
// block mask) make a tile full, partial or skipped; a mask tensor makes every visited tile partial. No element of q, k or v is looked at.
#pragma once

#include "core/attention_params.h"

namespace fovea {

constexpr int64_t kPlanQueries = 48, kPlanKeys = 64;

struct AttentionPlan {
  int64_t tile_q = 0, tile_kv = 0;
  int64_t full = 0, partial = 0, skipped = 0;  // over all batches and query heads
  double flops = 0;                            // of the visited tiles: two products, 2 per multiplication and addition
  double dense_flops = 0;                      // of all tiles
  double bytes = 0;                            // q, k, v, bias, mask, out and lse, each moved once
};

// Reads the contents of lengths, packed offsets and the block mask, so they must be there.
AttentionPlan plan_attention(const AttentionParams& p);

}  // namespace fovea
