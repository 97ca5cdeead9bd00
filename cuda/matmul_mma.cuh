// Matrix products on tensor cores with f32 sums: of 16-bit floats by mma.m16n8k16, of f32 rounded to TF32 by mma.m16n8k8.
//
// Tiles of a and b (matmul_operand.cuh) go through a ring of stages; a step is one stage. The fragments of the next group of k are read
// while this one's are multiplied, over the edge of a step as well, so the barrier stands between two groups of products and not before the
// first. Sums go through shared memory once more, as many rows as the stages have room for, so that the epilogue is short code over whole
// rows.
//
// The value of an element depends on its row of a and its column of b alone, whatever the tile: tiles beyond the edge hold zeros, and every
// element takes the same groups of k in the same order.
#pragma once

#include <type_traits>

#include "matmul_operand.cuh"
#include "matmul_tile.cuh"
#include "tf32.cuh"

namespace fovea::cuda {

// kRows x kColumns of the output by kWarpsM x kWarpsN warps; kLineBytes of k a stage.
template <int kRows_, int kColumns_, int kWarpsM_, int kWarpsN_, int kLineBytes_, int kStages_>
struct MmaTile {
  static constexpr int kRows = kRows_, kColumns = kColumns_, kWarpsM = kWarpsM_, kWarpsN = kWarpsN_, kLineBytes = kLineBytes_,
                       kStages = kStages_;
  static constexpr int kThreads = kWarpsM * kWarpsN * 32, kWarpRows = kRows / kWarpsM, kWarpColumns = kColumns / kWarpsN;
  static constexpr int kBytesA = kRows * kLineBytes, kStageBytes = (kRows + kColumns) * kLineBytes;
  static_assert(kWarpRows % 16 == 0 && kWarpColumns % 16 == 0 && kStages * kStageBytes >= kWarpRows * kColumns * 4);
  // How many warps' rows of sums the stages have room for.
  static constexpr int kStagedWarps = kStages * kStageBytes >= kRows * kColumns * 4 ? kWarpsM : 1;
};

// Tiles from large to small; csrc/cuda/matmul.cc has the same list and chooses.
using Mma128x256 = MmaTile<128, 256, 2, 4, 128, 3>;
using Mma128x128 = MmaTile<128, 128, 2, 2, 64, 3>;
using Mma64x64 = MmaTile<64, 64, 2, 2, 128, 3>;
using Mma16x32 = MmaTile<16, 32, 1, 2, 128, 8>;

// TF32 operands lie in memory as f32.
template <class T>
struct Stored {
  using Type = T;
};
template <>
struct Stored<tf32> {
  using Type = float;
};

// The fragments of one group of k.
template <class Tile>
struct Fragments {
  uint32_t a[Tile::kWarpRows / 16][4], b[Tile::kWarpColumns / 16][4];
};

__device__ __forceinline__ void store_shared(uint32_t to, float x, float y) {
  asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(to), "f"(x), "f"(y) : "memory");
}

