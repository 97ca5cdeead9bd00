#include "cuda/matmul.h"

#include "cuda/grid.h"

namespace fovea::cuda {
namespace {

int64_t batches_of(const MatmulParams& p) {
  int64_t batches = 1;
  for (int i = 0; i < p.batch_rank; i++) batches *= p.batch_shape[i];
  return batches;
}

int64_t tiles_of(const MatmulParams& p, int64_t edge) { return batches_of(p) * ((p.m + edge - 1) / edge) * ((p.n + edge - 1) / edge); }

// Which way operands lie: along k, or across it; where neither is dense, either will do.
const char* mma_kernel(const MatmulParams& p) {
  constexpr const char* names[2][2][2] = {
      {{"matmul_bf16_nn", "matmul_bf16_nt"}, {"matmul_bf16_tn", "matmul_bf16_tt"}},
      {{"matmul_f16_nn", "matmul_f16_nt"}, {"matmul_f16_tn", "matmul_f16_tt"}},
  };
  const bool a_transposed = p.a.row == 1 && p.a.column != 1, b_transposed = p.b.row == 1 && p.b.column != 1;
  return names[p.dtype == DType::F16][a_transposed][b_transposed];
}

}  // namespace

void matmul(const MatmulParams& p, Stream& stream) {
  check(p.m <= INT32_MAX - 256 && p.n <= INT32_MAX - 256 && p.k <= INT32_MAX - 256, "ERR_UNSUPPORTED", "matmul on cuda: [", p.m, ", ", p.k,
        "] x [", p.k, ", ", p.n, "]; sizes must be below 2^31 - 256");
  if (p.m == 0 || p.n == 0 || batches_of(p) == 0) return;
  constexpr size_t kStageBytes = 4 * 2 * 128 * 32 * 2;
  if (p.dtype == DType::F64) stream.launch("matmul_f64", grid_of(tiles_of(p, 16)), {256}, 0, p);
  else if (p.dtype == DType::F32) stream.launch("matmul_f32", grid_of(tiles_of(p, 128)), {256}, 0, p);
  else stream.launch(mma_kernel(p), grid_of(tiles_of(p, 128)), {256}, kStageBytes, p);
}

}  // namespace fovea::cuda
