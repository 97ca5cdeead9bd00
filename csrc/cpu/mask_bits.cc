#include "cpu/mask_bits.h"

#include <cstring>

#include "cpu/program_vm.h"

namespace fovea::cpu {
namespace {

// Clears the lanes of one row from `lanes` on.
void clip_row(uint8_t* row, int row_bytes, int lanes) {
  int whole = lanes / 8;
  if (whole >= row_bytes) return;
  row[whole] &= static_cast<uint8_t>((1u << (lanes % 8)) - 1);
  std::memset(row + whole + 1, 0, static_cast<size_t>(row_bytes - whole - 1));
}

struct Summary {
  int64_t ones;
  uint64_t hash;
};

// Population count and a multiplicative hash of a tile; bytes is even.
Summary summarize(const uint8_t* bits, int64_t bytes) {
  Summary s{0, 0x9e3779b97f4a7c15u};
  for (int64_t i = 0; i < bytes; i += 8) {
    uint64_t word = 0;
    std::memcpy(&word, bits + i, static_cast<size_t>(bytes - i < 8 ? bytes - i : 8));
    s.ones += __builtin_popcountll(word);
    s.hash = (s.hash ^ word) * 0xd6e8feb86659fd93u;
    s.hash ^= s.hash >> 32;
  }
  return s;
}

void evaluate(const MaskBitsParams& p, const MaskBitsTile& tile, int64_t index, ProgramVm& vm) {
  int row_bytes = p.block_q / 8;
  int64_t kv0 = static_cast<int64_t>(tile.kv_block) * p.block_kv, q0 = static_cast<int64_t>(tile.q_block) * p.block_q;
  int64_t rows = p.kv_length - kv0 < p.block_kv ? p.kv_length - kv0 : p.block_kv;
  int64_t lanes = p.q_length - q0 < p.block_q ? p.q_length - q0 : p.block_q;
  uint8_t* bits = p.bits + index * p.tile_bytes();
  vm.mask(static_cast<int>(rows), static_cast<int32_t>(kv0), bits, row_bytes);
  if (lanes < p.block_q)
    for (int64_t r = 0; r < rows; r++) clip_row(bits + r * row_bytes, row_bytes, static_cast<int>(lanes));
  std::memset(bits + rows * row_bytes, 0, static_cast<size_t>((p.block_kv - rows) * row_bytes));
  Summary s = summarize(bits, p.tile_bytes());
  p.hashes[index] = s.hash;
  p.classes[index] = s.ones == 0 ? MaskTileClass::Empty : s.ones == rows * lanes ? MaskTileClass::Full : MaskTileClass::Mixed;
}

}  // namespace

template <>
size_t mask_bits_scratch<kIsa>(const MaskBitsParams& p) {
  return ProgramVm::scratch_bytes(*p.plan, p.block_q);
}

template <>
void mask_bits<kIsa>(const MaskBitsParams& p, int64_t first, int64_t last, void* scratch) {
  ProgramVm vm(*p.plan, p.block_q, scratch);
  for (int64_t i = first; i < last; i++) {
    const MaskBitsTile& tile = p.tiles[i];
    const MaskBitsTile* before = i > first ? &p.tiles[i - 1] : nullptr;
    bool same_head = before && before->b == tile.b && before->h == tile.h;
    if (!same_head) vm.begin_head(tile.b, tile.h);
    if (!same_head || before->q_block != tile.q_block) vm.begin_queries(p.block_q, tile.q_block * p.block_q);
    evaluate(p, tile, i, vm);
  }
}

}  // namespace fovea::cpu
