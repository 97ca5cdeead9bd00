// Rows of tensors as columns of lanes.
//
// Rows pass through squares of kLanes by kLanes floats: where a row is f32 with neighbouring elements squares are turned in place, others
// in a tile that they are widened into. The element type is looked at once per square or row, so that no kernel around depends on it.
#pragma once

#include "cpu/neighborhood_window.h"

namespace fovea::cpu {
namespace {

FOVEA_INLINE int64_t element_bytes(DType dtype) { return dtype == DType::F32 ? 4 : 2; }
FOVEA_INLINE const char* element(const NeighborhoodTensor& t, DType dtype, int64_t offset) {
  return static_cast<const char*>(t.data) + offset * element_bytes(dtype);
}

// Vectors of a panel of dims that starts at vector `first` of `vectors`: at most kVectors, and not one alone after three.
FOVEA_INLINE int panel_width(int64_t first, int64_t vectors) {
  const int64_t left = vectors - first;
  return static_cast<int>(left == 4 ? 2 : least(left, kVectors));
}

// to[i] = from[i * step] for i < n.
__attribute__((noinline)) void widen(DType dtype, const void* from, int64_t step, int64_t n, float* to) {
  with_float(dtype, [&]<class T>(TypeTag<T>) {
    const T* row = static_cast<const T*>(from);
    int64_t d = 0;
    if (step == 1)
      for (; d + kLanes <= n; d += kLanes) store(to + d, load(row + d));
    for (; d < n; d++) to[d] = to_float(row[d * step]);
  });
}

// to[i * step] = from[i] for i < n.
__attribute__((noinline)) void narrow_to(DType dtype, const float* from, int64_t n, void* to, int64_t step) {
  with_float(dtype, [&]<class T>(TypeTag<T>) {
    T* row = static_cast<T*>(to);
    int64_t d = 0;
    if (step == 1)
      for (; d + kLanes <= n; d += kLanes) store(row + d, load(from + d));
    for (; d < n; d++) row[d * step] = narrow<T>(from[d]);
  });
}

// Left alone, the compiler reads again for every product.
FOVEA_INLINE vf load_once(const float* p) {
  vf v = load(p);
#if defined(__aarch64__)
  asm("" : "+w"(v));
#else
  asm("" : "+v"(v));
#endif
  return v;
}

// Calls f<n>() with 1 <= n <= N.
template <int N, class F>
FOVEA_INLINE void with_count(int n, F&& f) {
  if constexpr (N > 1)
    if (n < N) return with_count<N - 1>(n, f);
  f.template operator()<N>();
}

// Of every 16 bytes of both vectors, elements interleaved: a0 b0 a1 b1 (kHigh 0) or a2 b2 a3 b3 (1) of floats, a0 b0 or a1 b1 of doubles.
template <int kHigh, class V, int... I>
FOVEA_INLINE V interleave_quads(V a, V b, std::integer_sequence<int, I...>) {
  constexpr int n = sizeof...(I), group = 16 / static_cast<int>(sizeof(a[0]));
  return __builtin_shufflevector(a, b, (I / group * group + I % group / 2 + kHigh * group / 2 + I % 2 * n)...);
}

// out[c][4 q + i] = row i, column 4 q + c of four rows.
FOVEA_INLINE void turn_quads(const vf (&rows)[4], vf* out) {
  typedef double pairs __attribute__((vector_size(kVectorBytes)));
  auto low = []<class V>(V a, V b) { return interleave_quads<0>(a, b, std::make_integer_sequence<int, sizeof(V) / sizeof(a[0])>{}); };
  auto high = []<class V>(V a, V b) { return interleave_quads<1>(a, b, std::make_integer_sequence<int, sizeof(V) / sizeof(a[0])>{}); };
  const pairs a = reinterpret_cast<pairs>(low(rows[0], rows[1])), b = reinterpret_cast<pairs>(low(rows[2], rows[3]));
  const pairs c = reinterpret_cast<pairs>(high(rows[0], rows[1])), d = reinterpret_cast<pairs>(high(rows[2], rows[3]));
  out[0] = reinterpret_cast<vf>(low(a, b)), out[1] = reinterpret_cast<vf>(high(a, b));
  out[2] = reinterpret_cast<vf>(low(c, d)), out[3] = reinterpret_cast<vf>(high(c, d));
}

// v[i] lane j = row(j)[i], for kLanes rows of kLanes floats.
template <class Row>
FOVEA_INLINE void load_turned(Row&& row, vf (&v)[kLanes]) {
#if defined(__AVX512F__)
  // Whole rows are loaded: a quarter of the loads, which wait for the cache more than shuffles do.
  vf quads[kLanes];
  FOVEA_UNROLL
  for (int i = 0; i < kLanes; i += 4) turn_quads({load(row(i)), load(row(i + 1)), load(row(i + 2)), load(row(i + 3))}, quads + i);
  FOVEA_UNROLL
  for (int c = 0; c < 4; c++) {
    const vf even0 = _mm512_shuffle_f32x4(quads[c], quads[4 + c], 0x88), odd0 = _mm512_shuffle_f32x4(quads[c], quads[4 + c], 0xdd);
    const vf even1 = _mm512_shuffle_f32x4(quads[8 + c], quads[12 + c], 0x88),
             odd1 = _mm512_shuffle_f32x4(quads[8 + c], quads[12 + c], 0xdd);
    v[c] = _mm512_shuffle_f32x4(even0, even1, 0x88), v[8 + c] = _mm512_shuffle_f32x4(even0, even1, 0xdd);
    v[4 + c] = _mm512_shuffle_f32x4(odd0, odd1, 0x88), v[12 + c] = _mm512_shuffle_f32x4(odd0, odd1, 0xdd);
  }
#else
  // Rows are put together from pieces of four, which the load ports do, so that only squares of four are turned by shuffles.
  typedef float quad __attribute__((vector_size(16)));
  typedef float quad_unaligned __attribute__((vector_size(16), aligned(4), may_alias));
  auto piece = [&](int j, int i) -> quad { return *reinterpret_cast<const quad_unaligned*>(row(j) + i); };
  FOVEA_UNROLL
  for (int i = 0; i < kLanes; i += 4) {
    vf part[4];
    FOVEA_UNROLL
    for (int j = 0; j < 4; j++) {
#if defined(__AVX2__)
      part[j] = _mm256_insertf128_ps(_mm256_castps128_ps256(piece(j, i)), piece(j + 4, i), 1);
#else
      part[j] = piece(j, i);
#endif
    }
    turn_quads(part, v + i);
  }
#endif
}

// to[d * pitch + lane] = factor * rows[lane][d * step] for d < dim.
__attribute__((noinline)) void pack_lanes(DType dtype, const char* const* rows, int64_t step, int64_t dim, float factor, float* to,
                                          int64_t pitch) {
  vf v[kLanes];
  int64_t d0 = 0;
  if (dtype == DType::F32 && step == 1)
    for (; d0 + kLanes <= dim; d0 += kLanes) {
      load_turned([&](int j) { return reinterpret_cast<const float*>(rows[j]) + d0; }, v);
      FOVEA_UNROLL
      for (int i = 0; i < kLanes; i++) store(to + (d0 + i) * pitch, v[i] * factor);
    }
  alignas(64) float tile[kLanes][kLanes];
  for (; d0 < dim; d0 += kLanes) {
    const int n = static_cast<int>(least(dim - d0, kLanes));
    for (int i = 0; i < kLanes; i++) widen(dtype, rows[i] + d0 * step * element_bytes(dtype), step, n, tile[i]);
    load_turned([&](int j) { return tile[j]; }, v);
    FOVEA_UNROLL
    for (int i = 0; i < kLanes; i++)
      if (i < n) store(to + (d0 + i) * pitch, v[i] * factor);
  }
}

}  // namespace
}  // namespace fovea::cpu
