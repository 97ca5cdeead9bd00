#include "cuda/fill.h"

#include "cuda/grid.h"

namespace fovea::cuda {
namespace {

Dim3 blocks(int64_t count) { return grid_of((count + kFillThreads - 1) / kFillThreads); }

}  // namespace

void Stream::fill_64(void* data, uint64_t pattern, size_t count) {
  const FillParams p{static_cast<uint64_t*>(data), static_cast<int64_t>(count), pattern};
  launch("fill_64", blocks(p.count), {kFillThreads}, 0, p);
}

void sequence(const SequenceParams& p, DType dtype, Stream& stream) {
  const std::string kernel = std::string("fill_sequence_") + name_of(dtype);
  stream.launch(kernel.c_str(), blocks(p.count), {kFillThreads}, 0, p);
}

}  // namespace fovea::cuda
