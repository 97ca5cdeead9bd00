// Tiles of a mask, evaluated on a device or the CPU.
#pragma once

#include "core/program_plan.h"
#include "cuda/mask_bits.h"
#include "gpu.h"

namespace fovea::gpu {

struct MaskCall {
  std::vector<MaskBitsTile> tiles;
  std::vector<uint8_t> bits;
  std::vector<MaskTileClass> classes;
  std::vector<uint64_t> hashes;
  std::vector<int32_t> ids;
  MaskBitsParams params;

  MaskCall(const ProgramPlan& plan, int32_t block_q, int32_t block_kv, int64_t q, int64_t kv, std::vector<MaskBitsTile> which)
      : tiles(std::move(which)),
        bits(tiles.size() * static_cast<size_t>(block_kv * (block_q / 8))),
        classes(tiles.size()),
        hashes(tiles.size()),
        ids(tiles.size()),
        params{&plan, block_q, block_kv, q, kv, tiles.data(), bits.data(), classes.data(), hashes.data()} {}
  // All tiles, or those on the diagonal.
  MaskCall(const ProgramPlan& plan, int32_t block_q, int32_t block_kv, int64_t q, int64_t kv, bool diagonal)
      : MaskCall(plan, block_q, block_kv, q, kv, grid((q + block_q - 1) / block_q, (kv + block_kv - 1) / block_kv, diagonal)) {}
  MaskCall(const MaskCall&) = delete;
  MaskCall& operator=(const MaskCall&) = delete;

  int64_t count() const { return static_cast<int64_t>(tiles.size()); }
  void evaluate(cuda::Stream& stream) { distinct_ = cuda::mask_bits(params, count(), ids.data(), stream); }
  // The matrix of tile i, wherever the last evaluation left it.
  const uint8_t* tile(int64_t i) const { return bits.data() + (distinct_ < 0 ? i : ids[static_cast<size_t>(i)]) * params.tile_bytes(); }

 private:
  static std::vector<MaskBitsTile> grid(int64_t rows, int64_t columns, bool diagonal) {
    std::vector<MaskBitsTile> tiles;
    for (int32_t i = 0; i < rows; i++)
      for (int32_t j = 0; j < columns; j++)
        if (!diagonal || i == j) tiles.push_back({0, 0, i, j});
    return tiles;
  }

  int64_t distinct_ = -1;
};

}  // namespace fovea::gpu
