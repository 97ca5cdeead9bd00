// Bit matrices of mask tiles: what evaluating a mask program at every pair of given (batch, head, query block, key block) tiles takes, on
// every device.
//
// Layout of core/block_mask.h. Bits beyond the lengths are written as zero, and a tile is Full when every pair inside the lengths is
// visible, so the last block of a sequence can be full too.
#pragma once

#include <cstdint>

namespace fovea {

class ProgramPlan;

struct MaskBitsTile {
  int32_t b, h, q_block, kv_block;
};

enum class MaskTileClass : uint8_t { Empty, Full, Mixed };

struct MaskBitsParams {
  const ProgramPlan* plan;  // of kind Mask
  int32_t block_q, block_kv;
  int64_t q_length, kv_length;
  const MaskBitsTile* tiles;
  uint8_t* bits;           // [tile][block_kv][block_q / 8]
  MaskTileClass* classes;  // [tile]
  uint64_t* hashes;        // [tile], of the bits: equal where they are

  int64_t tile_bytes() const { return static_cast<int64_t>(block_kv) * (block_q / 8); }
};

}  // namespace fovea
