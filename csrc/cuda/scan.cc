#include "cuda/scan.h"

#include "cuda/grid.h"

namespace fovea::cuda {

void cumsum(const ScanParams& p, Stream& stream) {
  const bool integers = p.out_dtype == DType::I64;
  const int64_t rows = p.outer * p.inner;
  if (p.inner >= 32) stream.launch(integers ? "cumsum_columns_i64" : "cumsum_columns_f64", threads_for(rows), {kThreads}, 0, p);
  else stream.launch(integers ? "cumsum_block_i64" : "cumsum_block_f64", grid_of(rows), {256}, 0, p);
}

}  // namespace fovea::cuda
