// Matrix products of 16-bit floats on tensor cores: mma.m16n8k16 with f32 sums, blocks of 128 x 128, 32 of k a step, 8 warps of 64 x 32.
//
// Tiles of a and b come by cp.async through four stages of swizzled shared memory, in the order they have in memory: as lines along k (an
// 'n' a, a 't' b) or across it (a 't' a, an 'n' b), and ldmatrix or ldmatrix.trans makes the same fragments of either. An operand that is
// not dense along its lines, or not aligned to 16 bytes, is gathered element by element into the same tiles. The sums go through shared
// memory once more, so that the epilogue is short code over whole rows.
//
// The value of an element depends on its row of a and its column of b alone: tiles beyond the edge hold zeros and every element takes the
// same steps of k.
#pragma once

#include "async_copy.cuh"
#include "matmul_tile.cuh"
#include "mma.cuh"

namespace fovea::cuda {

constexpr int kMmaTile = 128, kMmaDepth = 32, kMmaStages = 4, kMmaThreads = 256;
constexpr int kMmaTileBytes = kMmaTile * kMmaDepth * 2, kMmaStageBytes = 2 * kMmaTileBytes;
static_assert(kMmaStages * kMmaStageBytes == kMmaTile * kMmaTile * 4);  // the sums take the place of the stages

// One operand: 128 rows of a, or columns of b, by 32 of k. kAlong: lines run along k.
template <bool kAlong>
class OperandTile {
  static constexpr int kPieces = (kAlong ? kMmaDepth : kMmaTile) / 8, kLines = kAlong ? kMmaTile : kMmaDepth,
                       kLineStep = kMmaThreads / kPieces;

 public:
  // `across` and `along` are strides of the operand across and along k, `limit` its size across.
  __device__ __forceinline__ OperandTile(const void* data, int64_t offset, int64_t across, int64_t along, int first, int limit, int k)
      : base_(static_cast<const uint16_t*>(data) + offset),
        line_stride_(kAlong ? across : along),
        step_(kAlong ? along : across),
        first_(first),
        limit_(limit),
        k_(k) {
    wide_ = step_ == 1 && line_stride_ % 8 == 0 && (reinterpret_cast<uint64_t>(base_) & 15) == 0;
  }

  __device__ __forceinline__ void load(uint32_t tile, int k) const {
    const int line = static_cast<int>(threadIdx.x) / kPieces, piece = static_cast<int>(threadIdx.x) % kPieces;
    const int e = (kAlong ? k : first_) + piece * 8, first_line = (kAlong ? first_ : k) + line;
    const int there = max((kAlong ? k_ : limit_) - e, 0), lines = kAlong ? limit_ : k_;
    if (wide_) {
      const int bytes = min(there, 8) * 2;
#pragma unroll
      for (int i = 0; i < kLines; i += kLineStep) {
        const bool inside = first_line + i < lines && bytes > 0;
        copy_async(tile + address(line + i, piece), inside ? base_ + (first_line + i) * line_stride_ + e : base_, inside ? bytes : 0);
      }
    } else {
#pragma unroll 1
      for (int i = 0; i < kLines; i += kLineStep)
        gather(tile + address(line + i, piece), base_ + (first_line + i) * line_stride_ + e * step_, first_line + i < lines ? there : 0);
    }
  }

  // Byte offset for ldmatrix: 8 lines (or their transposes) from `outer` across, `inner` along k, in multiples of 8 elements.
  static __device__ __forceinline__ uint32_t matrix(int across, int along) {
    return kAlong ? address(across, along >> 3) : address(along, across >> 3);
  }

 private:
  // Piece p of 16 bytes of a line lies at p ^ (a number that differs among the 8 lines of a matrix).
  static __device__ __forceinline__ uint32_t address(int line, int piece) {
    const int swizzle = kAlong ? (line >> 1) & 3 : line & 7;
    return static_cast<uint32_t>(line * kPieces * 16 + ((piece ^ swizzle) << 4));
  }

  __device__ __forceinline__ void gather(uint32_t to, const uint16_t* from, int there) const {
    uint32_t words[4];
#pragma unroll
    for (int w = 0; w < 4; w++) {
      const uint32_t low = 2 * w < there ? from[2 * w * step_] : 0, high = 2 * w + 1 < there ? from[(2 * w + 1) * step_] : 0;
      words[w] = low | high << 16;
    }
    store_shared(to, make_uint4(words[0], words[1], words[2], words[3]));
  }

