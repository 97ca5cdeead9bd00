// What each reduction accumulates: block() takes up to kBlock consecutive elements, merge() takes the state of the elements that follow,
// finish() gives the result.
//
// Inside a block, element i belongs to slot i modulo (4 x lanes); slots are combined by halves. Block results are combined in order, in
// double precision (64-bit integers wrap around). So f32 rounding happens at most kBlock / (4 x lanes) + log2(4 x lanes) times per
// element, however long the row is.
#pragma once

#include <cmath>
#include <limits>

#include "cpu/blocks.h"
#include "cpu/reduce.h"

namespace fovea::cpu {
namespace {

constexpr int kGroups = 4;

// One register of T: f32, f64 or i64.
template <class T>
struct Register {
  static constexpr int kCount = kVectorBytes / static_cast<int>(sizeof(T));
  typedef T type __attribute__((vector_size(kVectorBytes)));
  typedef T unaligned __attribute__((vector_size(kVectorBytes), aligned(sizeof(T)), may_alias));
};
template <class T>
using V = typename Register<T>::type;

template <class T>
FOVEA_INLINE V<T> load_register(const T* p) {
  return *reinterpret_cast<const typename Register<T>::unaligned*>(p);
}

template <class T>
FOVEA_INLINE V<T> splat(T x) {
  return x - V<T>{};
}

// The slots of one block folded by `step` from `start`, then by halves with `join`; lanes past the end hold `padding`.
template <class T, class Step, class Join>
FOVEA_INLINE T fold_block(const T* x, int64_t n, T start, T padding, Step step, Join join) {
  constexpr int L = Register<T>::kCount;
  V<T> acc[kGroups];
  FOVEA_UNROLL
  for (int g = 0; g < kGroups; g++) acc[g] = splat(start);
  int64_t i = 0;
  for (; i + kGroups * L <= n; i += kGroups * L) FOVEA_UNROLL
  for (int g = 0; g < kGroups; g++) acc[g] = step(acc[g], load_register(x + i + g * L));
  if (i < n) {
    T rest[kGroups * L];
    for (int j = 0; j < kGroups * L; j++) rest[j] = i + j < n ? x[i + j] : padding;
    FOVEA_UNROLL
    for (int g = 0; g < kGroups; g++) acc[g] = step(acc[g], load_register(rest + g * L));
  }
  T part[L];
  *reinterpret_cast<typename Register<T>::unaligned*>(part) = join(join(acc[0], acc[1]), join(acc[2], acc[3]));
  FOVEA_UNROLL
  for (int width = L / 2; width > 0; width /= 2) FOVEA_UNROLL
  for (int j = 0; j < width; j++) part[j] = join(part[j], part[j + width]);
  return part[0];
}

struct Plus {
  template <class X>
  FOVEA_INLINE X operator()(X a, X b) const {
    return a + b;
  }
};
// NaN wins.
struct Greater {
  template <class X>
  FOVEA_INLINE X operator()(X a, X b) const {
    return ((b > a) | (b != b)) ? b : a;
  }
};
struct Less {
  template <class X>
  FOVEA_INLINE X operator()(X a, X b) const {
    return ((b < a) | (b != b)) ? b : a;
  }
};

template <class T>
constexpr bool kIsInteger = __is_same(T, int64_t);
template <class T>
struct WideOf {
  using type = double;
};
template <>
struct WideOf<int64_t> {
  using type = uint64_t;
};
template <class T>
using Wide = typename WideOf<T>::type;

template <class T>
struct SumState {
  Wide<T> total = 0;
  void block(const T* x, int64_t n, int64_t) { total += static_cast<Wide<T>>(block_sum(x, n)); }
  void merge(const SumState& next) { total += next.total; }
  auto finish(const ReduceParams&, int64_t) const { return total; }

  FOVEA_INLINE static T block_sum(const T* x, int64_t n) {
    if constexpr (kIsInteger<T>) {
      using U = uint64_t;
      return static_cast<T>(fold_block<U>(reinterpret_cast<const U*>(x), n, 0, 0, Plus(), Plus()));
    } else {
      return fold_block<T>(x, n, 0, 0, Plus(), Plus());
    }
  }
};

template <class T>
struct MeanState : SumState<T> {
  double finish(const ReduceParams&, int64_t count) const { return static_cast<double>(this->total) / static_cast<double>(count); }
};

template <class T>
struct ProdState {
  Wide<T> product = 1;
  void block(const T* x, int64_t n, int64_t) {
    Wide<T> part[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    for (int64_t i = 0; i < n; i++) part[i % 8] *= static_cast<Wide<T>>(x[i]);
    for (int width = 4; width > 0; width /= 2)
      for (int j = 0; j < width; j++) part[j] *= part[j + width];
    product *= part[0];
  }
  void merge(const ProdState& next) { product *= next.product; }
  auto finish(const ReduceParams&, int64_t) const { return product; }
};

// The extreme value in the order of `Pick`, NaN before all others.
template <class T, class Pick, bool kLargest>
struct ExtremeState {
  static constexpr T worst() {
    if constexpr (kIsInteger<T>) return kLargest ? INT64_MIN : INT64_MAX;
    else return kLargest ? -std::numeric_limits<T>::infinity() : std::numeric_limits<T>::infinity();
  }
  FOVEA_INLINE static T best_of(const T* x, int64_t n) { return fold_block<T>(x, n, worst(), worst(), Pick(), Pick()); }

