// What the matrix product kernels share: which tile of which run of k a block computes, sums of several runs, and the epilogue
// out = activation(acc + bias).
#pragma once

#include "activation.cuh"
#include "cuda/matmul_params.h"
#include "elements.cuh"
#include "pieces.cuh"

namespace fovea::cuda {

// Sizes of one matrix are below 2^31.
struct TilePlace {
  int row, column;
  int64_t batch;
  int chunk;          // where runs of k are split
  int first, length;  // the part of k
};

// Blocks are numbered run by run of k where these are split, then batch by batch; inside a batch, bands of 8 tile rows are walked column by
// column, so that the blocks that run at one time share their rows of a and columns of b in L2. The block's number is read as volatile: a
// kernel asks again for its epilogue, rather than keep the place in registers during the products.
__device__ __forceinline__ TilePlace tile_place(const MatmulCall& call, int rows, int columns) {
  constexpr unsigned kBand = 8;
  const MatmulParams& p = call.product;
  const unsigned tiles_m = static_cast<unsigned>((p.m + rows - 1) / rows), tiles_n = static_cast<unsigned>((p.n + columns - 1) / columns);
  unsigned block;
  asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(block));
  int chunk = 0, first_k = 0, length = static_cast<int>(p.k);
  if (call.split) {
    const unsigned blocks = gridDim.x / static_cast<unsigned>(call.chunks);
    chunk = static_cast<int>(block / blocks);
    block %= blocks;
    first_k = chunk * call.chunk;
    length = min(length - first_k, call.chunk);
  }
  const unsigned tiles = tiles_m * tiles_n, batch = block / tiles, tile = block % tiles;
  const unsigned band = tile / (kBand * tiles_n), first = band * kBand, height = min(kBand, tiles_m - first);
  const unsigned inside = tile % (kBand * tiles_n);
  return {static_cast<int>(first + inside % height) * rows, static_cast<int>(inside / height) * columns, batch, chunk, first_k, length};
}

__device__ __forceinline__ int64_t batch_offset(const MatmulParams& p, const MatmulOperand& x, int64_t batch) {
  int64_t offset = 0;
#pragma unroll 1
  for (int i = p.batch_rank - 1; i >= 0; i--) {
    const int64_t rest = batch / p.batch_shape[i];
    offset += (batch - rest * p.batch_shape[i]) * x.batch[i];
    batch = rest;
  }
  return offset;
}

// The sum of the runs of k that a block is through with. Each thread reads what it wrote itself.
template <int kCount, int kThreads>
class Carry {
 public:
  __device__ __forceinline__ explicit Carry(const MatmulCall& call) : call_(call) {}

  // Elements of the run that begins where `left` are to come.
  __device__ __forceinline__ int run(int left) const { return call_.split ? left : min(left, call_.chunk); }

  // Adds acc to the sum, and begins another run.
  __device__ __forceinline__ void keep(float (&acc)[kCount]) {
    add(acc);
    float4* kept = place();
#pragma unroll
    for (int i = 0; i < kCount; i += 4) {
      kept[i / 4 * kThreads] = make_float4(acc[i], acc[i + 1], acc[i + 2], acc[i + 3]);
      acc[i] = acc[i + 1] = acc[i + 2] = acc[i + 3] = 0;
    }
    carried_ = true;
  }

  // Adds the sum to acc.
  __device__ __forceinline__ void add(float (&acc)[kCount]) const {
    if (!carried_) return;
    const float4* kept = place();
#pragma unroll
    for (int i = 0; i < kCount; i += 4) {
      const float4 sum = kept[i / 4 * kThreads];
      acc[i] = sum.x + acc[i], acc[i + 1] = sum.y + acc[i + 1], acc[i + 2] = sum.z + acc[i + 2], acc[i + 3] = sum.w + acc[i + 3];
    }
  }

 private:
  __device__ __forceinline__ float4* place() const {
    return reinterpret_cast<float4*>(call_.sums) + static_cast<int64_t>(blockIdx.x) * (kCount / 4) * kThreads + threadIdx.x;
  }

  const MatmulCall& call_;
  bool carried_ = false;
};

template <class T>
struct Accumulator {
  using Type = float;
};
template <>
struct Accumulator<double> {
  using Type = double;
};

// Where column c of row r of a staged tile lies: the four rows that half a warp writes at once fall on different banks.
__device__ __forceinline__ int staged_column(int r, int c) { return c ^ ((r & 3) << 3); }

// The epilogue of one block. T is the dtype of a, b and bias; the output has it too, or is f32.
template <class T>
class Epilogue {
  using Sum = typename Accumulator<T>::Type;

