// Tiles of 16-bit rows in shared memory, for ldmatrix.
//
// A row is cut in pieces of 16 bytes. Piece c of row r lies at c ^ (r mod 8) (rows of 64 bytes: c ^ (r / 2 mod 4)), so that the eight rows
// of an 8x8 matrix, one piece each, always fall on different banks, and so do rows written piece by piece.
#pragma once

#include "async_copy.cuh"

namespace fovea::cuda {

template <int kDim>
struct Tile {
  static constexpr int kPieces = kDim / 8, kRowBytes = kDim * 2;
  static_assert(kPieces == 4 || kPieces % 8 == 0);

  static __device__ __forceinline__ uint32_t at(uint32_t tile, int row, int piece) {
    const int swizzle = kPieces == 4 ? (row >> 1) & 3 : row & 7;
    return tile + static_cast<uint32_t>(row * kRowBytes + ((piece ^ swizzle) << 4));
  }

  // Addresses for ldmatrix.x4, in two parts to keep them out of registers: what depends on the lane, then rows (a multiple of 8) and pieces
  // (even) on from there, which are constants but for one exclusive or.
  //   rows: 16 rows x 16 elements as the A operand, or transposed as two B operands of 16 elements x 8
  //   columns: 16 rows x 16 elements as two B operands, each 8 rows by 16 elements
  static __device__ __forceinline__ uint32_t lane_rows(uint32_t tile, int row, int lane) { return at(tile, row + (lane & 15), lane >> 4); }
  static __device__ __forceinline__ uint32_t lane_columns(uint32_t tile, int row, int lane) {
    return at(tile, row + (lane & 7) + ((lane >> 4) << 3), (lane >> 3) & 1);
  }
  static __device__ __forceinline__ uint32_t step(uint32_t lane_address, int rows, int pieces) {
    constexpr int kSwizzled = kPieces == 4 ? 3 : 7;
    return (lane_address ^ static_cast<uint32_t>((pieces & kSwizzled) << 4)) +
           static_cast<uint32_t>(rows * kRowBytes + ((pieces & ~kSwizzled) << 4));
  }

  // Fills kRows rows by kThreads threads. row_at(r) is the address of a row's first element, null for a row of zeros; columns from dim on
  // are zero. Wide rows go by cp.async, to be committed by the caller; others element by element. Unrolled in full, the addresses of a
  // large tile would push accumulators out of registers.
  template <int kRows, int kThreads, class RowAt>
  static __device__ __forceinline__ void fill(uint32_t tile, RowAt&& row_at, int dim, int64_t step, bool wide) {
    static_assert(kRows * kPieces % kThreads == 0 && kThreads % kPieces == 0);
    constexpr int kRowStep = kThreads / kPieces;
    const int row0 = static_cast<int>(threadIdx.x) / kPieces, piece = static_cast<int>(threadIdx.x) % kPieces;
    if (wide) {
      const bool inside = piece * 8 < dim;
#pragma unroll 2
      for (int i = 0; i < kRows / kRowStep; i++) {
        const uint16_t* from = row_at(row0 + i * kRowStep);
        const bool there = from != nullptr && inside;
        copy_async(at(tile, row0 + i * kRowStep, piece), there ? from + piece * 8 : row_at.fallback(), there ? 16 : 0);
      }
      return;
    }
#pragma unroll 1
    for (int row = row0; row < kRows; row += kRowStep) {
      const uint16_t* from = row_at(row);
      uint32_t words[4];
#pragma unroll
      for (int w = 0; w < 4; w++) {
        const int d = piece * 8 + w * 2;
        const uint32_t lo = from && d < dim ? from[d * step] : 0, hi = from && d + 1 < dim ? from[(d + 1) * step] : 0;
        words[w] = lo | hi << 16;
      }
      store_shared(at(tile, row, piece), make_uint4(words[0], words[1], words[2], words[3]));
    }
  }
};

}  // namespace fovea::cuda
