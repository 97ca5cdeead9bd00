#include "cpu/matmul_product.h"

namespace fovea::cpu {

void matmul_bf16_dot(const MatmulParams& p, ThreadPool& pool, const std::atomic<bool>* cancel) { product<bf16>(p, pool, cancel); }

}  // namespace fovea::cpu
