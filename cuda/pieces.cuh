// Rows of elements in pieces: kCount neighbours at a time as floats, in one access of up to 16 bytes.
#pragma once

#include "elements.cuh"

namespace fovea::cuda {

template <class T, int kCount>
struct alignas(sizeof(T) * kCount) Piece {
  T elements[kCount];
};

// Elements of T in 16 bytes.
template <class T>
constexpr int kPieceOf = 16 / static_cast<int>(sizeof(T));

template <int kCount, class T>
__device__ __forceinline__ void load_piece(const T* from, float (&to)[kCount]) {
  const auto piece = *reinterpret_cast<const Piece<T, kCount>*>(from);
#pragma unroll
  for (int i = 0; i < kCount; i++) to[i] = to_f32(piece.elements[i]);
}

template <int kCount, class T>
__device__ __forceinline__ void store_piece(T* to, const float (&from)[kCount]) {
  Piece<T, kCount> piece;
#pragma unroll
  for (int i = 0; i < kCount; i++) piece.elements[i] = narrow<T>(from[i]);
  *reinterpret_cast<Piece<T, kCount>*>(to) = piece;
}

}  // namespace fovea::cuda
