// What the attention kernels get, by value: the call as the engines see it, and by value what its host pointers point to.
//
// Addresses inside are the device's. `call.block_mask` and `call.score` are the host's: the device reads `block` and `score` instead.
#pragma once

#include "core/attention_params.h"

namespace fovea::cuda {

constexpr int kScoreTables = 16, kScoreUniforms = 64;

// Tables and captured numbers of a spliced score program, where its instructions find them.
struct ScoreCaptures {
  const void* tables[kScoreTables];
  int32_t last[kScoreTables];  // their last indices
  int32_t uniforms[kScoreUniforms];
};

// Rows of these operands are 16-byte aligned, dims a multiple of 16 bytes, elements neighbours: cp.async may fetch them in whole pieces.
enum AttentionWide : int32_t { kWideQuery = 1, kWideKey = 2, kWideValue = 4, kWideOut = 8, kWideGrad = 16 };

// Extents that a call's lists are held against. A kernel takes a row or page beyond them for absent, and cuts sequences off there, so that
// no contents of a list lead it out of a tensor.
struct AttentionLimits {
  int32_t q_rows, kv_rows;          // rows of q (and out, lse) of one head; rows of k and v, or pages
  int32_t sequence_q, sequence_kv;  // the longest packed sequence that bias, mask and block mask cover
};

struct AttentionForwardParams {
  AttentionParams call;
  AttentionLimits limits;
  BlockMaskView block;  // row_begin null = none
  int32_t has_score;    // a score program is spliced in
  int32_t wide;         // AttentionWide bits
  int32_t q_tiles;      // blocks along the queries of one head; see attention_tiles
  ScoreCaptures score;
};

// Query tiles of `rows` queries of one head. Packed sequence s owns the slots from cu_q[s] / rows + s on: at least as many as it has tiles,
// and found by bisection, so that no plan has to be made from lengths that only the device knows.
inline int64_t attention_tiles(const AttentionParams& p, int64_t rows) {
  if (!p.cu_q) return (p.len_q + rows - 1) / rows;
  return p.sequences > 0 ? p.len_q / rows + p.sequences : 0;
}

}  // namespace fovea::cuda
