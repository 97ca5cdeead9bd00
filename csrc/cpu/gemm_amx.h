// The micro-kernel of gemm.h on the tile unit (amx.h): up to 32 rows by a panel of up to 48 columns, steps are pairs of bf16.
//
// Rows of A are read where they lie and the panel's layout is that of B tiles already. 32 rows keep six accumulators, for which a step of
// 32 bf16 loads both tiles of A once and walks those of B there and back: seven loads for six products, and the panel streams from the L2
// cache at 32 bytes a cycle. What does not fill tiles (the last steps of k, rows below 16, incomplete columns) is copied to where it does,
// or the registers are made shorter.
// One or two rows are not worth the tile unit's latency: vectors do what it does, bit for bit. An instruction sums the even and the odd
// elements of 16 steps each in a chain of fused multiply-adds from zero, in the order of k, then adds their sum to the accumulator;
// denormals are zero.
#pragma once

#include "cpu/gemm.h"

namespace fovea::cpu {
namespace {

#if defined(__AVX512BW__)

// The last steps of a piece, filled up with zeros to a whole tile.
template <int vectors>
struct TileRest {
  alignas(64) float a[2 * kTileRows * kTileWords], b[kTileWords * vectors * kLanes];
  int64_t whole;  // steps in whole tiles
  bool some;

