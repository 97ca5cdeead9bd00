// Activations that ride on a matrix product, and their derivatives, on one vector of f32 lanes or one f64.
//
// GELU in its exact form is x Phi(x). Phi comes from erfc(t) = 2^(-t P(t)) with one polynomial P for t in [0, 6], so the left tail keeps
// its relative accuracy (5e-6 at worst, 5e-7 for |x| < 1.4) where 1 + erf would cancel.
#pragma once

#include "cpu/matmul.h"
#include "cpu/simd.h"

namespace fovea::cpu {
namespace {

FOVEA_INLINE vf abs(vf x) { return reinterpret_cast<vf>(reinterpret_cast<vi>(x) & 0x7fffffff); }

// Standard normal distribution function.
FOVEA_INLINE vf normal_cdf(vf x) {
  vf t = min(abs(x) * set1(0.707106781f), set1(6.f));
  vf u = fma(t, set1(1.f / 3), set1(-1.f));
  vf p = set1(6.699988153e-04f);
  p = fma(p, u, set1(-1.606433187e-03f));
  p = fma(p, u, set1(5.105067976e-04f));
  p = fma(p, u, set1(2.048222814e-03f));
  p = fma(p, u, set1(-4.871033132e-03f));
  p = fma(p, u, set1(1.154304389e-02f));
  p = fma(p, u, set1(-2.684734203e-02f));
  p = fma(p, u, set1(5.580425262e-02f));
  p = fma(p, u, set1(-1.084846109e-01f));
  p = fma(p, u, set1(2.046909630e-01f));
  p = fma(p, u, set1(3.938990355e+00f));
  p = fma(p, u, set1(5.155405045e+00f));
  vf tail = set1(0.5f) * exp2(zero() - t * p);
  return select(x < zero(), tail, set1(1.f) - tail);
}

FOVEA_INLINE vf normal_density(vf x) { return set1(0.398942280f) * exp2(x * x * set1(-0.721347520f)); }

FOVEA_INLINE vf sigmoid(vf x) { return set1(1.f) / (set1(1.f) + exp2(x * set1(-1.44269504f))); }

// Twice the argument of the tanh in GELU's tanh form: 0.5 (1 + tanh(y)) = sigmoid(2 y).
FOVEA_INLINE vf gelu_tanh_argument(vf x) { return x * fma(x * x, set1(0.0713548163f), set1(1.59576912f)); }

FOVEA_INLINE vf activate(Activation kind, vf x) {
  switch (kind) {
    case Activation::Relu: return select(x < zero(), zero(), x);
    case Activation::Gelu: return x * normal_cdf(x);
    case Activation::GeluTanh: return x * sigmoid(gelu_tanh_argument(x));
    case Activation::Silu: return x * sigmoid(x);
    default: return x;
  }
}

FOVEA_INLINE vf activation_derivative(Activation kind, vf x) {
  switch (kind) {
    case Activation::Relu: return select(x > zero(), set1(1.f), zero());
    case Activation::Gelu: return fma(x, normal_density(x), normal_cdf(x));
    case Activation::GeluTanh: {
      vf s = sigmoid(gelu_tanh_argument(x));
      vf slope = fma(x * x, set1(0.214064449f), set1(1.59576912f));
      return fma(x * slope, s * (set1(1.f) - s), s);
    }
    case Activation::Silu: {
      vf s = sigmoid(x);
      return fma(x, s * (set1(1.f) - s), s);
    }
    default: return set1(1.f);
  }
}

// --- the same in double precision, one value at a time ---

inline double normal_cdf(double x) { return 0.5 * __builtin_erfc(x * -0.70710678118654752440); }
inline double sigmoid(double x) { return 1 / (1 + __builtin_exp(-x)); }
inline double gelu_tanh_argument(double x) { return 2 * 0.79788456080286535588 * (x + 0.044715 * x * x * x); }

inline double activate(Activation kind, double x) {
  switch (kind) {
    case Activation::Relu: return x < 0 ? 0 : x;
    case Activation::Gelu: return x * normal_cdf(x);
    case Activation::GeluTanh: return x * sigmoid(gelu_tanh_argument(x));
    case Activation::Silu: return x * sigmoid(x);
    default: return x;
  }
}

inline double activation_derivative(Activation kind, double x) {
  switch (kind) {
    case Activation::Relu: return x > 0 ? 1 : 0;
    case Activation::Gelu: return normal_cdf(x) + x * 0.39894228040143267794 * __builtin_exp(-0.5 * x * x);
    case Activation::GeluTanh: {
      double s = sigmoid(gelu_tanh_argument(x));
      return s + x * s * (1 - s) * 2 * 0.79788456080286535588 * (1 + 3 * 0.044715 * x * x);
    }
    case Activation::Silu: {
      double s = sigmoid(x);
      return s + x * s * (1 - s);
    }
    default: return 1;
  }
}

}  // namespace
}  // namespace fovea::cpu
