// out = condition ? a : b on dense blocks.
#include "cpu/elementwise_engine.h"

namespace fovea::cpu {
namespace {

template <class T>
void kernel(const void* const* in, void* out, int64_t n, const double*) {
  const uint8_t* condition = static_cast<const uint8_t*>(in[0]);
  const T* a = static_cast<const T*>(in[1]);
  const T* b = static_cast<const T*>(in[2]);
  T* __restrict r = static_cast<T*>(out);
  for (int64_t i = 0; i < n; i++) r[i] = condition[i] ? a[i] : b[i];
}

}  // namespace

template <>
void where<kIsa>(const ElementwiseParams& p, ThreadPool& pool) {
  const DType in_types[] = {DType::U8, p.compute, p.compute};
  BlockKernel select = p.compute == DType::F32   ? kernel<float>
                       : p.compute == DType::F64 ? kernel<double>
                       : p.compute == DType::I32 ? kernel<int32_t>
                                                 : kernel<int64_t>;
  Elementwise(p, select, in_types, p.compute).run(pool);
}

}  // namespace fovea::cpu
