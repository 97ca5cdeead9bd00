// Binary kernels on dense blocks; cpu/elementwise_engine.h brings the operands into that form.
//
// The simple ones are plain loops that the compiler vectorises. Integer arithmetic wraps around (computed on the unsigned type), maximum
// and minimum give NaN when either operand is NaN, and remainder has the sign of the divisor, as in Python.
#include <cmath>

#include "core/integer_math.h"
#include "cpu/elementwise_engine.h"
#include "cpu/vmath.h"

namespace fovea::cpu {
namespace {

template <class T>
constexpr bool kFloating = __is_same(T, float) || __is_same(T, double);

template <class T>
T remainder(T a, T b) {
  if constexpr (kFloating<T>) {
    T r = std::fmod(a, b);
    return r != 0 && (r < 0) != (b < 0) ? r + b : r;
  } else {
    return integer_remainder(a, b);
  }
}

template <BinaryOp op, class T>
FOVEA_INLINE auto apply(T a, T b) {
  using U = typename UnsignedOf<T>::type;
  if constexpr (op == BinaryOp::Add) return static_cast<T>(static_cast<U>(a) + static_cast<U>(b));
  else if constexpr (op == BinaryOp::Sub) return static_cast<T>(static_cast<U>(a) - static_cast<U>(b));
  else if constexpr (op == BinaryOp::Mul) return static_cast<T>(static_cast<U>(a) * static_cast<U>(b));
  else if constexpr (op == BinaryOp::Maximum) return a > b || a != a ? a : b;
  else if constexpr (op == BinaryOp::Minimum) return a < b || a != a ? a : b;
  else if constexpr (op == BinaryOp::Remainder) return remainder(a, b);
  else if constexpr (op == BinaryOp::Eq) return static_cast<uint8_t>(a == b);
  else if constexpr (op == BinaryOp::Ne) return static_cast<uint8_t>(a != b);
  else if constexpr (op == BinaryOp::Lt) return static_cast<uint8_t>(a < b);
  else if constexpr (op == BinaryOp::Le) return static_cast<uint8_t>(a <= b);
  else if constexpr (op == BinaryOp::Gt) return static_cast<uint8_t>(a > b);
  else if constexpr (op == BinaryOp::Ge) return static_cast<uint8_t>(a >= b);
  else if constexpr (op == BinaryOp::And) return static_cast<uint8_t>(a != 0 && b != 0);
  else if constexpr (op == BinaryOp::Or) return static_cast<uint8_t>(a != 0 || b != 0);
  else if constexpr (op == BinaryOp::Xor) return static_cast<uint8_t>((a != 0) != (b != 0));
  else if constexpr (!kFloating<T>) return integer_power(a, b);  // the only one left for integers: Div and Atan2 compute in floats
  else if constexpr (op == BinaryOp::Div) return a / b;
  else if constexpr (op == BinaryOp::Atan2) return std::atan2(a, b);
  else return std::pow(a, b);
}

template <BinaryOp op, class T>
void kernel(const void* const* in, void* out, int64_t n, const double*) {
  using R = decltype(apply<op>(T(), T()));
  const T* a = static_cast<const T*>(in[0]);
  const T* b = static_cast<const T*>(in[1]);
  R* __restrict r = static_cast<R*>(out);
  for (int64_t i = 0; i < n; i++) r[i] = apply<op>(a[i], b[i]);
}

void pow_f32(const void* const* in, void* out, int64_t n, const double*) {
  const float* a = static_cast<const float*>(in[0]);
  const float* b = static_cast<const float*>(in[1]);
  float* r = static_cast<float*>(out);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(r + i, pow(load(a + i), load(b + i)));
  const int rest = static_cast<int>(n - i);
  if (rest) store_first(r + i, pow(load_first(a + i, rest), load_first(b + i, rest)), rest);
}

template <class T, int... op>
BlockKernel find_kernel(int wanted, std::integer_sequence<int, op...>) {
  constexpr BlockKernel kernels[] = {kernel<static_cast<BinaryOp>(op), T>...};
  return kernels[wanted];
}

BlockKernel kernel_of(int op, DType compute) {
  constexpr auto ops = std::make_integer_sequence<int, kBinaryOps>();
  if (compute == DType::F32 && op == static_cast<int>(BinaryOp::Pow)) return pow_f32;
  switch (compute) {
    case DType::F32: return find_kernel<float>(op, ops);
    case DType::F64: return find_kernel<double>(op, ops);
    case DType::I32: return find_kernel<int32_t>(op, ops);
    default: return find_kernel<int64_t>(op, ops);
  }
}

}  // namespace

template <>
void binary<kIsa>(const ElementwiseParams& p, ThreadPool& pool) {
  const DType in_types[] = {p.compute, p.compute};
  const DType result = p.op >= static_cast<int>(BinaryOp::Eq) ? DType::Bool : p.compute;
  Elementwise(p, kernel_of(p.op, p.compute), in_types, result).run(pool);
}

}  // namespace fovea::cpu
