// Rows side by side; one row is select_row.h.
#include "cpu/select_top.h"

#include "cpu/select_row.h"

namespace fovea::cpu {
namespace {

constexpr int64_t kTileElements = 16384;

template <class T>
void select_rows(const SelectTopParams& p, ThreadPool& pool) {
  const int64_t step = p.n >= kTileElements ? 1 : kTileElements / p.n;
  const size_t bytes = static_cast<size_t>(select_words(p.n)) * 4;
  pool.run((p.rows + step - 1) / step, [&](int64_t tile, int thread) {
    uint32_t* scratch = static_cast<uint32_t*>(pool.scratch(thread, bytes));
    for (int64_t row = tile * step; row < p.rows && row < (tile + 1) * step; row++)
      select_row(static_cast<const T*>(p.x) + row * p.n, p.n, p.k, p.indices + row * p.k, scratch);
  });
}

}  // namespace

template <>
void select_top<kIsa>(const SelectTopParams& p, ThreadPool& pool) {
  switch (p.dtype) {
    case DType::BF16: return select_rows<bf16>(p, pool);
    case DType::F16: return select_rows<f16>(p, pool);
    default: return select_rows<float>(p, pool);
  }
}

}  // namespace fovea::cpu
