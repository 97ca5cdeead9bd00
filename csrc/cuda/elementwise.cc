#include "cuda/elementwise.h"

#include "cuda/elementwise_params.h"
#include "cuda/grid.h"

namespace fovea::cuda {
namespace {

int64_t stride_of(const ElementwiseInput& in, int axis) { return in.data ? in.strides[axis] : 0; }

// Axes merged where all inputs allow; see ElementwiseLaunch.
ElementwiseLaunch launch_of(const ElementwiseParams& p) {
  ElementwiseLaunch launch{p, 1, true, 0};
  ElementwiseParams& merged = launch.params;
  int rank = 0;
  for (int i = 0; i < p.rank; i++) {
    const int64_t size = p.shape[i];
    launch.count *= size;
    if (size == 1) continue;
    bool merge = rank > 0;
    for (int k = 0; k < p.inputs && merge; k++) merge = merged.in[k].strides[rank - 1] == stride_of(p.in[k], i) * size;
    if (!merge) rank++;
    merged.shape[rank - 1] = merge ? merged.shape[rank - 1] * size : size;
    for (int k = 0; k < p.inputs; k++) merged.in[k].strides[rank - 1] = stride_of(p.in[k], i);
  }
  merged.rank = static_cast<int8_t>(rank);
  for (int k = 0; k < p.inputs; k++) {
    bool repeated = true;
    for (int i = 0; i < rank; i++) repeated &= merged.in[k].strides[i] == 0;
    if (repeated) launch.repeated |= 1 << k;
    else launch.flat &= rank == 1 && merged.in[k].strides[0] == 1;
  }
  return launch;
}

const char* of_type(DType compute, const char* f32, const char* f64, const char* i32, const char* i64) {
  return compute == DType::F32 ? f32 : compute == DType::F64 ? f64 : compute == DType::I32 ? i32 : i64;
}

void run(const char* kernel, const ElementwiseParams& p, Stream& stream) {
  const ElementwiseLaunch launch = launch_of(p);
  const int64_t threads = (launch.count + kElementsPerThread - 1) / kElementsPerThread;
  stream.launch(kernel, threads_for(threads), {kThreads}, 0, launch);
}

}  // namespace

void binary(const ElementwiseParams& p, Stream& stream) {
  run(of_type(p.compute, "binary_f32", "binary_f64", "binary_i32", "binary_i64"), p, stream);
}

void unary(const ElementwiseParams& p, Stream& stream) {
  run(of_type(p.compute, "unary_f32", "unary_f64", "unary_i32", "unary_i64"), p, stream);
}

void unary_backward(const ElementwiseParams& p, Stream& stream) {
  run(p.compute == DType::F64 ? "unary_backward_f64" : "unary_backward_f32", p, stream);
}

void where(const ElementwiseParams& p, Stream& stream) {
  run(of_type(p.compute, "where_f32", "where_f64", "where_i32", "where_i64"), p, stream);
}

}  // namespace fovea::cuda
