// Unary kernels on dense blocks, forward and backward; the functions themselves are in cpu/unary_math.h.
#include "cpu/elementwise_engine.h"
#include "cpu/unary_math.h"

namespace fovea::cpu {
namespace {

template <class X>
struct Scalars {
  X value[2];
  explicit Scalars(const double* s) : value{constant<X>(s[0]), constant<X>(s[1])} {}
};

template <UnaryOp op>
void forward_f32(const void* const* in, void* out, int64_t n, const double* s) {
  const Scalars<vf> scalars(s);
  const float* x = static_cast<const float*>(in[0]);
  float* y = static_cast<float*>(out);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, apply<op>(load(x + i), scalars.value));
  if (i < n) store_first(y + i, apply<op>(load_first(x + i, static_cast<int>(n - i)), scalars.value), static_cast<int>(n - i));
}

template <UnaryOp op>
void forward_f64(const void* const* in, void* out, int64_t n, const double* s) {
  const double* x = static_cast<const double*>(in[0]);
  double* y = static_cast<double*>(out);
  for (int64_t i = 0; i < n; i++) y[i] = apply<op>(x[i], s);
}

// Integers know the functions that stay among integers; arithmetic wraps around.
template <UnaryOp op, class T>
void forward_integer(const void* const* in, void* out, int64_t n, const double* s) {
  using U = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  const T* x = static_cast<const T*>(in[0]);
  T* y = static_cast<T*>(out);
  auto limit = [](double v) {
    constexpr double beyond = sizeof(T) == 4 ? 0x1p31 : 0x1p63;
    constexpr T highest = static_cast<T>(static_cast<U>(-1) >> 1);
    return v >= beyond ? highest : v < -beyond ? -highest - 1 : static_cast<T>(v);
  };
  const T low = limit(std::ceil(s[0])), high = limit(std::floor(s[1]));
  for (int64_t i = 0; i < n; i++) {
    const T v = x[i];
    if constexpr (op == UnaryOp::Neg) y[i] = static_cast<T>(U(0) - static_cast<U>(v));
    else if constexpr (op == UnaryOp::Abs) y[i] = v < 0 ? static_cast<T>(U(0) - static_cast<U>(v)) : v;
    else if constexpr (op == UnaryOp::Sign) y[i] = (v > 0) - (v < 0);
    else if constexpr (op == UnaryOp::Square) y[i] = static_cast<T>(static_cast<U>(v) * static_cast<U>(v));
    else if constexpr (op == UnaryOp::Relu) y[i] = v < 0 ? 0 : v;
    else if constexpr (op == UnaryOp::Clamp) y[i] = v < low ? low : v > high ? high : v;
    else if constexpr (op == UnaryOp::Not) y[i] = v == 0;
    else y[i] = v;  // Floor, Ceil, Round
  }
}

template <UnaryOp op>
void backward_f32(const void* const* in, void* out, int64_t n, const double* s) {
  const Scalars<vf> scalars(s);
  const float* g = static_cast<const float*>(in[0]);
  const float* v = static_cast<const float*>(in[1]);
  float* r = static_cast<float*>(out);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(r + i, load(g + i) * derivative<op>(load(v + i), scalars.value));
  const int rest = static_cast<int>(n - i);
  if (rest) store_first(r + i, load_first(g + i, rest) * derivative<op>(load_first(v + i, rest), scalars.value), rest);
}

template <UnaryOp op>
void backward_f64(const void* const* in, void* out, int64_t n, const double* s) {
  const double* g = static_cast<const double*>(in[0]);
  const double* v = static_cast<const double*>(in[1]);
  double* r = static_cast<double*>(out);
  for (int64_t i = 0; i < n; i++) r[i] = g[i] * derivative<op>(v[i], s);
}

template <int... op>
BlockKernel find(DType compute, int wanted, bool backward, std::integer_sequence<int, op...>) {
  constexpr BlockKernel forward32[] = {forward_f32<static_cast<UnaryOp>(op)>...};
  constexpr BlockKernel forward64[] = {forward_f64<static_cast<UnaryOp>(op)>...};
  constexpr BlockKernel backward32[] = {backward_f32<static_cast<UnaryOp>(op)>...};
  constexpr BlockKernel backward64[] = {backward_f64<static_cast<UnaryOp>(op)>...};
  if (compute == DType::F32) return (backward ? backward32 : forward32)[wanted];
  return (backward ? backward64 : forward64)[wanted];
}

template <class T>
BlockKernel find_integer(UnaryOp op) {
  switch (op) {
    case UnaryOp::Neg: return forward_integer<UnaryOp::Neg, T>;
    case UnaryOp::Abs: return forward_integer<UnaryOp::Abs, T>;
    case UnaryOp::Sign: return forward_integer<UnaryOp::Sign, T>;
    case UnaryOp::Square: return forward_integer<UnaryOp::Square, T>;
    case UnaryOp::Relu: return forward_integer<UnaryOp::Relu, T>;
    case UnaryOp::Clamp: return forward_integer<UnaryOp::Clamp, T>;
    case UnaryOp::Not: return forward_integer<UnaryOp::Not, T>;
    default: return forward_integer<UnaryOp::Round, T>;
  }
}

void run(const ElementwiseParams& p, ThreadPool& pool, bool backward) {
  BlockKernel kernel = p.compute == DType::I32   ? find_integer<int32_t>(static_cast<UnaryOp>(p.op))
                       : p.compute == DType::I64 ? find_integer<int64_t>(static_cast<UnaryOp>(p.op))
                                                 : find(p.compute, p.op, backward, std::make_integer_sequence<int, kUnaryOps>());
  const DType in_types[] = {p.compute, p.compute};
  Elementwise(p, kernel, in_types, p.compute).run(pool);
}

}  // namespace

template <>
void unary<kIsa>(const ElementwiseParams& p, ThreadPool& pool) {
  run(p, pool, false);
}

template <>
void unary_backward<kIsa>(const ElementwiseParams& p, ThreadPool& pool) {
  run(p, pool, true);
}

}  // namespace fovea::cpu
