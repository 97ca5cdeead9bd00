// Softmax and log-softmax along one axis of a contiguous [outer, length, inner], forward and backward. A warp or a block a row; three
// passes over memory, of which the later ones mostly hit the caches.
#include "activation.cuh"
#include "core/softmax_params.h"
#include "row_sums.cuh"

namespace fovea::cuda {

namespace {

template <class T>
class SoftmaxRow {
 public:
  __device__ explicit SoftmaxRow(const SoftmaxParams& p) : p_(p), place_(row_slots(p.length)), there_(place_.row < p.outer * p.inner) {
    base_ = there_ ? place_.row / p.inner * p.length * p.inner + place_.row % p.inner : 0;
  }

  __device__ void forward() const {
    T top = -static_cast<T>(INFINITY);
    each([&](int64_t at) { top = Larger()(top, value(p_.in, at)); });
    top = place_.join(top, Larger());
    T sum = 0;
    each([&](int64_t at) { sum += exponential(value(p_.in, at) - top); });
    sum = place_.join(sum, Plus());
    const T last = p_.log ? log_of(sum) : T(1) / sum;
    each([&](int64_t at) {
      const T x = value(p_.in, at) - top;
      store_as<T>(p_.dtype, p_.out, at, p_.log ? x - last : exponential(x) * last);
    });
  }

  // softmax: y (g - sum of g y); log-softmax: g - exp(y) sum of g.
  __device__ void backward() const {
    T sum = 0;
    each([&](int64_t at) {
      const T g = value(p_.grad, at);
      sum += p_.log ? g : g * value(p_.in, at);
    });
    sum = place_.join(sum, Plus());
    each([&](int64_t at) {
      const T y = value(p_.in, at), g = value(p_.grad, at);
      store_as<T>(p_.dtype, p_.out, at, p_.log ? g - exponential(y) * sum : y * (g - sum));
    });
  }

 private:
  static __device__ T log_of(T x) {
    if constexpr (__is_same(T, float)) return logf(x);
    else return log(x);
  }
  __device__ T value(const void* data, int64_t at) const { return load_as<T>(p_.dtype, data, at); }
  template <class Body>
  __device__ void each(Body&& body) const {
    if (!there_) return;
#pragma unroll 1
    for (int64_t i = place_.slot; i < p_.length; i += place_.slots) body(base_ + i * p_.inner);
  }

  const SoftmaxParams& p_;
  const RowPlace place_;
  const bool there_;
  int64_t base_;
};

}  // namespace

extern "C" __global__ void __launch_bounds__(kRowThreads) softmax_f32(const __grid_constant__ SoftmaxParams p) {
  SoftmaxRow<float>(p).forward();
}
extern "C" __global__ void __launch_bounds__(kRowThreads) softmax_f64(const __grid_constant__ SoftmaxParams p) {
  SoftmaxRow<double>(p).forward();
}
extern "C" __global__ void __launch_bounds__(kRowThreads) softmax_backward_f32(const __grid_constant__ SoftmaxParams p) {
  SoftmaxRow<float>(p).backward();
}
extern "C" __global__ void __launch_bounds__(kRowThreads) softmax_backward_f64(const __grid_constant__ SoftmaxParams p) {
  SoftmaxRow<double>(p).backward();
}

}  // namespace fovea::cuda
