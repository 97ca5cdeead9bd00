#include "cuda/reduce.h"

#include "cuda/grid.h"
#include "cuda/reduce_params.h"

namespace fovea::cuda {
namespace {

// Merges neighbouring axes; returns the number of elements.
int64_t merge_axes(int8_t& rank, int64_t* shape, int64_t* strides) {
  int64_t count = 1;
  int kept = 0;
  for (int i = 0; i < rank; i++) {
    const int64_t size = shape[i], stride = strides[i];
    count *= size;
    if (size == 1) continue;
    const bool merge = kept > 0 && strides[kept - 1] == stride * size;
    if (!merge) kept++;
    shape[kept - 1] = merge ? shape[kept - 1] * size : size;
    strides[kept - 1] = stride;
  }
  rank = static_cast<int8_t>(kept);
  return count;
}

const char* of_type(DType compute, const char* f32, const char* f64, const char* i64) {
  return compute == DType::F32 ? f32 : compute == DType::F64 ? f64 : i64;
}

}  // namespace

void reduce(const ReduceParams& p, Stream& stream) {
  ReduceLaunch launch{p, 0, 0, 1, kReduceThreads, false, nullptr};
  ReduceParams& q = launch.params;
  launch.kept = merge_axes(q.kept_rank, q.kept_shape, q.kept_strides);
  launch.reduced = merge_axes(q.reduced_rank, q.reduced_shape, q.reduced_strides);
  if (launch.kept == 0) return;
  launch.chunks = launch.reduced > kReduceChunk ? (launch.reduced + kReduceChunk - 1) / kReduceChunk : 1;
  launch.columns =
      q.kept_rank > 0 && q.kept_strides[q.kept_rank - 1] == 1 && q.reduced_rank > 0 && q.reduced_strides[q.reduced_rank - 1] != 1;
  launch.slots = launch.columns ? 8 : launch.reduced <= 1024 ? 32 : kReduceThreads;
  const int64_t outputs = kReduceThreads / launch.slots, blocks = (launch.kept + outputs - 1) / outputs * launch.chunks;
  const char* kernel = of_type(p.compute, "reduce_f32", "reduce_f64", "reduce_i64");
  if (launch.chunks == 1) return stream.launch(kernel, grid_of(blocks), {kReduceThreads}, 0, launch);
  Scratch states = stream.scratch(static_cast<size_t>(launch.kept * launch.chunks) * kReduceStateBytes);
  launch.states = states.data();
  stream.launch(kernel, grid_of(blocks), {kReduceThreads}, 0, launch);
  stream.launch(of_type(p.compute, "reduce_merge_f32", "reduce_merge_f64", "reduce_merge_i64"), threads_for(launch.kept), {kThreads}, 0,
                launch);
}

}  // namespace fovea::cuda
