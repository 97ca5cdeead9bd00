// Matrix products in f32 and f64 on the ordinary pipes: one chain of fused multiply-adds per element, in the order of k, so f32 has the
// bits of the CPU's kernels.
//
// f32: blocks of 128 x 128, 8 of k a step, 8 x 8 elements a thread. The next step's operands are loaded into registers while this one's
// are multiplied, then written to the other half of shared memory: one barrier a step. Smaller tiles are in matmul_f32_small.cu. f64 is a
// plain tiled loop for references.
#include "matmul_tile.cuh"

namespace fovea::cuda {

namespace {

constexpr int kTile = 128, kDepth = 8, kThreads = 256, kPitch = kTile + 4;

// Four elements a thread of an operand's 128 x 8 tile, in the order its memory has: along k where that is dense, else across.
template <bool kIsA>
class Operand {
 public:
  __device__ __forceinline__ Operand(const MatmulOperand& x, int64_t offset, int first, int limit, int k) : x_(x) {
    const float* base = static_cast<const float*>(x.data) + offset;
    by_k_ = along() == 1 || across() != 1;
    there_ = limit - first - local();
    wide_ = (by_k_ ? along() == 1 && across() % 4 == 0 : along() % 4 == 0) && (reinterpret_cast<uint64_t>(base) & 15) == 0;
    from_ = base + (first + local()) * across() + (k + column()) * along();
  }

  // The next step of k, of which `left` exist; zeros behind.
  __device__ __forceinline__ void load(int left, float (&x)[4]) {
    const int elements = by_k_ ? (there_ > 0 ? left - column() : 0) : (left > column() ? there_ : 0);
    if (wide_ && elements >= 4) {
      const float4 v = *reinterpret_cast<const float4*>(from_);
      x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w;
    } else {
#pragma unroll
      for (int e = 0; e < 4; e++) x[e] = e < elements ? from_[e * (by_k_ ? along() : across())] : 0.f;
    }
    from_ += kDepth * along();
  }

  __device__ __forceinline__ void keep(float (*tile)[kPitch], const float (&x)[4]) const {
    if (by_k_) {
#pragma unroll
      for (int i = 0; i < 4; i++) tile[column() + i][local()] = x[i];
    } else {
      *reinterpret_cast<float4*>(&tile[column()][local()]) = make_float4(x[0], x[1], x[2], x[3]);
    }
  }

 private:
  __device__ __forceinline__ int local() const {
    const int t = static_cast<int>(threadIdx.x);
    return by_k_ ? t >> 1 : (t & 31) * 4;
  }
  __device__ __forceinline__ int column() const {
    const int t = static_cast<int>(threadIdx.x);
    return by_k_ ? (t & 1) * 4 : t >> 5;
  }
  __device__ __forceinline__ int64_t across() const { return kIsA ? x_.row : x_.column; }
  __device__ __forceinline__ int64_t along() const { return kIsA ? x_.column : x_.row; }

  const MatmulOperand& x_;
  const float* from_;
  int there_;
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

extern "C" __global__ void __launch_bounds__(kThreads, 2) matmul_f32_128x128(const __grid_constant__ MatmulCall call) {
  __shared__ __align__(16) Tiles tiles;
  static_assert(sizeof(Tiles) >= 32 * kTile * sizeof(float));
  const MatmulParams& p = call.product;
  const int tx = static_cast<int>(threadIdx.x) & 15, ty = static_cast<int>(threadIdx.x) >> 4;
  const TilePlace place = tile_place(call, kTile, kTile);
  Operand<true> a(p.a, batch_offset(p, p.a, place.batch), place.row, static_cast<int>(p.m), place.first);
  Operand<false> b(p.b, batch_offset(p, p.b, place.batch), place.column, static_cast<int>(p.n), place.first);
  float acc[8][8] = {}, next_a[4], next_b[4];
  Carry<64, kThreads> carry(call);
  int left = place.length, now = 0;
  const auto load = [&] {
    a.load(left, next_a);
    b.load(left, next_b);
  };
  const auto keep = [&](int half) {
    a.keep(tiles.a[half], next_a);
    b.keep(tiles.b[half], next_b);
    __syncthreads();
  };
  if (left > 0) {
    load();
    keep(0);
  }
#pragma unroll 1
  while (left > 0) {
#pragma unroll 1
    for (int run = carry.run(left); run > 0; run -= kDepth, now ^= 1) {
      left -= kDepth;
      if (left > 0) load();
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
      if (left > 0) keep(now ^ 1);
    }
    if (left > 0) carry.keep(reinterpret_cast<float(&)[64]>(acc));
  }
  carry.add(reinterpret_cast<float(&)[64]>(acc));

  // 32 rows at a time through shared memory, in whole rows from there.
  float* staged = &tiles.a[0][0][0];
  const TilePlace at = tile_place(call, kTile, kTile);
  const Epilogue<float> epilogue(call, at);
#pragma unroll
  for (int quarter = 0; quarter < 4; quarter++) {
    __syncthreads();
    if (ty >> 3 == (quarter & 1)) {
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 8; j += 4) {
          const int r = (ty & 7) * 4 + i;
          const float(&x)[8] = acc[(quarter >> 1) * 4 + i];
          *reinterpret_cast<float4*>(&staged[r * kTile + staged_column(r, j * 16 + tx * 4)]) =
              make_float4(x[j], x[j + 1], x[j + 2], x[j + 3]);
        }
    }
    __syncthreads();
    epilogue.store_staged<kTile>(staged, 32, at.row + quarter * 32, at.column);
  }
}

extern "C" __global__ void __launch_bounds__(kThreads) matmul_f32_add_chunks(const __grid_constant__ MatmulCall call) {
  add_chunks<float>(call);
}

extern "C" __global__ void __launch_bounds__(256) matmul_f64(const __grid_constant__ MatmulCall call) {
  const MatmulParams& p = call.product;
  __shared__ double tile_a[16][17], tile_b[16][17];
  const int tx = static_cast<int>(threadIdx.x) & 15, ty = static_cast<int>(threadIdx.x) >> 4;
  const TilePlace place = tile_place(call, 16, 16);
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
  if (row < p.m && column < p.n) Epilogue<double>(call, place).store(row, column, acc);
}

}  // namespace fovea::cuda
