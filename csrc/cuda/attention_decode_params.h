// What the decode kernels get by value: an attention call, how its keys are split, and where the results of the splits go.
#pragma once

#include "cuda/attention_forward_params.h"

namespace fovea::cuda {

// Query rows (queries times heads of a group) of a block: rows of one mma tile, or what f32 keeps in registers.
constexpr int kDecodeRows = 16, kDecodeRowsF32 = 8;

// Keys a warp fetches at a time, slots of its ring and warps of a block, by head-dim bucket. Queries and rings of a block take at most 96
// KiB.
constexpr int kDecodeKeys = 16, kDecodeKeysF32 = 8;
constexpr int decode_slots(int dim) { return dim <= 32 ? 8 : dim <= 64 ? 6 : dim <= 128 ? 4 : 3; }
constexpr int decode_slots_f32(int dim) { return dim <= 32 ? 8 : dim <= 64 ? 6 : 4; }
constexpr int decode_warps(int dim) { return dim <= 128 ? 4 : 3; }
constexpr int decode_warps_f32(int dim) { return dim <= 128 ? 4 : 2; }

// A shorter split costs more in merging than it brings. Splits are whole multiples of what the warps of a block fetch at a time.
constexpr int kDecodeLeastKeys = 256, kDecodeRound = 64;

struct AttentionDecodeParams {
  AttentionForwardParams attention;
  int32_t row_tiles;
  int32_t splits;  // most blocks that share the keys of a sequence: each sequence is cut evenly, by its own length
  int32_t pitch;   // floats of a row of `outs`, a multiple of 4
  // Of every split, rows in the order (batch, head, query): outs [rows, splits, pitch], lses [rows, splits]. Null with one split.
  float* outs;
  float* lses;
};

}  // namespace fovea::cuda