template <class T, class Tile, bool kAlongA, bool kAlongB>
__device__ __forceinline__ void matmul_mma(const MatmulCall& call) {
  using Word = std::conditional_t<sizeof(T) == 2, uint16_t, uint32_t>;
  constexpr int kDepth = Tile::kLineBytes / static_cast<int>(sizeof(T)), kGroups = Tile::kLineBytes / 32;
  using OperandA = OperandTile<Word, true, kAlongA, Tile::kRows, kDepth, Tile::kThreads>;
  using OperandB = OperandTile<Word, false, kAlongB, Tile::kColumns, kDepth, Tile::kThreads>;
  constexpr int kBlocksM = Tile::kWarpRows / 16, kBlocksN = Tile::kWarpColumns / 16, kCount = kBlocksM * kBlocksN * 8;
  static_assert(kGroups % 2 == 0);
  extern __shared__ __align__(128) float shared[];
  const uint32_t base = shared_address(shared);
  const MatmulParams& p = call.product;
  const int warp = static_cast<int>(threadIdx.x) >> 5, lane = static_cast<int>(threadIdx.x) & 31;
  const int warp_m = warp / Tile::kWarpsN, warp_n = warp % Tile::kWarpsN;
  const TilePlace place = tile_place(call, Tile::kRows, Tile::kColumns);
  OperandA a(p.a, batch_offset(p, p.a, place.batch), place.row, static_cast<int>(p.m), place.first, place.length);
  OperandB b(p.b, batch_offset(p, p.b, place.batch), place.column, static_cast<int>(p.n), place.first, place.length);
  const uint32_t lane_a = OperandA::lane_offset(warp_m * Tile::kWarpRows, lane),
                 lane_b = OperandB::lane_offset(warp_n * Tile::kWarpColumns, lane) + Tile::kBytesA;

  float acc[kCount] = {};
  Fragments<Tile> fragments[2];
  const auto load = [&](uint32_t stage) {
    a.load(stage);
    b.load(stage + Tile::kBytesA);
    commit_copies();
  };
  const auto read = [&](Fragments<Tile>& to, uint32_t stage, int group) {
#pragma unroll
    for (int i = 0; i < kBlocksM; i++) OperandA::read(to.a[i], stage, lane_a, group, i);
#pragma unroll
    for (int j = 0; j < kBlocksN; j++) OperandB::read(to.b[j], stage, lane_b, group, j);
  };
  const auto multiply = [&](Fragments<Tile>& f) {
    if constexpr (sizeof(T) == 4) {
#pragma unroll
      for (auto& block : f.a) round_to_tf32(block);
#pragma unroll
      for (auto& block : f.b) round_to_tf32(block);
    }
#pragma unroll
    for (int i = 0; i < kBlocksM; i++)
#pragma unroll
      for (int j = 0; j < 2 * kBlocksN; j++) {
        float(&c)[4] = reinterpret_cast<float(&)[4]>(acc[(i * 2 * kBlocksN + j) * 4]);
        multiply_add(T{}, c, f.a[i], f.b[j >> 1][(j & 1) * 2], f.b[j >> 1][(j & 1) * 2 + 1]);
      }
  };

#pragma unroll 1
  for (int s = 0; s < Tile::kStages - 1; s++) load(base + s * Tile::kStageBytes);
  wait_copies<Tile::kStages - 2>();
  __syncthreads();
  const uint32_t last = base + (Tile::kStages - 1) * Tile::kStageBytes;
  uint32_t now = base;
  read(fragments[0], now, 0);
  Carry<kCount, Tile::kThreads> carry(call);
#pragma unroll 1
  for (int left = place.length; left > 0;) {
    int run = carry.run(left);
    left -= run;
#pragma unroll 1
    for (; run > 0; run -= kDepth) {
#pragma unroll
      for (int group = 0; group < kGroups; group++) {
        if (group == kGroups - 1) {
          wait_copies<Tile::kStages - 2>();
          __syncthreads();
          now = now == last ? base : now + Tile::kStageBytes;
        }
        if (group == 0) load(now == base ? last : now - Tile::kStageBytes);
        read(fragments[(group + 1) & 1], now, (group + 1) % kGroups);
        multiply(fragments[group & 1]);
      }
    }
    if (left > 0) carry.keep(acc);
  }
  carry.add(acc);
  wait_copies<0>();
  __syncthreads();

  const int row = warp_m % Tile::kStagedWarps * Tile::kWarpRows + (lane >> 2), column = warp_n * Tile::kWarpColumns + (lane & 3) * 2;
#pragma unroll 1
  for (int first = 0; first < Tile::kWarpsM; first += Tile::kStagedWarps) {
    if (warp_m / Tile::kStagedWarps * Tile::kStagedWarps == first) {
#pragma unroll
      for (int i = 0; i < kBlocksM; i++)
#pragma unroll
        for (int j = 0; j < 2 * kBlocksN; j++)
#pragma unroll
          for (int half = 0; half < 2; half++) {
            const int r = row + i * 16 + half * 8, e = (i * 2 * kBlocksN + j) * 4 + half * 2;
            store_shared(base + (r * Tile::kColumns + staged_column(r, column + j * 8)) * 4, acc[e], acc[e + 1]);
          }
    }
    __syncthreads();
    const TilePlace at = tile_place(call, Tile::kRows, Tile::kColumns);
    Epilogue<typename Stored<T>::Type>(call, at).template store_staged<Tile::kColumns>(shared, Tile::kStagedWarps * Tile::kWarpRows,
                                                                                       at.row + first * Tile::kWarpRows, at.column);
    __syncthreads();
  }
}

}  // namespace fovea::cuda
