// Running sums along one axis of a contiguous [outer, length, inner], in f64 (64-bit integers wrap around), rounded at each element.
//
// Many neighbouring rows: a thread a row, neighbours side by side in memory. Else a block a row, kThreads elements a step, which are
// scanned in shared memory (Hillis and Steele 1986) and added to the total so far.
#include "core/scan_params.h"
#include "elements.cuh"

namespace fovea::cuda {

namespace {

constexpr int kThreads = 256;

template <class Source, class Total>
class Scan {
 public:
  __device__ explicit Scan(const ScanParams& p) : p_(p) {}

  __device__ void columns() const {
    const int64_t row = global_thread();
    if (row >= p_.outer * p_.inner) return;
    Total total = 0;
    for (int64_t i = 0; i < p_.length; i++) keep(row, i, total += value(row, i));
  }

  __device__ void block(Total* shared) const {
    const int t = static_cast<int>(threadIdx.x);
    Total total = 0;
    for (int64_t first = 0; first < p_.length; first += kThreads) {
      const bool there = first + t < p_.length;
      Total sum = there ? value(blockIdx.x, first + t) : Total(0);
      for (int step = 1; step < kThreads; step *= 2) {
        shared[t] = sum;
        __syncthreads();
        if (t >= step) sum += shared[t - step];
        __syncthreads();
      }
      shared[t] = sum;
      __syncthreads();
      if (there) keep(blockIdx.x, first + t, total + sum);
      total += shared[kThreads - 1];
      __syncthreads();
    }
  }

 private:
  // Element i of a row in the direction of the sums.
  __device__ int64_t at(int64_t row, int64_t i) const {
    return (row / p_.inner * p_.length + (p_.reverse ? p_.length - 1 - i : i)) * p_.inner + row % p_.inner;
  }
  __device__ Total value(int64_t row, int64_t i) const { return static_cast<Total>(load_as<Source>(p_.in_dtype, p_.in, at(row, i))); }
  __device__ void keep(int64_t row, int64_t i, Total x) const {
    if constexpr (!__is_same(Total, double)) store_as<int64_t>(p_.out_dtype, p_.out, at(row, i), static_cast<int64_t>(x));
    else if (p_.out_dtype == DType::F64) store_as<double>(p_.out_dtype, p_.out, at(row, i), x);
    else store_as<float>(p_.out_dtype, p_.out, at(row, i), static_cast<float>(x));
  }

  const ScanParams& p_;
};

}  // namespace

extern "C" __global__ void cumsum_columns_f64(const __grid_constant__ ScanParams p) { Scan<double, double>(p).columns(); }
extern "C" __global__ void cumsum_columns_i64(const __grid_constant__ ScanParams p) { Scan<int64_t, uint64_t>(p).columns(); }
extern "C" __global__ void __launch_bounds__(kThreads) cumsum_block_f64(const __grid_constant__ ScanParams p) {
  __shared__ double shared[kThreads];
  Scan<double, double>(p).block(shared);
}
extern "C" __global__ void __launch_bounds__(kThreads) cumsum_block_i64(const __grid_constant__ ScanParams p) {
  __shared__ uint64_t shared[kThreads];
  Scan<int64_t, uint64_t>(p).block(shared);
}

}  // namespace fovea::cuda
