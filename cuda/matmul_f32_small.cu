// Matrix products in f32 by smaller tiles than matmul_f32.cu's: for few rows (decoding), and where large tiles are too few for a device.
// One chain of fused multiply-adds per element in the order of k, as there.
//
// Tiles of the operands (matmul_operand.cuh) go through a ring of stages. A thread has elements of rows and columns that lie a whole set of
// threads apart, so that neighbours read neighbouring lines.
#include "entries.cuh"
#include "matmul_operand.cuh"
#include "matmul_tile.cuh"

namespace fovea::cuda {

namespace {

template <int kRows_, int kColumns_, int kThreadsM_, int kThreadsN_, int kDepth_, int kStages_>
struct SmallTile {
  static constexpr int kRows = kRows_, kColumns = kColumns_, kThreadsM = kThreadsM_, kThreadsN = kThreadsN_, kDepth = kDepth_,
                       kStages = kStages_;
  static constexpr int kThreads = kThreadsM * kThreadsN, kThreadRows = kRows / kThreadsM, kThreadColumns = kColumns / kThreadsN;
  static constexpr int kBytesA = kRows * kDepth * 4, kStageBytes = (kRows + kColumns) * kDepth * 4;
};

// csrc/cuda/matmul.cc has the same list and chooses.
using Small64x64 = SmallTile<64, 64, 16, 16, 32, 3>;
using Small16x32 = SmallTile<16, 32, 8, 16, 64, 4>;

template <class Tile, bool kAlongA, bool kAlongB>
__device__ __forceinline__ void matmul_small(const MatmulCall& call) {
  using OperandA = OperandTile<uint32_t, true, kAlongA, Tile::kRows, Tile::kDepth, Tile::kThreads>;
  using OperandB = OperandTile<uint32_t, false, kAlongB, Tile::kColumns, Tile::kDepth, Tile::kThreads>;
  constexpr int kM = Tile::kThreadRows, kN = Tile::kThreadColumns;
  extern __shared__ __align__(128) float shared[];
  const uint32_t base = shared_address(shared);
  const MatmulParams& p = call.product;
  const int tm = static_cast<int>(threadIdx.x) / Tile::kThreadsN, tn = static_cast<int>(threadIdx.x) % Tile::kThreadsN;
  const TilePlace place = tile_place(call, Tile::kRows, Tile::kColumns);
  OperandA a(p.a, batch_offset(p, p.a, place.batch), place.row, static_cast<int>(p.m), place.first, place.length);
  OperandB b(p.b, batch_offset(p, p.b, place.batch), place.column, static_cast<int>(p.n), place.first, place.length);
  const auto load = [&](uint32_t stage) {
    a.load(stage);
    b.load(stage + Tile::kBytesA);
    commit_copies();
  };

  float acc[kM * kN] = {};
  Carry<kM * kN, Tile::kThreads> carry(call);
#pragma unroll 1
  for (int s = 0; s < Tile::kStages - 1; s++) load(base + s * Tile::kStageBytes);
  uint32_t step = 0;
#pragma unroll 1
  for (int left = place.length; left > 0;) {
    int run = carry.run(left);
    left -= run;
#pragma unroll 1
    for (; run > 0; run -= Tile::kDepth, step++) {
      wait_copies<Tile::kStages - 2>();
      __syncthreads();
      load(base + (step + Tile::kStages - 1) % Tile::kStages * Tile::kStageBytes);
      const uint32_t stage = base + step % Tile::kStages * Tile::kStageBytes;
#pragma unroll 2
      for (int d = 0; d < Tile::kDepth; d += 4) {
        float x[kM][4], y[kN][4];
#pragma unroll
        for (int i = 0; i < kM; i++) OperandA::read_four(x[i], stage, tm + i * Tile::kThreadsM, d);
#pragma unroll
        for (int j = 0; j < kN; j++) OperandB::read_four(y[j], stage + Tile::kBytesA, tn + j * Tile::kThreadsN, d);
#pragma unroll
        for (int e = 0; e < 4; e++)
#pragma unroll
          for (int i = 0; i < kM; i++)
#pragma unroll
            for (int j = 0; j < kN; j++) acc[i * kN + j] = fmaf(x[i][e], y[j][e], acc[i * kN + j]);
      }
    }
    if (left > 0) carry.keep(acc);
  }
  carry.add(acc);
  wait_copies<0>();

  const TilePlace at = tile_place(call, Tile::kRows, Tile::kColumns);
  const Epilogue<float> epilogue(call, at);
#pragma unroll
  for (int i = 0; i < kM; i++)
#pragma unroll
    for (int j = 0; j < kN; j++) {
      const int64_t row = at.row + tm + i * Tile::kThreadsM, column = at.column + tn + j * Tile::kThreadsN;
      if (row < p.m && column < p.n) epilogue.store(row, column, acc[i * kN + j]);
    }
}

}  // namespace

#define ELEMENT f32
#define ENTRY(layouts, along_a, along_b, tile) \
  FOVEA_ENTRY(matmul, layouts##_##tile, Small##tile::kThreads, 2, MatmulCall, matmul_small<Small##tile, along_a, along_b>)
#define LAYOUTS(tile)           \
  ENTRY(nn, true, false, tile)  \
  ENTRY(nt, true, true, tile)   \
  ENTRY(tn, false, false, tile) \
  ENTRY(tt, false, true, tile)

LAYOUTS(64x64)
LAYOUTS(16x32)

}  // namespace fovea::cuda
