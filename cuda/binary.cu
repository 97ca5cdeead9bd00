// Arithmetic, comparisons and logic of two inputs. Integer arithmetic wraps around, maximum and minimum give NaN when either operand is
// NaN, and remainder has the sign of the divisor.
#include "core/integer_math.h"
#include "elementwise.cuh"

namespace fovea::cuda {

namespace {

template <class T>
__device__ T power(T base, T exponent) {
  if constexpr (__is_same(T, float)) return powf(base, exponent);
  else if constexpr (__is_same(T, double)) return pow(base, exponent);
  else return integer_power(base, exponent);
}

template <class T>
__device__ T remainder_of(T a, T b) {
  if constexpr (kIsFloat<T>) {
    T r;
    if constexpr (__is_same(T, float)) r = fmodf(a, b);
    else r = fmod(a, b);
    return r != 0 && (r < 0) != (b < 0) ? r + b : r;
  } else {
    return integer_remainder(a, b);
  }
}

template <class T>
__device__ __forceinline__ T arithmetic(BinaryOp op, T a, T b) {
  using U = typename UnsignedOf<T>::type;
  switch (op) {
    case BinaryOp::Add: return static_cast<T>(static_cast<U>(a) + static_cast<U>(b));
    case BinaryOp::Sub: return static_cast<T>(static_cast<U>(a) - static_cast<U>(b));
    case BinaryOp::Mul: return static_cast<T>(static_cast<U>(a) * static_cast<U>(b));
    case BinaryOp::Maximum: return a > b || a != a ? a : b;
    case BinaryOp::Minimum: return a < b || a != a ? a : b;
    case BinaryOp::Remainder: return remainder_of(a, b);
    case BinaryOp::Pow: return power(a, b);
    default: break;
  }
  if constexpr (__is_same(T, float)) return op == BinaryOp::Div ? a / b : atan2f(a, b);
  else if constexpr (__is_same(T, double)) return op == BinaryOp::Div ? a / b : atan2(a, b);
  else return 0;  // Div and Atan2 compute in floats
}

template <class T>
__device__ __forceinline__ bool compare(BinaryOp op, T a, T b) {
  switch (op) {
    case BinaryOp::Eq: return a == b;
    case BinaryOp::Ne: return a != b;
    case BinaryOp::Lt: return a < b;
    case BinaryOp::Le: return a <= b;
    case BinaryOp::Gt: return a > b;
    case BinaryOp::Ge: return a >= b;
    case BinaryOp::And: return a != 0 && b != 0;
    case BinaryOp::Or: return a != 0 || b != 0;
    default: return (a != 0) != (b != 0);
  }
}

template <class T>
__device__ __forceinline__ void binary(const ElementwiseLaunch& launch) {
  const ElementwiseParams& p = launch.params;
  const BinaryOp op = static_cast<BinaryOp>(p.op);
  for_elements<2>(launch, [&](int64_t position, const int64_t(&offset)[2]) {
    const T a = load_input<T>(p, 0, offset[0]), b = load_input<T>(p, 1, offset[1]);
    if (op >= BinaryOp::Eq) static_cast<uint8_t*>(p.out)[position] = compare(op, a, b);
    else store_as<T>(p.out_dtype, p.out, position, arithmetic(op, a, b));
  });
}

}  // namespace

extern "C" __global__ void binary_f32(const __grid_constant__ ElementwiseLaunch p) { binary<float>(p); }
extern "C" __global__ void binary_f64(const __grid_constant__ ElementwiseLaunch p) { binary<double>(p); }
extern "C" __global__ void binary_i32(const __grid_constant__ ElementwiseLaunch p) { binary<int32_t>(p); }
extern "C" __global__ void binary_i64(const __grid_constant__ ElementwiseLaunch p) { binary<int64_t>(p); }

}  // namespace fovea::cuda
