// What the kernels of mask tiles get by value, and the form a plan has on the device.
//
// A warp has a register file: values of batch and head (one word each), of the query and of the key (32 words), of pairs (32 queries by
// kMaskRows keys). An operand is a place in it and how it steps.
#pragma once

#include <cstdint>

#include "core/mask_bits_params.h"
#include "core/mask_program.h"

namespace fovea::cuda {

constexpr int kMaskLanes = 32, kMaskRows = 8, kMaskWarps = 4;

// How an operand of an instruction goes along lanes and rows. Key values are lanes while they are computed, rows when pairs read them.
enum class MaskStep : uint32_t { Same, PerLane, PerRow, PerPair };

struct MaskOperand {
  uint32_t code = 0;
  MaskOperand() = default;
  MaskOperand(MaskStep step, int32_t word) : code(static_cast<uint32_t>(step) << 30 | static_cast<uint32_t>(word)) {}
};

struct alignas(8) MaskDeviceInstr {
  int32_t op, immediate;  // MaskOp; bits of a constant, or the number of a table
  MaskOperand a, b, c, out;
};

struct MaskBitsKernel {
  MaskBitsParams params;  // plan null, the rest on the device
  int64_t count;          // tiles
  const MaskDeviceInstr* code;
  const MaskTable* tables;
  int32_t begin[5];  // of the groups, as ProgramPlan has them
  MaskOperand result;
  int32_t file_words;  // of a warp
  int32_t* files;      // of all warps, or null: in shared memory
};

// Tile i against the tile first[id[i]]: whether any differs, and each first one to where distinct tiles are collected.
struct MaskBitsDistinct {
  const uint8_t* bits;
  int64_t count, tile_bytes;
  const int32_t* id;     // [tile], negative = none
  const int32_t* first;  // [id]
  uint8_t* distinct;     // [id][tile_bytes]
  int32_t* differs;      // becomes 1
};

}  // namespace fovea::cuda