  T best = worst();
  void block(const T* x, int64_t n, int64_t) { best = Pick()(best, best_of(x, n)); }
  void merge(const ExtremeState& next) { best = Pick()(best, next.best); }
  auto finish(const ReduceParams&, int64_t) const {
    if constexpr (kIsInteger<T>) return best;
    else return static_cast<double>(best);
  }
};

template <class T, class Pick, bool kLargest>
struct ArgState {
  using Extreme = ExtremeState<T, Pick, kLargest>;
  T best = Extreme::worst();
  int64_t index = -1;
  // Whether x comes strictly before the best so far; an earlier NaN stays.
  bool improves(T x) const {
    if (index < 0) return true;
    return best == best && (x != x || (kLargest ? x > best : x < best));
  }
  void block(const T* x, int64_t n, int64_t first) {
    T candidate = Extreme::best_of(x, n);
    if (!improves(candidate)) return;
    best = candidate;
    int64_t i = 0;
    while (!(x[i] == candidate || (candidate != candidate && x[i] != x[i]))) i++;
    index = first + i;
  }
  void merge(const ArgState& next) {
    if (improves(next.best)) *this = next;
  }
  int64_t finish(const ReduceParams&, int64_t) const { return index; }
};

template <class T, bool kAll>
struct TruthState {
  bool value = kAll;
  void block(const T* x, int64_t n, int64_t) {
    int64_t nonzero = 0;
    for (int64_t i = 0; i < n; i++) nonzero += x[i] != 0;
    if (kAll ? nonzero < n : nonzero > 0) value = !kAll;
  }
  void merge(const TruthState& next) { value = kAll ? value && next.value : value || next.value; }
  int64_t finish(const ReduceParams&, int64_t) const { return value; }
};

// Count, mean and sum of squared deviations of each block, combined by Chan, Golub and LeVeque 1979 ("Updating Formulae and a Pairwise
// Algorithm for Computing Sample Variances").
template <class T>
struct VarState {
  double count = 0, mean = 0, deviation = 0;
  void block(const T* x, int64_t n, int64_t) {
    VarState next;
    next.count = static_cast<double>(n);
    const T center = static_cast<T>(static_cast<double>(SumState<T>::block_sum(x, n)) / next.count);
    const V<T> centers = splat(center);
    auto shifts = [centers](V<T> acc, V<T> v) { return acc + (v - centers); };
    auto squares = [centers](V<T> acc, V<T> v) { return acc + (v - centers) * (v - centers); };
    // The center is the mean but for rounding: what the shifts add up to corrects both results.
    const double shift = static_cast<double>(fold_block<T>(x, n, 0, center, shifts, Plus()));
    next.mean = static_cast<double>(center) + shift / next.count;
    next.deviation = static_cast<double>(fold_block<T>(x, n, 0, center, squares, Plus())) - shift * shift / next.count;
    merge(next);
  }
  void merge(const VarState& next) {
    if (count == 0) {
      *this = next;
      return;
    }
    const double total = count + next.count, delta = next.mean - mean;
    mean += delta * (next.count / total);
    deviation += next.deviation + delta * delta * (count * next.count / total);
    count = total;
  }
  double finish(const ReduceParams& p, int64_t) const {
    const double divisor = count - p.correction;
    const double positive = deviation > 0 || deviation != deviation ? deviation : 0;
    return positive / (divisor > 0 ? divisor : 0);
  }
};

template <class T>
struct NormState {
  double squares = 0;
  void block(const T* x, int64_t n, int64_t) {
    squares += static_cast<double>(fold_block<T>(
        x, n, 0, 0, [](V<T> acc, V<T> v) { return acc + v * v; }, Plus()));
  }
  void merge(const NormState& next) { squares += next.squares; }
  double finish(const ReduceParams&, int64_t) const { return std::sqrt(squares); }
};

template <class T>
struct LogSumExpState {
  using Extreme = ExtremeState<T, Greater, true>;
  double best = -std::numeric_limits<double>::infinity(), total = 0;  // total of exp(x - best)
  void block(const T* x, int64_t n, int64_t) {
    LogSumExpState next;
    const T top = Extreme::best_of(x, n);
    next.best = static_cast<double>(top);
    if (std::isfinite(next.best)) {
      alignas(64) T e[kBlock];
      if constexpr (__is_same(T, float)) {
        const vf tops = set1(top);
        int64_t i = 0;
        for (; i + kLanes <= n; i += kLanes) store(e + i, exp(load(x + i) - tops));
        if (i < n) store(e + i, exp(load_first(x + i, static_cast<int>(n - i)) - tops));
      } else {
        for (int64_t i = 0; i < n; i++) e[i] = std::exp(x[i] - top);
      }
      next.total = static_cast<double>(SumState<T>::block_sum(e, n));
    }
    merge(next);
  }
  void merge(const LogSumExpState& next) {
    const double top = Greater()(best, next.best);
    if (std::isfinite(top)) total = total * std::exp(best - top) + next.total * std::exp(next.best - top);
    best = top;
  }
  // All -inf gives -inf, any +inf gives +inf, any NaN gives NaN: then best is the answer.
  double finish(const ReduceParams&, int64_t) const { return std::isfinite(best) ? best + std::log(total) : best; }
};

}  // namespace
}  // namespace fovea::cpu