  TileRest(const MicroTile& t, int rows) : whole(t.steps / kTileWords * kTileWords), some(whole < t.steps) {
    if (!some) return;
    const int64_t rest = t.steps - whole;
    std::memset(a, 0, sizeof a);
    for (int i = 0; i < rows; i++) std::memcpy(a + i * kTileWords, t.a + i * t.a_stride + 4 * whole, static_cast<size_t>(rest) * 4);
    for (int64_t k = 0; k < kTileWords; k++) FOVEA_UNROLL
    for (int z = 0; z < vectors; z++)
      store(b + (k * vectors + z) * kLanes,
            k < rest ? load(reinterpret_cast<const float*>(t.b + (whole + k) * t.b_stride) + z * kLanes) : zero());
  }
};

// Rows [first, first + rows) of the tile, rows <= 16, or 32 with `both`.
template <int vectors, bool both>
void tile_rows(const MicroTile& t, const TileRest<vectors>& rest, int first, int rows, float* c, int64_t c_stride) {
  const TileUnit unit(both ? kTileRows : rows);
  const int64_t c_bytes = c_stride * 4;
  float *top = c + first * c_stride, *bottom = top + kTileRows * c_stride;
  each_tile<vectors>([&]<int z>() {
    if (t.accumulate) {
      tile_load<z>(top + z * kLanes, c_bytes);
      if constexpr (both) tile_load<3 + z>(bottom + z * kLanes, c_bytes);
    } else {
      tile_zero<z>();
      if constexpr (both) tile_zero<3 + z>();
    }
  });
  auto step = [](const char* a, int64_t a_bytes, const char* b, int64_t b_bytes) __attribute__((always_inline)) {
    if constexpr (both) {
      tile_load<6>(a, a_bytes);
      each_tile<vectors>([&]<int z>() __attribute__((always_inline)) {
        tile_load<7>(b + z * kVectorBytes, b_bytes);
        tile_multiply<z, 6, 7>();
      });
      tile_load<6>(a + kTileRows * a_bytes, a_bytes);
      each_tile<vectors>([&]<int i>() __attribute__((always_inline)) {
        constexpr int z = vectors - 1 - i;
        if constexpr (i > 0) tile_load<7>(b + z * kVectorBytes, b_bytes);
        tile_multiply<3 + z, 6, 7>();
      });
    } else {
      tile_load<6>(a, a_bytes);
      each_tile<vectors>([&]<int z>() __attribute__((always_inline)) {
        tile_load<3 + z>(b + z * kVectorBytes, b_bytes);
        tile_multiply<z, 6, 3 + z>();
      });
    }
  };
  const char* a = t.a + first * t.a_stride;
  for (int64_t k = 0; k < rest.whole; k += kTileWords) step(a + 4 * k, t.a_stride, t.b + k * t.b_stride, t.b_stride);
  if (rest.some)
    step(reinterpret_cast<const char*>(rest.a + first * kTileWords), kTileWords * 4, reinterpret_cast<const char*>(rest.b),
         vectors * kVectorBytes);
  each_tile<vectors>([&]<int z>() {
    tile_store<z>(top + z * kLanes, c_bytes);
    if constexpr (both) tile_store<3 + z>(bottom + z * kLanes, c_bytes);
  });
}

template <int vectors, int rows>
void few_rows(const MicroTile& t) {
  const int last = t.columns - (vectors - 1) * kLanes;
  vf acc[rows][vectors];
  FOVEA_UNROLL
  for (int i = 0; i < rows; i++) FOVEA_UNROLL
  for (int z = 0; z < vectors; z++)
    acc[i][z] = t.accumulate ? load_first(t.c + i * t.c_stride + z * kLanes, z < vectors - 1 ? kLanes : last) : zero();
  for (int64_t k0 = 0; k0 < t.steps; k0 += kTileWords) {
    const int64_t end = k0 + kTileWords < t.steps ? k0 + kTileWords : t.steps;
    vf even[rows][vectors] = {}, odd[rows][vectors] = {};
    for (int64_t k = k0; k < end; k++) FOVEA_UNROLL
    for (int z = 0; z < vectors; z++) {
      const vu pair = reinterpret_cast<vu>(load(reinterpret_cast<const float*>(t.b + k * t.b_stride) + z * kLanes));
      const vf b_even = reinterpret_cast<vf>(pair << 16), b_odd = reinterpret_cast<vf>(pair & 0xffff0000u);
      FOVEA_UNROLL
      for (int i = 0; i < rows; i++) {
        uint32_t a;
        std::memcpy(&a, t.a + i * t.a_stride + 4 * k, 4);
        even[i][z] = fma(set1(__builtin_bit_cast(float, a << 16)), b_even, even[i][z]);
        odd[i][z] = fma(set1(__builtin_bit_cast(float, a & 0xffff0000u)), b_odd, odd[i][z]);
      }
    }
    FOVEA_UNROLL
    for (int i = 0; i < rows; i++) FOVEA_UNROLL
    for (int z = 0; z < vectors; z++) acc[i][z] += even[i][z] + odd[i][z];
  }
  FOVEA_UNROLL
  for (int i = 0; i < rows; i++) FOVEA_UNROLL
  for (int z = 0; z < vectors; z++) store_first(t.c + i * t.c_stride + z * kLanes, acc[i][z], z < vectors - 1 ? kLanes : last);
}

template <int vectors>
void tile_kernel(const MicroTile& t, int rows) {
  if (rows == 1) return few_rows<vectors, 1>(t);
  if (rows == 2) return few_rows<vectors, 2>(t);
  const TileRest<vectors> rest(t, rows);
  alignas(64) float copy[2 * kTileRows * vectors * kLanes];
  const bool direct = t.columns == vectors * kLanes;
  float* c = direct ? t.c : copy;
  const int64_t c_stride = direct ? t.c_stride : vectors * kLanes;
  const size_t bytes = static_cast<size_t>(t.columns) * 4;
  if (!direct && t.accumulate)
    for (int i = 0; i < rows; i++) std::memcpy(copy + i * c_stride, t.c + i * t.c_stride, bytes);
  if (rows == 2 * kTileRows) {
    tile_rows<vectors, true>(t, rest, 0, rows, c, c_stride);
  } else {
    for (int i = 0; i < rows; i += kTileRows)
      tile_rows<vectors, false>(t, rest, i, rows - i < kTileRows ? rows - i : kTileRows, c, c_stride);
  }
  if (!direct)
    for (int i = 0; i < rows; i++) std::memcpy(t.c + i * t.c_stride, copy + i * c_stride, bytes);
}

inline void tile_kernel_for(const MicroTile& t, int rows, int vectors) {
  if (vectors == 1) tile_kernel<1>(t, rows);
  else if (vectors == 2) tile_kernel<2>(t, rows);
  else tile_kernel<3>(t, rows);
}

#else

void tile_kernel_for(const MicroTile& t, int rows, int vectors);

#endif

}  // namespace
}  // namespace fovea::cpu
