// What each reduction accumulates. step() takes one element with its index, merge() another state, finish() gives the result.
//
// Sums run in f64 (64-bit integers wrap around), so that their order matters little; it is fixed all the same.
#pragma once

#include <type_traits>

#include "cuda/reduce_params.h"
#include "elements.cuh"

namespace fovea::cuda {

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

__device__ __forceinline__ double infinity() { return __longlong_as_double(0x7ff0000000000000ll); }

template <class T>
struct SumState {
  Wide<T> total = 0;
  __device__ void step(T x, int64_t) { total += static_cast<Wide<T>>(x); }
  __device__ void merge(const SumState& o) { total += o.total; }
  __device__ auto finish(const ReduceParams&, int64_t) const { return total; }
};

template <class T>
struct MeanState : SumState<T> {
  __device__ double finish(const ReduceParams&, int64_t count) const {
    return static_cast<double>(this->total) / static_cast<double>(count);
  }
};

template <class T>
struct ProdState {
  Wide<T> product = 1;
  __device__ void step(T x, int64_t) { product *= static_cast<Wide<T>>(x); }
  __device__ void merge(const ProdState& o) { product *= o.product; }
  __device__ auto finish(const ReduceParams&, int64_t) const { return product; }
};

// The largest or smallest and where it is first. NaN comes before all others. (Values of 8 bytes: states have no padding.)
template <class T, bool kLargest, bool kIndex>
struct ExtremeState {
  using Value = std::conditional_t<kIsInteger<T>, int64_t, double>;
  Value best = 0;
  int64_t index = -1;
  __device__ void take(Value x, int64_t i) {
    if (i < 0) return;
    const bool nan = x != x, had_nan = best != best;
    const bool better = nan != had_nan ? nan : !nan && (kLargest ? x > best : x < best);
    const bool equal = (nan && had_nan) || x == best;
    if (index < 0 || better || (equal && i < index)) {
      best = x;
      index = i;
    }
  }
  __device__ void step(T x, int64_t i) { take(static_cast<Value>(x), i); }
  __device__ void merge(const ExtremeState& o) { take(o.best, o.index); }
  __device__ auto finish(const ReduceParams&, int64_t) const {
    if constexpr (kIndex) return index;
    else return best;
  }
};

template <class T, bool kAll>
struct TruthState {
  int64_t value = kAll;
  __device__ void step(T x, int64_t) { value = kAll ? value && x != 0 : value || x != 0; }
  __device__ void merge(const TruthState& o) { value = kAll ? value && o.value : value || o.value; }
  __device__ int64_t finish(const ReduceParams&, int64_t) const { return value; }
};

// Welford 1962, combined by Chan, Golub and LeVeque 1979.
template <class T>
struct VarState {
  double count = 0, mean = 0, deviation = 0;
  __device__ void step(T x, int64_t) {
    const double delta = static_cast<double>(x) - mean;
    count += 1;
    mean += delta / count;
    deviation += delta * (static_cast<double>(x) - mean);
  }
  __device__ void merge(const VarState& o) {
    if (o.count == 0) return;
    const double total = count + o.count, delta = o.mean - mean;
    mean += delta * (o.count / total);
    deviation += o.deviation + delta * delta * (count * o.count / total);
    count = total;
  }
  __device__ double finish(const ReduceParams& p, int64_t) const {
    const double divisor = count - p.correction, positive = deviation > 0 || deviation != deviation ? deviation : 0;
    return positive / (divisor > 0 ? divisor : 0);
  }
};

template <class T>
struct NormState {
  double squares = 0;
  __device__ void step(T x, int64_t) { squares += static_cast<double>(x) * static_cast<double>(x); }
  __device__ void merge(const NormState& o) { squares += o.squares; }
  __device__ double finish(const ReduceParams&, int64_t) const { return sqrt(squares); }
};

template <class T>
struct LogSumExpState {
  double best = -infinity(), total = 0;  // total of exp(x - best)
  __device__ void merge(double other, double weight) {
    const double top = other > best || other != other ? other : best;
    if (fabs(top) < infinity()) total = total * difference(best, top) + weight * difference(other, top);
    best = top;
  }
  __device__ void step(T x, int64_t) { merge(static_cast<double>(x), 1); }
  __device__ void merge(const LogSumExpState& o) { merge(o.best, o.total); }
  // All -inf gives -inf, any +inf gives +inf, any NaN gives NaN: then best is the answer.
  __device__ double finish(const ReduceParams&, int64_t) const { return fabs(best) < infinity() ? best + log(total) : best; }

 private:
  // exp(x - top); f32 is enough for f32 inputs.
  static __device__ double difference(double x, double top) {
    if constexpr (__is_same(T, float)) return static_cast<double>(expf(static_cast<float>(x - top)));
    else return exp(x - top);
  }
};

template <class T, class Run>
__device__ __forceinline__ void with_state(ReduceOp op, Run&& run) {
  switch (op) {
    case ReduceOp::Sum: return run(SumState<T>());
    case ReduceOp::Prod: return run(ProdState<T>());
    case ReduceOp::Max: return run(ExtremeState<T, true, false>());
    case ReduceOp::Min: return run(ExtremeState<T, false, false>());
    case ReduceOp::ArgMax: return run(ExtremeState<T, true, true>());
    case ReduceOp::ArgMin: return run(ExtremeState<T, false, true>());
    case ReduceOp::Any: return run(TruthState<T, false>());
    case ReduceOp::All: return run(TruthState<T, true>());
    default: break;
  }
  if constexpr (!kIsInteger<T>) {
    switch (op) {
      case ReduceOp::Mean: return run(MeanState<T>());
      case ReduceOp::Var: return run(VarState<T>());
      case ReduceOp::Norm: return run(NormState<T>());
      default: return run(LogSumExpState<T>());
    }
  }
}

// The result in the dtype of the output.
template <class R>
__device__ __forceinline__ void store_result(const ReduceParams& p, int64_t i, R x) {
  if constexpr (kIsFloat<R>) {
    if (p.out_dtype == DType::F64) static_cast<double*>(p.out)[i] = static_cast<double>(x);
    else store_as<float>(p.out_dtype, p.out, i, static_cast<float>(x));
  } else {
    store_as<int64_t>(p.out_dtype, p.out, i, static_cast<int64_t>(x));
  }
}

}  // namespace fovea::cuda
