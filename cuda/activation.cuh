// Activations that ride on a matrix product and their derivatives, in f32 or f64.
//
// GELU in its exact form is x Phi(x) with Phi(x) = erfc(-x / sqrt 2) / 2, which keeps the relative accuracy of the left tail.
#pragma once

#include "core/matmul_params.h"

namespace fovea::cuda {

template <class X>
__device__ __forceinline__ X exponential(X x) {
  if constexpr (__is_same(X, float)) return expf(x);
  else return exp(x);
}

template <class X>
__device__ __forceinline__ X normal_cdf(X x) {
  if constexpr (__is_same(X, float)) return 0.5f * erfcf(x * -0.707106781f);
  else return 0.5 * erfc(x * -0.70710678118654752440);
}

template <class X>
__device__ __forceinline__ X normal_density(X x) {
  return X(0.39894228040143267794) * exponential(X(-0.5) * x * x);
}

template <class X>
__device__ __forceinline__ X sigmoid(X x) {
  return X(1) / (X(1) + exponential(-x));
}

// Twice the argument of the tanh in GELU's tanh form: 0.5 (1 + tanh(y)) = sigmoid(2 y).
template <class X>
__device__ __forceinline__ X gelu_tanh_argument(X x) {
  return x * (X(1.5957691216057308) + X(0.071354816272600271) * (x * x));
}

template <class X>
__device__ __forceinline__ X gelu_tanh_derivative(X x) {
  const X s = sigmoid(gelu_tanh_argument(x)), slope = X(1.5957691216057308) + X(0.21406444881780081) * (x * x);
  // Where s (1 - s) is 0 the slope may be infinite.
  const X curved = s * (X(1) - s);
  return s + (curved == X(0) ? X(0) : x * curved * slope);
}

template <class X>
__device__ __forceinline__ X silu_derivative(X x) {
  const X s = sigmoid(x);
  return s + x * s * (X(1) - s);
}

template <class X>
__device__ __forceinline__ X activate(Activation kind, X x) {
  switch (kind) {
    case Activation::Relu: return x < X(0) ? X(0) : x;
    case Activation::Gelu: return x * normal_cdf(x);
    case Activation::GeluTanh: return x * sigmoid(gelu_tanh_argument(x));
    case Activation::Silu: return x * sigmoid(x);
    default: return x;
  }
}

template <class X>
__device__ __forceinline__ X activation_derivative(Activation kind, X x) {
  switch (kind) {
    case Activation::Relu: return x > X(0) ? X(1) : X(0);
    case Activation::Gelu: return normal_cdf(x) + x * normal_density(x);
    case Activation::GeluTanh: return gelu_tanh_derivative(x);
    case Activation::Silu: return silu_derivative(x);
    default: return X(1);
  }
}

}  // namespace fovea::cuda
