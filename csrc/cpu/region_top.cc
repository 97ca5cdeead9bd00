// Two rounds: the means of all regions of both images, then one region's affinities to all others and the largest of them.
#include "cpu/region_top.h"

#include "cpu/float_types.h"
#include "cpu/select_row.h"

namespace fovea::cpu {
namespace {

constexpr int kRegisters = 4;

template <class T>
void mean_of(const RegionTopParams& p, const T* image, int64_t region, float* out) {
  const int64_t i0 = region / p.across * p.region_height, j0 = region % p.across * p.region_width;
  const int64_t i1 = i0 + p.region_height < p.height ? i0 + p.region_height : p.height;
  const int64_t j1 = j0 + p.region_width < p.width ? j0 + p.region_width : p.width;
  const vf share = set1(1.f / static_cast<float>((i1 - i0) * (j1 - j0)));
  int64_t c = 0;
  for (; c + kRegisters * kLanes <= p.channels; c += kRegisters * kLanes) {
    vf sum[kRegisters];
    FOVEA_UNROLL
    for (int k = 0; k < kRegisters; k++) sum[k] = zero();
    for (int64_t i = i0; i < i1; i++)
      for (const T *at = image + (i * p.width + j0) * p.channels + c, *end = at + (j1 - j0) * p.channels; at < end; at += p.channels)
        FOVEA_UNROLL
    for (int k = 0; k < kRegisters; k++) sum[k] += load(at + k * kLanes);
    FOVEA_UNROLL
    for (int k = 0; k < kRegisters; k++) store(out + c + k * kLanes, sum[k] * share);
  }
  for_lanes(p.channels - c, [&](int64_t rest, int lanes) {
    vf sum = zero();
    for (int64_t i = i0; i < i1; i++)
      for (int64_t j = j0; j < j1; j++) sum += load_part(image + (i * p.width + j) * p.channels + c + rest, lanes);
    store_first(out + c + rest, sum * share, lanes);
  });
}

float dot(const float* a, const float* b, int64_t n) {
  vf sum = zero();
  for_lanes(n, [&](int64_t i, int lanes) { sum = fma(load_first(a + i, lanes), load_first(b + i, lanes), sum); });
  return reduce_add(sum);
}

// Places of the largest, which come in rising order, by falling value.
void order_by_value(const float* x, int32_t* places, int64_t n) {
  auto before = [&](int32_t a, int32_t b) { return x[a] > x[b] || (x[a] != x[a] && x[b] == x[b]); };
  for (int64_t i = 1; i < n; i++) {
    const int32_t place = places[i];
    int64_t at = i;
    for (; at > 0 && before(place, places[at - 1]); at--) places[at] = places[at - 1];
    places[at] = place;
  }
}

}  // namespace

template <>
void region_top<kIsa>(const RegionTopParams& p, ThreadPool& pool) {
  const int64_t regions = p.down * p.across, all = p.batch * regions, pixels = p.height * p.width * p.channels;
  with_float(p.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    pool.run(2 * all, [&](int64_t tile, int) {
      const T* images = static_cast<const T*>(tile < all ? p.q : p.k);
      mean_of(p, images + tile % all / regions * pixels, tile % regions, p.means + tile * p.channels);
    });
  });
  pool.run(all, [&](int64_t tile, int thread) {
    float* affinity = static_cast<float*>(pool.scratch(thread, static_cast<size_t>(regions + kSlackKeys + select_words(regions)) * 4));
    uint32_t* scratch = reinterpret_cast<uint32_t*>(affinity + regions + kSlackKeys);
    const float *mean = p.means + tile * p.channels, *others = p.means + (all + tile / regions * regions) * p.channels;
    for (int64_t r = 0; r < regions; r++) affinity[r] = p.scale * dot(mean, others + r * p.channels, p.channels);
    int32_t* places = p.indices + tile * p.top;
    select_row(affinity, regions, p.top, places, scratch);
    order_by_value(affinity, places, p.top);
    for (int64_t i = 0; i < p.top; i++) p.affinities[tile * p.top + i] = affinity[places[i]];
  });
}

}  // namespace fovea::cpu