 public:
  __device__ __forceinline__ Epilogue(const MatmulCall& call, const TilePlace& place)
      : p_(call.product),
        out_(batch_offset(p_, p_.out, place.batch) + (call.split ? place.chunk * call.sums_stride : 0)),
        bias_(p_.bias.data ? batch_offset(p_, p_.bias, place.batch) : 0),
        pre_(p_.pre.data ? batch_offset(p_, p_.pre, place.batch) : 0) {}

  // One element inside the matrix.
  __device__ __forceinline__ void store(int64_t row, int64_t column, Sum x) const {
    put(p_.out, out_ + row * p_.out.row + column * p_.out.column, finish(row, column, x));
  }

  // A tile of `rows` rows by kColumns columns in shared memory, whose corner is (row, column); by all threads.
  template <int kColumns>
  __device__ __forceinline__ void store_staged(float* tile, int rows, int64_t row, int64_t column) const {
    if (p_.bias.data || p_.pre.data || p_.activation != Activation::None) {
#pragma unroll 1
      for (int i = static_cast<int>(threadIdx.x); i < rows * kColumns; i += static_cast<int>(blockDim.x)) {
        const int r = i / kColumns, c = i % kColumns;
        if (row + r >= p_.m || column + c >= p_.n) continue;
        float& x = tile[r * kColumns + staged_column(r, c)];
        x = finish(row + r, column + c, x);
      }
      __syncthreads();
    }
    if (p_.out_dtype == DType::F32) store_pieces<float, kColumns>(tile, rows, row, column);
    else store_pieces<T, kColumns>(tile, rows, row, column);
  }

 private:
  // activation(x + bias), x + bias kept where that is wanted.
  __device__ __forceinline__ Sum finish(int64_t row, int64_t column, Sum x) const {
    if (p_.bias.data) {
      const T bias = static_cast<const T*>(p_.bias.data)[bias_ + row * p_.bias.row + column * p_.bias.column];
      if constexpr (__is_same(T, double)) x += bias;
      else x += to_f32(bias);
    }
    if (p_.pre.data) put(p_.pre, pre_ + row * p_.pre.row + column * p_.pre.column, x);
    return activate(p_.activation, x);
  }

  __device__ __forceinline__ void put(const MatmulOperand& to, int64_t at, Sum x) const {
    if constexpr (__is_same(T, double)) static_cast<double*>(to.data)[at] = x;
    else if (p_.out_dtype == DType::F32) static_cast<float*>(to.data)[at] = x;
    else static_cast<T*>(to.data)[at] = narrow<T>(x);
  }

  // Four elements of a row at a time, where the memory allows it.
  template <class D, int kColumns>
  __device__ __forceinline__ void store_pieces(const float* tile, int rows, int64_t row, int64_t column) const {
    D* out = static_cast<D*>(p_.out.data) + out_ + row * p_.out.row + column * p_.out.column;
    const bool wide = p_.out.column == 1 && p_.out.row % 4 == 0 && (reinterpret_cast<uint64_t>(out) & (4 * sizeof(D) - 1)) == 0;
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < rows * (kColumns / 4); i += static_cast<int>(blockDim.x)) {
      const int r = i / (kColumns / 4), c = i % (kColumns / 4) * 4;
      const int64_t there = row + r < p_.m ? p_.n - column - c : 0;
      if (there <= 0) continue;
      const float4 x = *reinterpret_cast<const float4*>(&tile[r * kColumns + staged_column(r, c)]);
      D* to = out + r * p_.out.row + c * p_.out.column;
      if (wide && there >= 4) {
        store_piece(to, {x.x, x.y, x.z, x.w});
      } else {
        to[0] = narrow<D>(x.x);
        if (there > 1) to[p_.out.column] = narrow<D>(x.y);
        if (there > 2) to[2 * p_.out.column] = narrow<D>(x.z);
        if (there > 3) to[3 * p_.out.column] = narrow<D>(x.w);
      }
    }
  }

  const MatmulParams& p_;
  int64_t out_, bias_, pre_;
};

// out from the sums of the runs of k, one thread an element.
template <class T>
__device__ __forceinline__ void add_chunks(const MatmulCall& call) {
  const MatmulParams& p = call.product;
  const int64_t matrix = p.m * p.n;
#pragma unroll 1
  for (int64_t i = global_thread(); i < call.sums_stride; i += global_threads()) {
    float sum = call.sums[i];
#pragma unroll 4
    for (int c = 1; c < call.chunks; c++) sum += call.sums[c * call.sums_stride + i];
    const int64_t batch = i / matrix, inside = i - batch * matrix, row = inside / p.n;
    Epilogue<T>(call, {0, 0, batch, 0, 0, 0}).store(row, inside - row * p.n, sum);
  }
}

}  // namespace fovea::cuda
