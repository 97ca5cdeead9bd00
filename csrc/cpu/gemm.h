// The register-blocked core of every matrix product: a micro-kernel and the packing of its operands.
//
// The accumulator tile is kGemmRows x kGemmVectors registers. Per step of k it loads one packed row of the B panel (kGemmVectors vectors)
// and broadcasts one scalar of each A row; rows of A are read where they lie when k is their unit stride, so A costs nothing to prepare. A
// step is 4 bytes: one f32, or a pair of bf16 for vdpbf16ps; other types become f32 while packed.
//   A rows:  row i at a + i * stride bytes, steps contiguous
//   B panel: [steps][vectors * kLanes] steps, lanes beyond the matrix zero
// A panel of 1024 steps streams from the L2 cache at 16 bytes a cycle, which hides under the arithmetic; keeping the accumulators in
// registers that long is worth more than an L1-sized panel. Each call asks for its share of the panel that comes next: left to the
// processor's own prefetching, a tenth of the time went into waiting for it.
#pragma once

#include <cstring>
#include <type_traits>
#include <utility>

#include "cpu/amx.h"
#include "cpu/simd.h"

namespace fovea::cpu {
namespace {

#if defined(__aarch64__)
constexpr int kGemmRows = 8, kGemmVectors = 3;
#else
constexpr int kGemmRows = kLanes == 16 ? 8 : 6, kGemmVectors = kLanes == 16 ? 3 : 2;
#endif
constexpr int kPanelLanes = kGemmVectors * kLanes;

// bf16 for the tile unit.
struct TileBf16 : bf16 {};

// bf16 goes to the dot-product instruction or the tile unit in pairs; everything else is an f32 step.
template <class T>
constexpr bool kTiled = std::is_same_v<T, TileBf16>;
template <class T>
constexpr bool kPairs = kTiled<T> || (std::is_same_v<T, bf16> && kHasBf16Dot);
template <class T>
constexpr int kBlockRows = kTiled<T> ? 2 * kTileRows : kGemmRows;  // of one call of the micro-kernel
template <class T>
constexpr int kStepElements = kPairs<T> ? 2 : 1;

constexpr int kAheadSteps = 4, kLineBytes = 64;  // of a line asked for ahead

// --- micro-kernel ---

struct MicroTile {
  const char* a;
  int64_t a_stride;  // bytes between rows
  const char* b;
  int64_t b_stride;  // bytes between steps
  int64_t steps;
  float* c;
  int64_t c_stride;   // elements between rows
  int columns;        // of c that exist, in the last vector of the tile
  bool accumulate;    // continue from c, else from zero
  const char* ahead;  // lines of B that a later call will read, a line for every kAheadSteps steps; may be null
};

template <bool pairs>
FOVEA_INLINE vf multiply_add(const char* a, vf b, vf c) {
  if constexpr (pairs) {
#if defined(__AVX512BF16__)
    int32_t pair;
    std::memcpy(&pair, a, 4);
    return _mm512_dpbf16_ps(c, reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair)), reinterpret_cast<__m512bh>(b));
#else
    return c;
#endif
  } else {
    float x;
    std::memcpy(&x, a, 4);
    return fma(set1(x), b, c);
  }
}

template <bool pairs, int rows, int vectors>
void micro_kernel(const MicroTile& t) {
  vf acc[rows][vectors];
  const char* a[rows];
  const int last = t.columns - (vectors - 1) * kLanes;
  FOVEA_UNROLL
  for (int i = 0; i < rows; i++) a[i] = t.a + i * t.a_stride;
  FOVEA_UNROLL
  for (int i = 0; i < rows; i++) FOVEA_UNROLL
  for (int z = 0; z < vectors; z++) {
    const float* c = t.c + i * t.c_stride + z * kLanes;
    acc[i][z] = !t.accumulate ? zero() : z < vectors - 1 || last == kLanes ? load(c) : load_first(c, last);
  }
  const char* b = t.b;
  auto step = [&](int64_t k) __attribute__((always_inline)) {
    vf panel[vectors];
    FOVEA_UNROLL
    for (int z = 0; z < vectors; z++) panel[z] = load(reinterpret_cast<const float*>(b) + z * kLanes);
    FOVEA_UNROLL
    for (int i = 0; i < rows; i++) FOVEA_UNROLL
    for (int z = 0; z < vectors; z++) acc[i][z] = multiply_add<pairs>(a[i] + 4 * k, panel[z], acc[i][z]);
    b += t.b_stride;
  };
  int64_t k = 0;
  if (const char* ahead = t.ahead)
    for (; k + kAheadSteps <= t.steps; k += kAheadSteps, ahead += kLineBytes) {
      __builtin_prefetch(ahead, 0, 2);
      FOVEA_UNROLL
      for (int u = 0; u < kAheadSteps; u++) step(k + u);
    }
  for (; k < t.steps; k++) step(k);
  FOVEA_UNROLL
  for (int i = 0; i < rows; i++) FOVEA_UNROLL
  for (int z = 0; z < vectors; z++) {
    float* c = t.c + i * t.c_stride + z * kLanes;
    if (z < vectors - 1 || last == kLanes) store(c, acc[i][z]);
    else store_first(c, acc[i][z], last);
  }
}

