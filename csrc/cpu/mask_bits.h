// Bit matrices of mask tiles: evaluates a mask program at every pair of given (batch, head, query block, key block) tiles.
//
// Layout of core/block_mask.h. Bits beyond the lengths are written as zero, and a tile is Full when every pair inside the lengths is
// visible, so the last block of a sequence can be full too.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/isa.h"
#include "core/program_plan.h"

namespace fovea::cpu {

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
  uint64_t* hashes;        // [tile], of the bits

  int64_t tile_bytes() const { return static_cast<int64_t>(block_kv) * (block_q / 8); }
};

// Evaluates tiles [first, last) on the calling thread. Tiles next to each other with the same head or query block share that work.
// scratch: mask_bits_scratch bytes, 64-byte aligned.
template <Isa>
void mask_bits(const MaskBitsParams& params, int64_t first, int64_t last, void* scratch);

template <Isa>
size_t mask_bits_scratch(const MaskBitsParams& params);

}  // namespace fovea::cpu
