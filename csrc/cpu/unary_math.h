// The unary functions and their derivatives, written once for a register of f32 (`vf`) and for one f64.
#pragma once

#include <cmath>

#include "cpu/elementwise.h"
#include "cpu/vmath.h"

namespace fovea::cpu {
namespace {

// The f64 side of cpu/vmath.h, through the C library.
FOVEA_INLINE double abs(double x) { return __builtin_fabs(x); }
FOVEA_INLINE double exp(double x) { return __builtin_exp(x); }
FOVEA_INLINE double expm1(double x) { return __builtin_expm1(x); }
FOVEA_INLINE double log(double x) { return __builtin_log(x); }
FOVEA_INLINE double log1p(double x) { return __builtin_log1p(x); }
FOVEA_INLINE double sqrt(double x) { return __builtin_sqrt(x); }
FOVEA_INLINE double sin(double x) { return __builtin_sin(x); }
FOVEA_INLINE double cos(double x) { return __builtin_cos(x); }
FOVEA_INLINE double tanh(double x) { return __builtin_tanh(x); }
FOVEA_INLINE double erf(double x) { return __builtin_erf(x); }
FOVEA_INLINE double floor(double x) { return __builtin_floor(x); }
FOVEA_INLINE double round_even(double x) { return __builtin_nearbyint(x); }
FOVEA_INLINE double sigmoid(double x) { return 1 / (1 + exp(-x)); }
FOVEA_INLINE double softplus(double x) { return x != x ? x : (x > 0 ? x : 0) + log1p(exp(-abs(x))); }
FOVEA_INLINE double normal_cdf(double x) { return 0.5 * __builtin_erfc(-x * 0.70710678118654752); }

FOVEA_INLINE vf round_even(vf x) {
  vi whole = ~(abs(x) < set1(0x1p23f));
  return select(whole, x, copy_sign(round_nearest(select(whole, zero(), x)), x));
}

template <class X>
FOVEA_INLINE X constant(double c) {
  if constexpr (__is_same(X, double)) return c;
  else return set1(static_cast<float>(c));
}
template <class M, class X>
FOVEA_INLINE X choose(M condition, X a, X b) {
  if constexpr (__is_same(X, double)) return condition ? a : b;
  else return select(condition, a, b);
}

// gelu with tanh, Hendrycks and Gimpel 2016: x / 2 (1 + tanh u) = x sigmoid(2 u).
template <class X>
FOVEA_INLINE X gelu_argument(X x) {
  return x * (constant<X>(1.5957691216057308) + constant<X>(0.071354816272600271) * (x * x));
}

template <UnaryOp op, class X>
FOVEA_INLINE X apply(X x, const X* scalars) {
  const X zero = constant<X>(0), one = constant<X>(1);
  if constexpr (op == UnaryOp::Neg) return -x;
  else if constexpr (op == UnaryOp::Abs) return abs(x);
  else if constexpr (op == UnaryOp::Sign) return choose(x > zero, one, choose(x < zero, -one, x + zero));
  else if constexpr (op == UnaryOp::Square) return x * x;
  else if constexpr (op == UnaryOp::Floor) return floor(x);
  else if constexpr (op == UnaryOp::Ceil) return -floor(-x);
  else if constexpr (op == UnaryOp::Round) return round_even(x);
  else if constexpr (op == UnaryOp::Exp) return exp(x);
  else if constexpr (op == UnaryOp::Expm1) return expm1(x);
  else if constexpr (op == UnaryOp::Log) return log(x);
  else if constexpr (op == UnaryOp::Log1p) return log1p(x);
  else if constexpr (op == UnaryOp::Sqrt) return sqrt(x);
  else if constexpr (op == UnaryOp::Rsqrt) return one / sqrt(x);
  else if constexpr (op == UnaryOp::Reciprocal) return one / x;
  else if constexpr (op == UnaryOp::Sin) return sin(x);
  else if constexpr (op == UnaryOp::Cos) return cos(x);
  else if constexpr (op == UnaryOp::Tanh) return tanh(x);
  else if constexpr (op == UnaryOp::Sigmoid) return sigmoid(x);
  else if constexpr (op == UnaryOp::Erf) return erf(x);
  else if constexpr (op == UnaryOp::Relu) return choose(x < zero, zero, x);
  else if constexpr (op == UnaryOp::Gelu) return x * normal_cdf(x);
  else if constexpr (op == UnaryOp::GeluTanh) return x * sigmoid(gelu_argument(x));
  else if constexpr (op == UnaryOp::Silu) return x * sigmoid(x);
  else if constexpr (op == UnaryOp::Softplus) return softplus(x);
  else if constexpr (op == UnaryOp::LeakyRelu) return choose(x < zero, x * scalars[0], x);
  else if constexpr (op == UnaryOp::Clamp) return choose(x < scalars[0], scalars[0], choose(x > scalars[1], scalars[1], x));
  else return choose(x == zero, one, zero);
}

// The derivative at x, or from the result y for the functions that from_result() names.
constexpr bool from_result(UnaryOp op) {
  return op == UnaryOp::Exp || op == UnaryOp::Expm1 || op == UnaryOp::Sqrt || op == UnaryOp::Rsqrt || op == UnaryOp::Reciprocal ||
         op == UnaryOp::Tanh || op == UnaryOp::Sigmoid || op == UnaryOp::Relu;
}

template <UnaryOp op, class X>
FOVEA_INLINE X derivative(X v, const X* scalars) {
  const X zero = constant<X>(0), one = constant<X>(1);
  if constexpr (op == UnaryOp::Exp) return v;
  else if constexpr (op == UnaryOp::Neg) return -one;
  else if constexpr (op == UnaryOp::Expm1) return v + one;
  else if constexpr (op == UnaryOp::Sqrt) return constant<X>(0.5) / v;
  else if constexpr (op == UnaryOp::Rsqrt) return constant<X>(-0.5) * v * v * v;
  else if constexpr (op == UnaryOp::Reciprocal) return -v * v;
  else if constexpr (op == UnaryOp::Tanh) return one - v * v;
  else if constexpr (op == UnaryOp::Sigmoid) return v * (one - v);
  else if constexpr (op == UnaryOp::Relu) return choose(v > zero, one, zero);
  else if constexpr (op == UnaryOp::Abs) return apply<UnaryOp::Sign>(v, scalars);
  else if constexpr (op == UnaryOp::Square) return v + v;
  else if constexpr (op == UnaryOp::Log) return one / v;
  else if constexpr (op == UnaryOp::Log1p) return one / (one + v);
  else if constexpr (op == UnaryOp::Sin) return cos(v);
  else if constexpr (op == UnaryOp::Cos) return -sin(v);
  else if constexpr (op == UnaryOp::Erf) return constant<X>(1.1283791670955126) * exp(-v * v);
  else if constexpr (op == UnaryOp::Gelu) return normal_cdf(v) + v * (constant<X>(0.3989422804014327) * exp(constant<X>(-0.5) * v * v));
  else if constexpr (op == UnaryOp::GeluTanh) {
    const X s = sigmoid(gelu_argument(v));
    const X slope = constant<X>(1.5957691216057308) + constant<X>(0.21406444881780081) * (v * v);
    // Where s (1 - s) is 0 the slope may be infinite.
    const X curved = s * (one - s);
    return s + choose(curved == zero, zero, v * curved * slope);
  } else if constexpr (op == UnaryOp::Silu) {
    const X s = sigmoid(v);
    return s + v * s * (one - s);
  } else if constexpr (op == UnaryOp::Softplus) return sigmoid(v);
  else if constexpr (op == UnaryOp::LeakyRelu) return choose(v < zero, scalars[0], one);
  else if constexpr (op == UnaryOp::Clamp) return choose((v < scalars[0]) | (v > scalars[1]), zero, one);
  else return zero;  // steps: Sign, Floor, Ceil, Round
}

}  // namespace
}  // namespace fovea::cpu
