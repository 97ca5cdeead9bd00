// Matrix products in f32 and f64 on the ordinary pipes: one chain of fused multiply-adds per element, in the order of k, so f32 has the
// bits of the CPU's kernels.
//
// f32: blocks of 128 x 128, 8 of k a step, 8 x 8 elements a thread. The next step's operands are loaded into registers while this one's
// are multiplied, then written to the other half of shared memory: one barrier a step. f64 is a plain tiled loop for references.
#include "matmul_tile.cuh"

namespace fovea::cuda {

namespace {

constexpr int kTile = 128, kDepth = 8, kThreads = 256, kPitch = kTile + 4;

// Four elements a thread of an operand's 128 x 8 tile, in the order its memory has: along k where that is dense, else across.
class Operand {
 public:
  __device__ __forceinline__ Operand(const void* data, int64_t offset, int64_t across, int64_t along, int64_t first, int64_t limit,
                                     int64_t k)
      : base_(static_cast<const float*>(data) + offset), across_(across), along_(along), limit_(limit), k_(k) {
    by_k_ = along == 1 || across != 1;
    const int t = static_cast<int>(threadIdx.x);
    row_ = first + (by_k_ ? t >> 1 : (t & 31) * 4);
    column_ = by_k_ ? (t & 1) * 4 : t >> 5;
    local_ = by_k_ ? t >> 1 : (t & 31) * 4;
    wide_ = (by_k_ ? along == 1 && across % 4 == 0 : along % 4 == 0) && (reinterpret_cast<uint64_t>(base_) & 15) == 0;
  }

  __device__ __forceinline__ void load(int64_t k, float (&x)[4]) const {
    const int64_t c = k + column_, last_row = by_k_ ? row_ : row_ + 3, last_column = by_k_ ? c + 3 : c;
    if (wide_ && last_row < limit_ && last_column < k_) {
      const float4 v = *reinterpret_cast<const float4*>(base_ + row_ * across_ + c * along_);
      x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w;
      return;
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int64_t r = by_k_ ? row_ : row_ + i, d = by_k_ ? c + i : c;
      x[i] = r < limit_ && d < k_ ? base_[r * across_ + d * along_] : 0.f;
    }
  }

  __device__ __forceinline__ void keep(float (*tile)[kPitch], const float (&x)[4]) const {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      if (by_k_) tile[column_ + i][local_] = x[i];
      else tile[column_][local_ + i] = x[i];
    }
  }

 private:
  const float* base_;
  int64_t across_, along_, limit_, k_, row_;
  int column_, local_;
  bool by_k_, wide_;
};

struct Tiles {
  float a[2][kDepth][kPitch], b[2][kDepth][kPitch];
};

// Rows (or columns) 4 i to 4 i + 3 and the same 64 on, of one line of a tile.
__device__ __forceinline__ void read_eight(const float* line, int i, float (&x)[8]) {
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const float4 v = *reinterpret_cast<const float4*>(line + half * 64 + i * 4);
    x[half * 4] = v.x, x[half * 4 + 1] = v.y, x[half * 4 + 2] = v.z, x[half * 4 + 3] = v.w;
  }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads, 2) matmul_f32(const __grid_constant__ MatmulParams p) {
  __shared__ __align__(16) Tiles tiles;
  static_assert(sizeof(Tiles) >= 32 * kTile * sizeof(float));
  const int tx = static_cast<int>(threadIdx.x) & 15, ty = static_cast<int>(threadIdx.x) >> 4;
  const TilePlace place = tile_place(p, kTile, kTile);
  const Operand a(p.a.data, batch_offset(p, p.a, place.batch), p.a.row, p.a.column, place.row, p.m, p.k);
  const Operand b(p.b.data, batch_offset(p, p.b, place.batch), p.b.column, p.b.row, place.column, p.n, p.k);
  float acc[8][8] = {}, next_a[4], next_b[4];
  if (p.k > 0) {
    a.load(0, next_a);
    b.load(0, next_b);
    a.keep(tiles.a[0], next_a);
    b.keep(tiles.b[0], next_b);
    __syncthreads();
  }
  int now = 0;
#pragma unroll 1
  for (int64_t k = 0; k < p.k; k += kDepth, now ^= 1) {
    const bool more = k + kDepth < p.k;
    if (more) {
      a.load(k + kDepth, next_a);
      b.load(k + kDepth, next_b);
    }
#pragma unroll
    for (int d = 0; d < kDepth; d++) {
      float x[8], y[8];
      read_eight(tiles.a[now][d], ty, x);
      read_eight(tiles.b[now][d], tx, y);
#pragma unroll
      for (int i = 0; i < 8; i++)
#pragma unroll
        for (int j = 0; j < 8; j++) acc[i][j] = fmaf(x[i], y[j], acc[i][j]);
    }
    if (more) {
      a.keep(tiles.a[now ^ 1], next_a);
      b.keep(tiles.b[now ^ 1], next_b);
      __syncthreads();
    }
  }

  // 32 rows at a time through shared memory, in whole rows from there.
  float* staged = &tiles.a[0][0][0];
  const Epilogue<float> epilogue(p, place.batch);
#pragma unroll
  for (int quarter = 0; quarter < 4; quarter++) {
    __syncthreads();
    if (ty >> 3 == (quarter & 1)) {
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 8; j++) {
          const int r = (ty & 7) * 4 + i;
          staged[r * kTile + staged_column(r, (j >> 2) * 64 + tx * 4 + (j & 3))] = acc[(quarter >> 1) * 4 + i][j];
        }
    }
    __syncthreads();
    epilogue.store_staged(staged, 32, place.row + quarter * 32, place.column);
  }
}

extern "C" __global__ void __launch_bounds__(256) matmul_f64(const __grid_constant__ MatmulParams p) {
  __shared__ double tile_a[16][17], tile_b[16][17];
  const int tx = static_cast<int>(threadIdx.x) & 15, ty = static_cast<int>(threadIdx.x) >> 4;
  const TilePlace place = tile_place(p, 16, 16);
  const double* a = static_cast<const double*>(p.a.data) + batch_offset(p, p.a, place.batch);
  const double* b = static_cast<const double*>(p.b.data) + batch_offset(p, p.b, place.batch);
  const int64_t row = place.row + ty, column = place.column + tx;
  double acc = 0;
#pragma unroll 1
  for (int64_t k = 0; k < p.k; k += 16) {
    tile_a[ty][tx] = row < p.m && k + tx < p.k ? a[row * p.a.row + (k + tx) * p.a.column] : 0;
    tile_b[ty][tx] = k + ty < p.k && column < p.n ? b[(k + ty) * p.b.row + column * p.b.column] : 0;
    __syncthreads();
#pragma unroll
    for (int d = 0; d < 16; d++) acc = fma(tile_a[ty][d], tile_b[d][tx], acc);
    __syncthreads();
  }
  if (row < p.m && column < p.n) Epilogue<double>(p, place.batch).store(row, column, acc);
}

}  // namespace fovea::cuda
