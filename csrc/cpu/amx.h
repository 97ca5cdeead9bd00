// The tile unit of Intel processors (AMX): eight registers of 16 rows of 64 bytes, and C += A B on them.
//
// A multiplication takes 16 rows of A, each 32 neighbouring bf16, and B whose rows are pairs of depth, 16 columns of them, to 16 x 16 f32.
// The instructions are written as assembly, so that no file needs a compiler switch for them. Where there is no AVX-512 there is no AMX,
// and nothing here can be used.
#pragma once

#include "cpu/simd.h"

namespace fovea::cpu {
namespace {

constexpr int kTileRows = 16;   // of A and C
constexpr int kTileDepth = 32;  // bf16 of a row of A
constexpr int kTileWords = 16;  // the same in pairs, which is rows of B

#if defined(__AVX512BW__)

// The tile unit of this thread until the end of the scope: a thread that leaves it on has 8 KiB more to save at each switch. Registers
// have 16 rows of 64 bytes, but for those of the bit mask `shorter`, which have `rows`.
class TileUnit {
 public:
  explicit TileUnit(int rows = kTileRows, unsigned shorter = 0b1000111) {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, unused[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {};
    } config;
    for (unsigned i = 0; i < 8; i++) config.rows[i] = static_cast<uint8_t>(shorter >> i & 1 ? rows : kTileRows);
    asm volatile("ldtilecfg %0" ::"m"(config));
  }
  ~TileUnit() { asm volatile("tilerelease"); }
  TileUnit(const TileUnit&) = delete;
  TileUnit& operator=(const TileUnit&) = delete;
};

template <int kTile>
FOVEA_INLINE void tile_zero() {
  asm volatile("tilezero %%tmm%c0" ::"i"(kTile));
}
template <int kTile>
FOVEA_INLINE void tile_load(const void* from, int64_t row_bytes) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(row_bytes), "i"(kTile) : "memory");
}
template <int kTile>
FOVEA_INLINE void tile_store(void* to, int64_t row_bytes) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(row_bytes), "i"(kTile) : "memory");
}
// accumulator += rows x columns
template <int kAccumulator, int kRowsTile, int kColumnsTile>
FOVEA_INLINE void tile_multiply() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kAccumulator), "i"(kRowsTile), "i"(kColumnsTile));
}

// f.operator()<i>() for i < n <= 4.
template <int n, class F>
FOVEA_INLINE void each_tile(F&& f) {
  f.template operator()<0>();
  if constexpr (n > 1) f.template operator()<1>();
  if constexpr (n > 2) f.template operator()<2>();
  if constexpr (n > 3) f.template operator()<3>();
}

#else

class TileUnit {};

#endif

}  // namespace
}  // namespace fovea::cpu