using MicroKernel = void (*)(const MicroTile&);

template <bool pairs, int... I>
MicroKernel micro_kernel_at(int index, std::integer_sequence<int, I...>) {
  static constexpr MicroKernel table[] = {micro_kernel<pairs, I / kGemmVectors + 1, I % kGemmVectors + 1>...};
  return table[index];
}

template <bool pairs>
MicroKernel micro_kernel_for(int rows, int vectors) {
  return micro_kernel_at<pairs>((rows - 1) * kGemmVectors + vectors - 1, std::make_integer_sequence<int, kGemmRows * kGemmVectors>{});
}

// --- panels of the columns ---

// Panels are kGemmVectors wide; a remainder of one vector borrows from its neighbour (48 + 16 becomes 32 + 32), because a tile one vector
// wide has too few accumulators to hide the latency of the multiply-add.
struct Panels {
  int64_t columns, whole, count;

  explicit Panels(int64_t n) : columns(n), whole(n / kPanelLanes), count((n + kPanelLanes - 1) / kPanelLanes) {
    if (kGemmVectors == 3 && whole > 0 && whole < count && n % kPanelLanes <= kLanes) whole--;
  }
  int vectors(int64_t panel) const {
    if (panel < whole) return kGemmVectors;
    if (count - whole == 2) return 2;
    return static_cast<int>((columns - whole * kPanelLanes + kLanes - 1) / kLanes);
  }
  int64_t start(int64_t panel) const { return panel <= whole ? panel * kPanelLanes : whole * kPanelLanes + (panel - whole) * 2 * kLanes; }
  int width(int64_t panel) const {  // columns that exist
    int64_t rest = columns - start(panel), most = vectors(panel) * kLanes;
    return static_cast<int>(rest < most ? rest : most);
  }
};

// --- transposing from memory ---

template <int n, int... I>
FOVEA_INLINE void interleave_in_lanes(vf a, vf b, vf& low, vf& high, std::integer_sequence<int, I...>) {
  // Runs of n elements alternate, within each 16 bytes: n = 1 is unpcklps and unpckhps, n = 2 unpcklpd and unpckhpd.
  low = __builtin_shufflevector(a, b, (I / 4 * 4 + (n == 1 ? I % 4 / 2 : I % 2) + (n == 1 ? I % 2 : I % 4 / 2) * kLanes)...);
  high = __builtin_shufflevector(a, b, (I / 4 * 4 + 2 + (n == 1 ? I % 4 / 2 : I % 2) + (n == 1 ? I % 2 : I % 4 / 2) * kLanes)...);
}

// Row i of the result's 16-byte piece l is the 16 bytes at base + (4 l + i) * stride.
FOVEA_INLINE vf load_pieces(const char* base, int64_t stride) {
#if defined(__AVX512F__)
  // Masked broadcasts place the pieces while loading, where shuffles would compete with those of the transpose.
  auto piece = [&](int l) { return _mm_loadu_ps(reinterpret_cast<const float*>(base + 4 * l * stride)); };
  __m512 v = _mm512_maskz_broadcast_f32x4(0xffff, piece(0));
  v = _mm512_mask_broadcast_f32x4(v, 0x00f0, piece(1));
  v = _mm512_mask_broadcast_f32x4(v, 0x0f00, piece(2));
  return _mm512_mask_broadcast_f32x4(v, 0xf000, piece(3));
#else
  vf v;
  FOVEA_UNROLL
  for (int l = 0; l < kLanes / 4; l++) std::memcpy(reinterpret_cast<char*>(&v) + 16 * l, base + 4 * l * stride, 16);
  return v;
#endif
}

