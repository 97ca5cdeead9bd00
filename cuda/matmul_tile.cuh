// What the matrix product kernels share: which tile a block computes, and the epilogue out = activation(acc + bias).
#pragma once

#include "activation.cuh"
#include "core/matmul_params.h"
#include "elements.cuh"

namespace fovea::cuda {

// Sizes of one matrix are below 2^31.
struct TilePlace {
  int row, column;
  int64_t batch;
};

// Blocks are numbered batch by batch; inside a batch, bands of 8 tile rows are walked column by column, so that the blocks that run at one
// time share their rows of a and columns of b in L2.
__device__ __forceinline__ TilePlace tile_place(const MatmulParams& p, int rows, int columns) {
  constexpr unsigned kBand = 8;
  const unsigned tiles_m = static_cast<unsigned>((p.m + rows - 1) / rows), tiles_n = static_cast<unsigned>((p.n + columns - 1) / columns);
  const unsigned tiles = tiles_m * tiles_n, batch = blockIdx.x / tiles, tile = blockIdx.x % tiles;
  const unsigned band = tile / (kBand * tiles_n), first = band * kBand, height = min(kBand, tiles_m - first);
  const unsigned inside = tile % (kBand * tiles_n);
  return {static_cast<int>(first + inside % height) * rows, static_cast<int>(inside / height) * columns, batch};
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

// Where column c of row r of a staged tile lies: the four rows that half a warp writes at once fall on different banks.
__device__ __forceinline__ int staged_column(int r, int c) { return c ^ ((r & 3) << 3); }

// The epilogue of one block.
template <class Accumulator>
class Epilogue {
 public:
  __device__ __forceinline__ Epilogue(const MatmulParams& p, int64_t batch)
      : p_(p),
        out_(batch_offset(p, p.out, batch)),
        bias_(p.bias.data ? batch_offset(p, p.bias, batch) : 0),
        pre_(p.pre.data ? batch_offset(p, p.pre, batch) : 0) {}

  // One element inside the matrix.
  __device__ __forceinline__ void store(int64_t row, int64_t column, Accumulator x) const {
    if (p_.bias.data) x += load_as<Accumulator>(p_.dtype, p_.bias.data, bias_ + row * p_.bias.row + column * p_.bias.column);
    if (p_.pre.data) store_as<Accumulator>(p_.out_dtype, p_.pre.data, pre_ + row * p_.pre.row + column * p_.pre.column, x);
    store_as<Accumulator>(p_.out_dtype, p_.out.data, out_ + row * p_.out.row + column * p_.out.column, activate(p_.activation, x));
  }

  // A tile of `rows` rows by 128 columns in shared memory, whose corner is (row, column); by all threads.
  __device__ __forceinline__ void store_staged(const float* tile, int rows, int64_t row, int64_t column) const {
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < rows * 128; i += static_cast<int>(blockDim.x)) {
      const int r = i >> 7, c = i & 127;
      if (row + r < p_.m && column + c < p_.n) store(row + r, column + c, tile[r * 128 + staged_column(r, c)]);
    }
  }

 private:
  const MatmulParams& p_;
  int64_t out_, bias_, pre_;
};

}  // namespace fovea::cuda
