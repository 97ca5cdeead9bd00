#include "core/float_mode.h"
#include "cpu/matmul_product.h"

namespace fovea::cpu {

void matmul_amx(const MatmulParams& p, ThreadPool& pool, const std::atomic<bool>* cancel) {
  const FlushDenormals like_the_tile_unit(true);
  product<TileBf16, bf16>(p, pool, cancel);
}

}  // namespace fovea::cpu
