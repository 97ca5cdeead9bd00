// What kernels over f32, bf16 and f16 share: run-time dtype to compile-time type, and loads and stores of a partial register.
#pragma once

#include <utility>

#include "cpu/simd.h"

namespace fovea::cpu {
namespace {

template <class T>
struct TypeTag {
  using type = T;
};

// Calls f(TypeTag<T>{}); the caller has checked that `dtype` is one of the three.
template <class F>
FOVEA_INLINE auto with_float(DType dtype, F&& f) {
  switch (dtype) {
    case DType::BF16: return f(TypeTag<bf16>{});
    case DType::F16: return f(TypeTag<f16>{});
    default: return f(TypeTag<float>{});
  }
}

// The first n lanes (1 <= n <= kLanes), the others 0; touches nothing beyond.
template <class T>
FOVEA_INLINE vf load_part(const T* p, int n) {
  if constexpr (sizeof(T) == 4) {
    return load_first(p, n);
  } else {
    if (n == kLanes) return load(p);
    float lanes[kLanes] = {};
    for (int i = 0; i < n; i++) lanes[i] = to_float(p[i]);
    return load(lanes);
  }
}

template <class T>
FOVEA_INLINE void store_part(T* p, vf v, int n) {
  if constexpr (sizeof(T) == 4) {
    store_first(p, v, n);
  } else {
    if (n == kLanes) return store(p, v);
    T lanes[kLanes];
    store(lanes, v);
    for (int i = 0; i < n; i++) p[i] = lanes[i];
  }
}

constexpr auto kLaneSequence = std::make_integer_sequence<int, kLanes>{};

// low, high = x0 y0 x1 y1 ...
template <class V, int... I>
FOVEA_INLINE void weave(V x, V y, V& low, V& high, std::integer_sequence<int, I...>) {
  constexpr int half = kLanes / 2;
  low = __builtin_shufflevector(x, y, (I / 2 + I % 2 * kLanes)...);
  high = __builtin_shufflevector(x, y, (I / 2 + half + I % 2 * kLanes)...);
}

// body(offset, n) for [0, count) in steps of a register; n is the constant kLanes in all but the last step.
template <class Body>
FOVEA_INLINE void for_lanes(int64_t count, Body&& body) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) body(i, kLanes);
  if (i < count) body(i, static_cast<int>(count - i));
}

}  // namespace
}  // namespace fovea::cpu
