#include "cuda/scatter.h"

#include "cuda/grid.h"
#include "cuda/indexed_params.h"

namespace fovea::cuda {
namespace {

const char* of_bytes(int bytes, const char* one, const char* two, const char* four, const char* eight) {
  return bytes == 1 ? one : bytes == 2 ? two : bytes == 4 ? four : eight;
}

}  // namespace

void gather(const GatherParams& p, int64_t* bad, Stream& stream) {
  const IndexedShape& s = p.shape;
  const char* kernel = of_bytes(p.element_bytes, "gather_1", "gather_2", "gather_4", "gather_8");
  stream.launch(kernel, threads_for(s.outer * s.count * s.inner), {kThreads}, 0, IndexedLaunch<GatherParams>{p, bad});
}

void scatter(const ScatterParams& p, int64_t* bad, Stream& stream) {
  const char* kernel = of_bytes(p.element_bytes, "scatter_1", "scatter_2", "scatter_4", "scatter_8");
  stream.launch(kernel, threads_for(p.shape.outer * p.shape.inner), {kThreads}, 0, IndexedLaunch<ScatterParams>{p, bad});
}

void scatter_add(const ScatterAddParams& p, int64_t* bad, Stream& stream) {
  stream.launch("scatter_add", threads_for(p.shape.outer * p.shape.inner), {kThreads}, 0, IndexedLaunch<ScatterAddParams>{p, bad});
}

void divide_counts(const DivideCountsParams& p, Stream& stream) {
  stream.launch("divide_counts", threads_for(p.rows * p.inner), {kThreads}, 0, p);
  stream.launch("raise_counts", threads_for(p.rows * p.index_inner), {kThreads}, 0, p);
}

}  // namespace fovea::cuda
