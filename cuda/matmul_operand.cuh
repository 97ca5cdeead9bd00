// Tiles of the operands of a matrix product in shared memory, in the order they have in memory: as lines along k (an 'n' a, a 't' b) or
// across it (a 't' a, an 'n' b).
//
// They come by cp.async, 16 bytes at a time. An operand that is not dense along its lines, or not aligned to 16 bytes, is gathered element
// by element into the same tile. Pieces of 16 bytes of a line are swizzled, so that lines that are read at once fall on different banks.
#pragma once

#include "async_copy.cuh"
#include "core/matmul_params.h"
#include "mma.cuh"
#include "pieces.cuh"

namespace fovea::cuda {

__device__ __forceinline__ uint32_t load_shared(uint32_t from) {
  uint32_t v;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(from) : "memory");
  return v;
}

__device__ __forceinline__ float4 load_shared_four(uint32_t from) {
  float4 v;
  asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "r"(from) : "memory");
  return v;
}

// kAcross rows of a, or columns of b, by kDepth of k. kAlong: lines run along k. Word: what an element is stored as, 16 or 32 bits.
template <class Word, bool kIsA, bool kAlong, int kAcross, int kDepth, int kThreads>
class OperandTile {
  static constexpr int kPiece = kPieceOf<Word>, kPieces = (kAlong ? kDepth : kAcross) / kPiece, kLines = kAlong ? kAcross : kDepth,
                       kLineBytes = kPieces * 16, kLineStep = kThreads / kPieces;
  static_assert(kThreads % kPieces == 0 && kLines % kLineStep == 0);
  static_assert(kLineStep % (kAlong || sizeof(Word) == 2 ? 8 : 4) == 0);  // lines of one thread are swizzled alike

 public:
  // `first` and `limit`: the tile's first row or column and how many the operand has. `k` and `length`: the part of k. Strides stay in the
  // kernel's parameters.
  __device__ __forceinline__ OperandTile(const MatmulOperand& x, int64_t offset, int first, int limit, int k, int length) : x_(x) {
    const Word* base = static_cast<const Word*>(x.data) + offset;
    wide_ = step() == 1 && line_stride() % kPiece == 0 && (reinterpret_cast<uint64_t>(base) & 15) == 0;
    from_ = base + first * (kAlong ? line_stride() : step()) + k * k_stride() + my_line() * line_stride() + my_piece() * kPiece * step();
    there_ = limit - first - (kAlong ? my_line() : my_piece() * kPiece);
    to_ = address(my_line(), my_piece());
    left_ = length - (kAlong ? my_piece() * kPiece : my_line());
  }

  // Copies the next kDepth of k, zeros behind the end.
  __device__ __forceinline__ void load(uint32_t tile) {
    const int elements = max(min(kAlong ? left_ : there_, kPiece), 0), lines = kAlong ? there_ : left_;
    const Word* from = from_;
    if (wide_) {
#pragma unroll
      for (int i = 0; i < kLines; i += kLineStep, from += kLineStep * line_stride())
        copy_async(tile + to_ + i * kLineBytes, from, i < lines ? elements * static_cast<int>(sizeof(Word)) : 0);
    } else {
#pragma unroll 1
      for (int i = 0; i < kLines; i += kLineStep, from += kLineStep * line_stride())
        gather(tile + to_ + i * kLineBytes, from, i < lines ? elements : 0);
    }
    from_ += kDepth * k_stride();
    left_ -= kDepth;
  }

  // Where a lane's part of the fragments lies in a tile, for the warp whose first row or column is `first`. The matrices of a fragment of
  // a: both row halves, then both of the next 16 bytes of k; of two fragments of b: both pieces of k, then the next columns.
  static __device__ __forceinline__ uint32_t lane_offset(int first, int lane) {
    const int low = lane & 7, second = (lane >> 3) & 1, third = lane >> 4, half = kIsA ? second : third, k_half = kIsA ? third : second;
    if constexpr (kAlong) return address(first + half * 8 + low, k_half);
    else if constexpr (sizeof(Word) == 2) return address(k_half * 8 + low, first / kPiece + half);
    else return address(lane & 3, (first + (lane >> 2)) / kPiece) + ((lane >> 2) & 3) * 4;
  }

  // Registers of group `group` of k for 16 rows of a or columns of b, `block` x 16 on from the warp's first.
  static __device__ __forceinline__ void read(uint32_t (&r)[4], uint32_t tile, uint32_t lane_offset, int group, int block) {
    if constexpr (kAlong) {
      load_matrices(r, tile + (lane_offset ^ static_cast<uint32_t>(group << 5)) + block * 16 * kLineBytes);
    } else if constexpr (sizeof(Word) == 2) {
      load_matrices_transposed(r, tile + (lane_offset ^ static_cast<uint32_t>(block << 5)) + group * 16 * kLineBytes);
    } else {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int half = kIsA ? i & 1 : i >> 1, k_half = kIsA ? i >> 1 : i & 1;
        r[i] =
            load_shared(tile + (lane_offset ^ static_cast<uint32_t>((block * 4 + half * 2) << 4)) + (group * 8 + k_half * 4) * kLineBytes);
      }
    }
  }

  // Elements k to k + 3, k a multiple of 4, of one row of a or column of b; 32-bit elements.
  static __device__ __forceinline__ void read_four(float (&x)[4], uint32_t tile, int across, int k) {
    if constexpr (kAlong) {
      const float4 v = load_shared_four(tile + address(across, k / 4));
      x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w;
    } else {
#pragma unroll
      for (int i = 0; i < 4; i++) x[i] = __uint_as_float(load_shared(tile + address(k + i, across / 4) + across % 4 * 4));
    }
  }

 private:
  __device__ __forceinline__ int64_t line_stride() const { return kAlong == kIsA ? x_.row : x_.column; }
  __device__ __forceinline__ int64_t step() const { return kAlong == kIsA ? x_.column : x_.row; }
  __device__ __forceinline__ int64_t k_stride() const { return kIsA ? x_.column : x_.row; }
  static __device__ __forceinline__ int my_line() { return static_cast<int>(threadIdx.x) / kPieces; }
  static __device__ __forceinline__ int my_piece() { return static_cast<int>(threadIdx.x) % kPieces; }

  // A piece of 16 bytes lies at an exclusive or with a number that differs among the lines that are read at once: 8 by ldmatrix; 4, of two
  // pieces each, where 32-bit elements are read across k.
  static __device__ __forceinline__ uint32_t address(int line, int piece) {
    constexpr int kLinesOf128Bytes = kPieces < 8 ? 8 / kPieces : 1;
    const int different = line / kLinesOf128Bytes, swizzle = kAlong || sizeof(Word) == 2 ? different & 7 : (different & 3) << 1;
    return static_cast<uint32_t>(line * kLineBytes + ((piece ^ (swizzle & (kPieces - 1))) << 4));
  }

  __device__ __forceinline__ void gather(uint32_t to, const Word* from, int elements) const {
    uint32_t words[4];
#pragma unroll
    for (int w = 0; w < 4; w++) {
      const auto bits = [&](int e) -> uint32_t { return e < elements ? from[e * step()] : 0; };
      if constexpr (sizeof(Word) == 4) words[w] = bits(w);
      else words[w] = bits(2 * w) | bits(2 * w + 1) << 16;
    }
    store_shared(to, make_uint4(words[0], words[1], words[2], words[3]));
  }

  const MatmulOperand& x_;
  const Word* from_;
  int there_, left_;
  uint32_t to_;
  bool wide_;
};

}  // namespace fovea::cuda