// square[s][j] = 4-byte element s of row j, for kLanes rows `stride` bytes apart.
FOVEA_INLINE void load_transposed(const char* base, int64_t stride, vf (&square)[kLanes]) {
  using Indices = std::make_integer_sequence<int, kLanes>;
  FOVEA_UNROLL
  for (int c = 0; c < kLanes; c += 4) {
    vf r[4], s[4];
    FOVEA_UNROLL
    for (int i = 0; i < 4; i++) r[i] = load_pieces(base + i * stride + 4 * c, stride);
    interleave_in_lanes<1>(r[0], r[1], s[0], s[1], Indices{});
    interleave_in_lanes<1>(r[2], r[3], s[2], s[3], Indices{});
    interleave_in_lanes<2>(s[0], s[2], square[c], square[c + 1], Indices{});
    interleave_in_lanes<2>(s[1], s[3], square[c + 2], square[c + 3], Indices{});
  }
}

// --- packing ---

constexpr int64_t kPrefetchBytes = 512;

// Elements 2s and 2s + 1 of kLanes lanes, held as pairs, as two vectors of f32.
template <class T>
FOVEA_INLINE void widen_pair(vf pairs, vf& first, vf& second) {
  vu bits = reinterpret_cast<vu>(pairs);
  if constexpr (std::is_same_v<T, bf16>) {
    first = reinterpret_cast<vf>(bits << 16);
    second = reinterpret_cast<vf>(bits & 0xffff0000u);
  } else {
    f16 halves[kLanes];
    *reinterpret_cast<vh_unaligned*>(halves) = __builtin_convertvector(bits, vh);
    first = load(halves);
    *reinterpret_cast<vh_unaligned*>(halves) = __builtin_convertvector(bits >> 16, vh);
    second = load(halves);
  }
}

// A matrix seen as lanes (rows of A or columns of B) by elements of k.
template <class T>
struct Lanes {
  const T* data;
  int64_t lane_stride, k_stride, k;

  int64_t steps() const { return (k + kStepElements<T> - 1) / kStepElements<T>; }
  int64_t whole_steps() const { return k / kStepElements<T>; }

  FOVEA_INLINE float step(int64_t lane, int64_t i) const {
    const T* p = data + lane * lane_stride + i * kStepElements<T> * k_stride;
    if constexpr (kPairs<T>) {
      uint32_t second = 2 * i + 1 < k ? p[k_stride].bits : 0;
      return __builtin_bit_cast(float, second << 16 | p->bits);
    } else {
      return to_float(*p);
    }
  }
  // kLanes steps of one lane; needs k_stride 1.
  FOVEA_INLINE vf along_k(int64_t lane, int64_t i) const {
    const T* p = data + lane * lane_stride + i * kStepElements<T>;
    if constexpr (kPairs<T>) return load(reinterpret_cast<const float*>(p));
    else return load(p);
  }
  // One step of kLanes lanes; needs lane_stride 1 and, for pairs, a whole step.
  FOVEA_INLINE vf along_lanes(int64_t lane, int64_t i) const {
    const T* p = data + lane + i * kStepElements<T> * k_stride;
    if constexpr (kPairs<T>) {
      vh first = *reinterpret_cast<const vh_unaligned*>(p), second = *reinterpret_cast<const vh_unaligned*>(p + k_stride);
      return reinterpret_cast<vf>(__builtin_convertvector(first, vu) | __builtin_convertvector(second, vu) << 16);
    } else {
      return load(p);
    }
  }
};

template <class T, int vectors>
void pack_along_lanes(const Lanes<T>& src, int64_t lane, int64_t begin, int64_t end, float* dst, int pitch) {
  for (int64_t i = begin; i < end; i++, dst += pitch) {
    FOVEA_UNROLL
    for (int z = 0; z < vectors; z++) store(dst + z * kLanes, src.along_lanes(lane + z * kLanes, i));
  }
}

