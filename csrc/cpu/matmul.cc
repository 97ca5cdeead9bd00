#include "cpu/matmul.h"

#include "cpu/matmul_product.h"

namespace fovea::cpu {
namespace {

// --- the problem in its most convenient form, with the same result ---

void transpose_operand(MatmulOperand& x) {
  int64_t row = x.row;
  x.row = x.column;
  x.column = row;
}

// out^T = b^T a^T, where the output has contiguous columns or is too narrow to fill vectors.
void prefer_wide_rows(MatmulParams& p) {
  const bool turned = p.out.column != 1 && p.out.row == 1 && p.m > 1;
  const bool narrow = p.n < kLanes && p.m > p.n;
  if (!turned && !narrow) return;
  MatmulOperand a = p.a;
  int64_t m = p.m;
  p.a = p.b, p.b = a, p.m = p.n, p.n = m;
  for (MatmulOperand* x : {&p.a, &p.b, &p.out, &p.bias, &p.pre}) transpose_operand(*x);
}

// Batch axes that only continue the rows of a, out and pre become rows.
void fold_batch(MatmulParams& p) {
  int rank = 0;
  for (int i = 0; i < p.batch_rank; i++) {
    if (p.batch_shape[i] == 1) continue;
    p.batch_shape[rank] = p.batch_shape[i];
    for (MatmulOperand* x : {&p.a, &p.b, &p.out, &p.bias, &p.pre}) x->batch[rank] = x->batch[i];
    rank++;
  }
  auto continues = [&](const MatmulOperand& x) { return !x.data || x.batch[rank - 1] == x.row * p.m; };
  while (rank > 0 && p.b.batch[rank - 1] == 0 && continues(p.a) && continues(p.out) && continues(p.bias) && continues(p.pre))
    p.m *= p.batch_shape[--rank];
  p.batch_rank = rank;
}

// --- f64 ---

constexpr int64_t kDoubleRows = 8, kDoubleColumns = 32;

void product_f64(const MatmulParams& p, ThreadPool& pool, const std::atomic<bool>* cancel) {
  int64_t batches = 1;
  for (int i = 0; i < p.batch_rank; i++) batches *= p.batch_shape[i];
  const int64_t row_tiles = ceil_div(p.m, kDoubleRows), column_tiles = ceil_div(p.n, kDoubleColumns);
  pool.run(
      batches * row_tiles * column_tiles,
      [&](int64_t task, int) {
        const int64_t j0 = task % column_tiles * kDoubleColumns, i0 = task / column_tiles % row_tiles * kDoubleRows;
        const int64_t batch = task / column_tiles / row_tiles;
        const double* a = static_cast<const double*>(p.a.data) + batch_offset(p, p.a, batch);
        const double* b = static_cast<const double*>(p.b.data) + batch_offset(p, p.b, batch);
        double* out = static_cast<double*>(p.out.data) + batch_offset(p, p.out, batch);
        const double* bias = p.bias.data ? static_cast<const double*>(p.bias.data) + batch_offset(p, p.bias, batch) : nullptr;
        double* pre = p.pre.data ? static_cast<double*>(p.pre.data) + batch_offset(p, p.pre, batch) : nullptr;
        const int64_t rows = least(kDoubleRows, p.m - i0), columns = least(kDoubleColumns, p.n - j0);
        double acc[kDoubleRows][kDoubleColumns] = {};
        for (int64_t k = 0; k < p.k; k++) {
          double line[kDoubleColumns];
          for (int64_t j = 0; j < columns; j++) line[j] = b[k * p.b.row + (j0 + j) * p.b.column];
          for (int64_t i = 0; i < rows; i++) {
            const double x = a[(i0 + i) * p.a.row + k * p.a.column];
            for (int64_t j = 0; j < columns; j++) acc[i][j] += x * line[j];
          }
        }
        for (int64_t i = i0; i < i0 + rows; i++)
          for (int64_t j = j0; j < j0 + columns; j++) {
            double x = acc[i - i0][j - j0];
            if (bias) x += bias[i * p.bias.row + j * p.bias.column];
            if (pre) pre[i * p.pre.row + j * p.pre.column] = x;
            out[i * p.out.row + j * p.out.column] = activate(p.activation, x);
          }
      },
      cancel);
}

}  // namespace

template <>
void matmul<kIsa>(const MatmulParams& params, ThreadPool& pool, const std::atomic<bool>* cancel) {
  MatmulParams p = params;
  if (p.m == 0 || p.n == 0) return;
  for (int i = 0; i < p.batch_rank; i++)
    if (p.batch_shape[i] == 0) return;
  if (p.dtype == DType::F64) return product_f64(p, pool, cancel);
  fold_batch(p);
  prefer_wide_rows(p);
  if (p.dtype == DType::F32) return product<float>(p, pool, cancel);
  if (p.dtype == DType::F16) return product<f16>(p, pool, cancel);
  if constexpr (kIsa == Isa::Avx512) {
    if (current_isa() == Isa::Amx) return matmul_amx(p, pool, cancel);
    if (current_isa() == Isa::Avx512Bf16) return matmul_bf16_dot(p, pool, cancel);
  }
  product<bf16>(p, pool, cancel);
}

}  // namespace fovea::cpu
