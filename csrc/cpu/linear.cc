// One pass over the elements in pieces, each by vectors with a scalar-loaded tail, so that a value never depends on where a piece begins.
#include "cpu/linear.h"

#include "cpu/activation.h"

namespace fovea::cpu {
namespace {

constexpr int64_t kPiece = 16384;

template <class T>
void run_piece(const ActivationGradParams& p, int64_t begin, int64_t end) {
  const T* grad = static_cast<const T*>(p.grad);
  const T* pre = static_cast<const T*>(p.pre);
  T* out = static_cast<T*>(p.out);
  int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) store(out + i, load(grad + i) * activation_derivative(p.activation, load(pre + i)));
  vf g{}, z{};
  for (int64_t j = i; j < end; j++) g[j - i] = to_float(grad[j]), z[j - i] = to_float(pre[j]);
  vf d = g * activation_derivative(p.activation, z);
  for (int64_t j = i; j < end; j++) out[j] = narrow<T>(d[j - i]);
}

template <>
void run_piece<double>(const ActivationGradParams& p, int64_t begin, int64_t end) {
  const double *grad = static_cast<const double*>(p.grad), *pre = static_cast<const double*>(p.pre);
  for (int64_t i = begin; i < end; i++) static_cast<double*>(p.out)[i] = grad[i] * activation_derivative(p.activation, pre[i]);
}

template <class T>
void run(const ActivationGradParams& p, ThreadPool& pool) {
  pool.run((p.count + kPiece - 1) / kPiece, [&](int64_t piece, int) {
    int64_t begin = piece * kPiece, end = begin + kPiece < p.count ? begin + kPiece : p.count;
    run_piece<T>(p, begin, end);
  });
}

}  // namespace

template <>
void activation_grad<kIsa>(const ActivationGradParams& p, ThreadPool& pool) {
  switch (p.dtype) {
    case DType::F32: return run<float>(p, pool);
    case DType::BF16: return run<bf16>(p, pool);
    case DType::F16: return run<f16>(p, pool);
    default: return run<double>(p, pool);
  }
}

}  // namespace fovea::cpu