  const uint16_t* base_;
  int64_t line_stride_, step_;
  int first_, limit_, k_;
  bool wide_;
};

template <class T, bool kAlongA, bool kAlongB>
__device__ __forceinline__ void multiply_stage(uint32_t stage, int warp, int lane, float (&acc)[4][4][4]) {
  const int row = (warp >> 2) * 64, column = (warp & 3) * 32;
  const int low = lane & 7, second = (lane >> 3) & 1, third = lane >> 4;
  // Matrices of an A fragment: both row halves, then both of the next 8 of k. Of two B fragments: both halves of k, then the next columns.
  const int a_across = row + low + second * 8, a_along = third * 8;
  const int b_across = column + low + third * 8, b_along = second * 8;
#pragma unroll
  for (int k = 0; k < kMmaDepth; k += 16) {
    uint32_t b[2][4];
#pragma unroll
    for (int j = 0; j < 2; j++) {
      if constexpr (kAlongB) {
        load_matrices(b[j], stage + kMmaTileBytes + OperandTile<true>::matrix(b_across + j * 16, k + b_along));
      } else {
        const int across = column + j * 16 + third * 8, along = k + second * 8 + low;
        load_matrices_transposed(b[j], stage + kMmaTileBytes + OperandTile<false>::matrix(across, along));
      }
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
      uint32_t a[4];
      if constexpr (kAlongA) {
        load_matrices(a, stage + OperandTile<true>::matrix(a_across + i * 16, k + a_along));
      } else {
        const int across = row + i * 16 + second * 8, along = k + third * 8 + low;
        load_matrices_transposed(a, stage + OperandTile<false>::matrix(across, along));
      }
#pragma unroll
      for (int j = 0; j < 4; j++) multiply_add(T{}, acc[i][j], a, b[j >> 1][(j & 1) * 2], b[j >> 1][(j & 1) * 2 + 1]);
    }
  }
}

template <class T, bool kAlongA, bool kAlongB>
__device__ __forceinline__ void matmul_mma(const MatmulParams& p) {
  extern __shared__ __align__(128) float shared[];
  const uint32_t base = shared_address(shared);
  const int warp = static_cast<int>(threadIdx.x) >> 5, lane = static_cast<int>(threadIdx.x) & 31;
  const TilePlace place = tile_place(p, kMmaTile, kMmaTile);
  const int m = static_cast<int>(p.m), n = static_cast<int>(p.n), k = static_cast<int>(p.k), steps = (k + kMmaDepth - 1) / kMmaDepth;
  const OperandTile<kAlongA> a(p.a.data, batch_offset(p, p.a, place.batch), p.a.row, p.a.column, place.row, m, k);
  const OperandTile<kAlongB> b(p.b.data, batch_offset(p, p.b, place.batch), p.b.column, p.b.row, place.column, n, k);

  auto load = [&](int step) {
    if (step < steps) {
      const uint32_t stage = base + static_cast<uint32_t>(step % kMmaStages) * kMmaStageBytes;
      a.load(stage, step * kMmaDepth);
      b.load(stage + kMmaTileBytes, step * kMmaDepth);
    }
    commit_copies();
  };
  float acc[4][4][4] = {};
#pragma unroll
  for (int s = 0; s < kMmaStages - 1; s++) load(s);
#pragma unroll 1
  for (int step = 0; step < steps; step++) {
    wait_copies<kMmaStages - 2>();
    __syncthreads();
    load(step + kMmaStages - 1);
    multiply_stage<T, kAlongA, kAlongB>(base + static_cast<uint32_t>(step % kMmaStages) * kMmaStageBytes, warp, lane, acc);
  }
  wait_copies<0>();
  __syncthreads();

  const int row = (warp >> 2) * 64 + (lane >> 2), column = (warp & 3) * 32 + (lane & 3) * 2;
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const int r = row + i * 16 + half * 8;
        *reinterpret_cast<float2*>(&shared[r * kMmaTile + staged_column(r, column + j * 8)]) =
            make_float2(acc[i][j][half * 2], acc[i][j][half * 2 + 1]);
      }
  __syncthreads();
  const Epilogue<float> epilogue(p, place.batch);
  epilogue.store_staged(shared, kMmaTile, place.row, place.column);
}

}  // namespace fovea::cuda
