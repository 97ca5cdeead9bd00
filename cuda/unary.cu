// Functions of one input, and their gradients: grad times the derivative, which comes from the argument, or from the result of the
// functions that from_result() names.
#include "activation.cuh"
#include "elementwise.cuh"

namespace fovea::cuda {

namespace {

// The C library's functions under one name for f32 and f64.
#define FOVEA_BOTH(name, single, both)                                 \
  __device__ __forceinline__ float name(float x) { return single(x); } \
  __device__ __forceinline__ double name(double x) { return both(x); }
FOVEA_BOTH(magnitude, fabsf, fabs)
FOVEA_BOTH(round_down, floorf, floor)
FOVEA_BOTH(round_up, ceilf, ceil)
FOVEA_BOTH(round_even, rintf, rint)
FOVEA_BOTH(exp_minus_1, expm1f, expm1)
FOVEA_BOTH(logarithm, logf, log)
FOVEA_BOTH(log_plus_1, log1pf, log1p)
FOVEA_BOTH(root, sqrtf, sqrt)
FOVEA_BOTH(sine, sinf, sin)
FOVEA_BOTH(cosine, cosf, cos)
FOVEA_BOTH(tangent_h, tanhf, tanh)
FOVEA_BOTH(error_function, erff, erf)
#undef FOVEA_BOTH

template <class T>
__device__ __forceinline__ T sign_of(T x) {
  return x > 0 ? T(1) : x < 0 ? T(-1) : x + T(0);
}

template <class T>
__device__ __forceinline__ T softplus(T x) {
  return x != x ? x : (x > 0 ? x : T(0)) + log_plus_1(exponential(-magnitude(x)));
}

template <class T>
__device__ __forceinline__ T apply(UnaryOp op, T x, T first, T second) {
  switch (op) {
    case UnaryOp::Neg: return -x;
    case UnaryOp::Abs: return magnitude(x);
    case UnaryOp::Sign: return sign_of(x);
    case UnaryOp::Square: return x * x;
    case UnaryOp::Floor: return round_down(x);
    case UnaryOp::Ceil: return round_up(x);
    case UnaryOp::Round: return round_even(x);
    case UnaryOp::Exp: return exponential(x);
    case UnaryOp::Expm1: return exp_minus_1(x);
    case UnaryOp::Log: return logarithm(x);
    case UnaryOp::Log1p: return log_plus_1(x);
    case UnaryOp::Sqrt: return root(x);
    case UnaryOp::Rsqrt: return T(1) / root(x);
    case UnaryOp::Reciprocal: return T(1) / x;
    case UnaryOp::Sin: return sine(x);
    case UnaryOp::Cos: return cosine(x);
    case UnaryOp::Tanh: return tangent_h(x);
    case UnaryOp::Sigmoid: return sigmoid(x);
    case UnaryOp::Erf: return error_function(x);
    case UnaryOp::Relu: return x < 0 ? T(0) : x;
    case UnaryOp::Gelu: return x * normal_cdf(x);
    case UnaryOp::GeluTanh: return x * sigmoid(gelu_tanh_argument(x));
    case UnaryOp::Silu: return x * sigmoid(x);
    case UnaryOp::Softplus: return softplus(x);
    case UnaryOp::LeakyRelu: return x < 0 ? x * first : x;
    case UnaryOp::Clamp: return x < first ? first : x > second ? second : x;
    default: return x == 0 ? T(1) : T(0);
  }
}

// Of integers only those that keep them.
template <class T>
__device__ __forceinline__ T apply_integer(UnaryOp op, T x, double first, double second) {
  switch (op) {
    case UnaryOp::Neg: return static_cast<T>(-static_cast<uint64_t>(x));
    case UnaryOp::Abs: return x < 0 ? static_cast<T>(-static_cast<uint64_t>(x)) : x;
    case UnaryOp::Sign: return x > 0 ? 1 : x < 0 ? -1 : 0;
    case UnaryOp::Square: return static_cast<T>(static_cast<uint64_t>(x) * static_cast<uint64_t>(x));
    case UnaryOp::Relu: return x < 0 ? 0 : x;
    case UnaryOp::Clamp: {
      const T low = static_cast<T>(ceil(first)), high = static_cast<T>(floor(second));  // saturates
      return x < low ? low : x > high ? high : x;
    }
    case UnaryOp::Not: return x == 0;
    default: return x;
  }
}

template <class T>
__device__ __forceinline__ T derivative(UnaryOp op, T v, T first, T second) {
  switch (op) {
    case UnaryOp::Exp: return v;
    case UnaryOp::Neg: return T(-1);
    case UnaryOp::Expm1: return v + T(1);
    case UnaryOp::Sqrt: return T(0.5) / v;
    case UnaryOp::Rsqrt: return T(-0.5) * v * v * v;
    case UnaryOp::Reciprocal: return -v * v;
    case UnaryOp::Tanh: return T(1) - v * v;
    case UnaryOp::Sigmoid: return v * (T(1) - v);
    case UnaryOp::Relu: return v > 0 ? T(1) : T(0);
    case UnaryOp::Abs: return sign_of(v);
    case UnaryOp::Square: return v + v;
    case UnaryOp::Log: return T(1) / v;
    case UnaryOp::Log1p: return T(1) / (T(1) + v);
    case UnaryOp::Sin: return cosine(v);
    case UnaryOp::Cos: return -sine(v);
    case UnaryOp::Erf: return T(1.1283791670955126) * exponential(-v * v);
    case UnaryOp::Gelu: return normal_cdf(v) + v * normal_density(v);
    case UnaryOp::GeluTanh: return gelu_tanh_derivative(v);
    case UnaryOp::Silu: return silu_derivative(v);
    case UnaryOp::Softplus: return sigmoid(v);
    case UnaryOp::LeakyRelu: return v < 0 ? first : T(1);
    case UnaryOp::Clamp: return v < first || v > second ? T(0) : T(1);
    default: return T(0);  // steps: Sign, Floor, Ceil, Round
  }
}

template <class T>
__device__ __forceinline__ void unary(const ElementwiseLaunch& launch) {
  const ElementwiseParams& p = launch.params;
  const UnaryOp op = static_cast<UnaryOp>(p.op);
  for_elements<1>(launch, [&](int64_t position, const int64_t(&offset)[1]) {
    const T x = load_input<T>(p, 0, offset[0]);
    T y;
    if constexpr (kIsFloat<T>) y = apply<T>(op, x, static_cast<T>(p.scalars[0]), static_cast<T>(p.scalars[1]));
    else y = apply_integer<T>(op, x, p.scalars[0], p.scalars[1]);
    store_as<T>(p.out_dtype, p.out, position, y);
  });
}

template <class T>
__device__ __forceinline__ void unary_backward(const ElementwiseLaunch& launch) {
  const ElementwiseParams& p = launch.params;
  for_elements<2>(launch, [&](int64_t position, const int64_t(&offset)[2]) {
    const T grad = load_input<T>(p, 0, offset[0]), v = load_input<T>(p, 1, offset[1]);
    const T slope = derivative<T>(static_cast<UnaryOp>(p.op), v, static_cast<T>(p.scalars[0]), static_cast<T>(p.scalars[1]));
    store_as<T>(p.out_dtype, p.out, position, grad * slope);
  });
}

}  // namespace

extern "C" __global__ void unary_f32(const __grid_constant__ ElementwiseLaunch p) { unary<float>(p); }
extern "C" __global__ void unary_f64(const __grid_constant__ ElementwiseLaunch p) { unary<double>(p); }
extern "C" __global__ void unary_i32(const __grid_constant__ ElementwiseLaunch p) { unary<int32_t>(p); }
extern "C" __global__ void unary_i64(const __grid_constant__ ElementwiseLaunch p) { unary<int64_t>(p); }
extern "C" __global__ void unary_backward_f32(const __grid_constant__ ElementwiseLaunch p) { unary_backward<float>(p); }
extern "C" __global__ void unary_backward_f64(const __grid_constant__ ElementwiseLaunch p) { unary_backward<double>(p); }

}  // namespace fovea::cuda
