#include "cpu/peak.h"

#include "cpu/simd.h"

namespace fovea::cpu {
namespace {

// Enough independent chains to cover latency times throughput, few enough to stay in registers.
constexpr int kChains = kIsa >= Isa::Avx512 ? 24 : 12;
constexpr int kRounds = 20000;

}  // namespace

template <>
int64_t fma_round<kIsa>(float* sink) {
  vf chain[kChains];
  FOVEA_UNROLL
  for (int i = 0; i < kChains; i++) chain[i] = set1(static_cast<float>(i));
  vf x = set1(0.9f), y = set1(0.1f);
#if defined(__GNUC__)
  asm volatile("" : "+x"(x), "+x"(y));
#endif
  for (int k = 0; k < kRounds; k++) FOVEA_UNROLL
  for (int i = 0; i < kChains; i++) chain[i] = fma(chain[i], x, y);
  vf sum = zero();
  FOVEA_UNROLL
  for (int i = 0; i < kChains; i++) sum += chain[i];
  *sink = reduce_add(sum);
  return int64_t{2} * kRounds * kChains * kLanes;
}

template <>
void read_round<kIsa>(const float* data, int64_t bytes, float* sink) {
  vf sum[8] = {};
  int64_t step = 8 * kLanes, count = bytes / 4 / step * step;
  for (int64_t i = 0; i < count; i += step) FOVEA_UNROLL
  for (int k = 0; k < 8; k++) sum[k] += load(data + i + k * kLanes);
  FOVEA_UNROLL
  for (int k = 1; k < 8; k++) sum[0] += sum[k];
  *sink = reduce_add(sum[0]);
}

}  // namespace fovea::cpu
