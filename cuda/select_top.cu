// The k largest elements of rows as sets, a block a row (select_row.cuh).
#include "core/select_top_params.h"
#include "select_row.cuh"

namespace fovea::cuda {

extern "C" __global__ void select_top(const __grid_constant__ SelectTopParams p) {
  const int64_t base = static_cast<int64_t>(blockIdx.x) * p.n;
  int32_t* indices = p.indices + static_cast<int64_t>(blockIdx.x) * p.k;
  select_row(
      p.n, p.k, [&](int64_t i) { return key_of(load_as<float>(p.dtype, p.x, base + i)); },
      [&](int32_t slot, int64_t i) { indices[slot] = static_cast<int32_t>(i); });
}

}  // namespace fovea::cuda