// kLanes lanes of contiguous k, steps [begin, end) in whole squares; returns where it stopped.
template <class T>
int64_t pack_along_k(const Lanes<T>& src, int64_t lane, int64_t begin, int64_t end, float* dst, int pitch) {
  constexpr bool widens = sizeof(T) == 2 && !kPairs<T>;
  constexpr int steps = widens ? 2 * kLanes : kLanes;
  const int64_t stride = src.lane_stride * static_cast<int64_t>(sizeof(T));
  int64_t i = begin;
  for (; i + steps <= end; i += steps, dst += steps * pitch) {
    const char* base = reinterpret_cast<const char*>(src.data + lane * src.lane_stride + i * kStepElements<T>);
    FOVEA_UNROLL
    for (int j = 0; j < kLanes; j++) __builtin_prefetch(base + j * stride + kPrefetchBytes);
    vf square[kLanes];
    load_transposed(base, stride, square);
    FOVEA_UNROLL
    for (int s = 0; s < kLanes; s++) {
      if constexpr (widens) {
        vf first, second;
        widen_pair<T>(square[s], first, second);
        store(dst + 2 * s * pitch, first);
        store(dst + (2 * s + 1) * pitch, second);
      } else {
        store(dst + s * pitch, square[s]);
      }
    }
  }
  return i;
}

// Steps [begin, end) of lanes [lane, lane + width) as a B panel of `vectors` vectors.
template <class T>
void pack_panel(const Lanes<T>& src, int64_t lane, int width, int vectors, int64_t begin, int64_t end, float* dst) {
  const int pitch = vectors * kLanes, whole = width / kLanes;
  const int64_t whole_end = end < src.whole_steps() ? end : src.whole_steps();
  int done_vectors = 0;
  int64_t done = begin;
  if (src.lane_stride == 1) {
    if (whole == 3) pack_along_lanes<T, 3>(src, lane, begin, whole_end, dst, pitch);
    else if (whole == 2) pack_along_lanes<T, 2>(src, lane, begin, whole_end, dst, pitch);
    else if (whole == 1) pack_along_lanes<T, 1>(src, lane, begin, whole_end, dst, pitch);
    done = whole_end;
    done_vectors = whole;
  } else if (src.k_stride == 1) {
    for (int z = 0; z < whole; z++) done = pack_along_k(src, lane + z * kLanes, begin, whole_end, dst + z * kLanes, pitch);
    done_vectors = whole;
  }
  if (done == end && done_vectors == vectors) return;
  for (int64_t i = begin; i < end; i++)
    for (int j = i < done ? done_vectors * kLanes : 0; j < pitch; j++)
      dst[(i - begin) * pitch + j] = j < width ? src.step(lane + j, i) : 0.f;
}

// Steps [begin, end) of lanes [lane, lane + count) as A rows, `pitch` steps apart.
template <class T>
void pack_rows(const Lanes<T>& src, int64_t lane, int64_t count, int64_t begin, int64_t end, float* dst, int64_t pitch) {
  const int64_t whole_end = end < src.whole_steps() ? end : src.whole_steps();
  const int64_t whole = begin + (whole_end - begin) / kLanes * kLanes;
  const int64_t turned = src.k_stride != 1 && src.lane_stride == 1 ? count / kLanes * kLanes : 0;
  for (int64_t j = 0; j < turned; j += kLanes)
    for (int64_t i = begin; i < whole; i += kLanes) {
      vf square[kLanes];
      if constexpr (std::is_same_v<T, float>) {
        load_transposed(reinterpret_cast<const char*>(src.data + lane + j + i * src.k_stride), src.k_stride * 4, square);
      } else {
        FOVEA_UNROLL
        for (int s = 0; s < kLanes; s++) square[s] = src.along_lanes(lane + j, i + s);
        transpose_square(square);
      }
      FOVEA_UNROLL
      for (int s = 0; s < kLanes; s++) store(dst + (j + s) * pitch + i - begin, square[s]);
    }
  for (int64_t j = 0; j < count; j++) {
    int64_t i = j < turned ? whole : begin;
    if (src.k_stride == 1)
      for (; i < whole; i += kLanes) store(dst + j * pitch + i - begin, src.along_k(lane + j, i));
    for (; i < end; i++) dst[j * pitch + i - begin] = src.step(lane + j, i);
  }
}

// Whether the micro-kernel can read rows of this matrix where they lie.
template <class T>
bool rows_in_place(const Lanes<T>& src) {
  if (src.k_stride != 1 && src.k > 1) return false;
  return kPairs<T> ? src.k % 2 == 0 : std::is_same_v<T, float>;
}

}  // namespace
}  // namespace fovea::cpu
