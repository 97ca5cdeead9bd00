// Boxes are chosen on the host by counting: along an axis, the boxes that a block visits depend on the two box lengths of that axis alone,
// so the work of a choice is a product over axes. Boxes of which all rows see all count less, since no mask code runs on them.
#include "cuda/neighborhood.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "cuda/grid.h"

namespace fovea::cuda {
namespace {

constexpr int64_t kLargest = 1 << 30;  // coordinates are 32-bit
constexpr unsigned kBlockThreads = 128;
constexpr int kMostShift = 7;

struct Range {
  int64_t begin, end;
};

int64_t group_length(const NeighborhoodAxis& a) { return (a.length + a.dilation - 1) / a.dilation; }

// Keys that query i sees in the longest group.
Range keys_of(const NeighborhoodAxis& a, int64_t i) {
  const int64_t n = group_length(a), first = i / a.stride * a.stride;
  if (a.causal) return {std::max<int64_t>(std::min(first + a.stride - 1, n - 1) - a.kernel + 1, 0), i + 1};
  const int64_t begin = std::min(std::max<int64_t>(first + a.stride / 2 - a.kernel / 2, 0), n - a.kernel);
  return {begin, begin + a.kernel};
}

// Boxes along one axis that owned boxes visit, and those of them that all rows see, by log2 of both lengths; a sample of owned boxes.
struct AxisWork {
  double boxes[kMostShift + 1][kMostShift + 1] = {}, full[kMostShift + 1][kMostShift + 1] = {};

  AxisWork(const NeighborhoodAxis& a, bool own_keys, int owned, int visited) {
    constexpr int64_t kSample = 24;
    const int64_t n = group_length(a);
    for (int s = 0; s <= owned; s++) {
      const int64_t rows = int64_t{1} << s, count = (n + rows - 1) / rows, looked_at = std::min(count, kSample);
      for (int64_t k = 0; k < looked_at; k++) {
        const int64_t first = k * count / looked_at * rows, last = std::min(first + rows, n) - 1;
        // The range seen by some and by all; of keys, an estimate: queries that see a key mirror the keys that a query sees.
        const Range front = keys_of(a, own_keys ? n - 1 - last : first), back = keys_of(a, own_keys ? n - 1 - first : last);
        for (int v = 0; v <= visited; v++) {
          const int64_t length = int64_t{1} << v, some = (back.end - front.begin + length - 1) / length;
          const int64_t skipped = (std::max(back.begin - front.begin, int64_t{0}) + length - 1) / length;
          const int64_t all = std::max<int64_t>((front.end - front.begin) / length - skipped, 0);
          const double weight = static_cast<double>(count) / static_cast<double>(looked_at);
          boxes[s][v] += weight * static_cast<double>(some), full[s][v] += weight * static_cast<double>(std::min(all, some));
        }
      }
    }
  }
};

NeighborhoodBoxes boxes_of(const int (&shift)[kNeighborhoodAxes]) {
  NeighborhoodBoxes b{};
  int low = 0;
  for (int a = kNeighborhoodAxes - 1; a >= 0; a--) {
    b.shift[a] = shift[a], b.low[a] = low;
    low += shift[a];
    b.repeat[a] = low >= 5 ? 1 : ~0u / ((1u << (1 << low)) - 1);
  }
  return b;
}

// Calls visit(shift) for every way to share `total` among the axes.
template <class Visit>
void each_shape(int total, Visit&& visit) {
  for (int s0 = 0; s0 <= total; s0++)
    for (int s1 = 0; s0 + s1 <= total; s1++) {
      const int shift[kNeighborhoodAxes] = {s0, s1, total - s0 - s1};
      visit(shift);
    }
}

// Boxes of a call, and the work they make.
struct Choice {
  NeighborhoodKernelParams params{};
  double work = -1;  // visited boxes, those that run mask code counted for more
};

Choice choose_boxes(const NeighborhoodParams& p, bool own_keys, int owned, int visited) {
  constexpr double kMasked = 1.5;  // time of a box that runs mask code, relative
  const AxisWork work[kNeighborhoodAxes] = {
      {p.axis[0], own_keys, owned, visited}, {p.axis[1], own_keys, owned, visited}, {p.axis[2], own_keys, owned, visited}};
  Choice best;
  NeighborhoodKernelParams& k = best.params;
  k.call = p;
  each_shape(owned, [&](const int(&o)[kNeighborhoodAxes]) {
    each_shape(visited, [&](const int(&v)[kNeighborhoodAxes]) {
      double boxes = 1, full = 1;
      for (int a = 0; a < kNeighborhoodAxes; a++) boxes *= work[a].boxes[o[a]][v[a]], full *= work[a].full[o[a]][v[a]];
      const double cost = kMasked * boxes - (kMasked - 1) * full;
      if (best.work >= 0 && cost >= best.work) return;
      best.work = cost;
      k.owned = boxes_of(o), k.visited = boxes_of(v);
    });
  });
  k.extra = boxes_of({0, 0, visited});
  for (int a = 0; a < kNeighborhoodAxes; a++)
    k.grid[a] = static_cast<int32_t>((group_length(p.axis[a]) + (int64_t{1} << k.owned.shift[a]) - 1) >> k.owned.shift[a]);
  if (neighborhood_rows_wide(p.q, p.dim, p.dtype)) k.wide |= kNaWideQuery;
  if (neighborhood_rows_wide(p.k, p.dim, p.dtype)) k.wide |= kNaWideKey;
  if (neighborhood_rows_wide(p.v, p.dim_v, p.dtype)) k.wide |= kNaWideValue;
  if (neighborhood_rows_wide(p.out, p.dim_v, p.dtype)) k.wide |= kNaWideOut;
  if (neighborhood_rows_wide(p.extra_k, p.dim, p.dtype)) k.wide_extra |= kNaWideKey;
  if (neighborhood_rows_wide(p.extra_v, p.dim_v, p.dtype)) k.wide_extra |= kNaWideValue;
  return best;
}

struct Launch {
  NeighborhoodKernelParams params;
  const char* suffix;
  size_t bytes;
};

Launch launch_of(const NeighborhoodParams& p) {
  const int bucket = neighborhood_bucket(p);
  if (p.dtype == DType::F32) {
    const int owned = bucket <= 128 ? 6 : 5, rows = 1 << owned, keys = 32;
    return {neighborhood_boxes(p, false, owned, 5), "", static_cast<size_t>((rows + keys) * (bucket + 4) + rows * (keys + 4)) * 4};
  }
  auto bytes = [bucket](int rows, int keys) { return static_cast<size_t>((rows + 2 * keys) * bucket * 2); };
  const Choice narrow = choose_boxes(p, false, 6, 6);
  if (bucket == 256) return {narrow.params, "", bytes(64, 64)};
  // Twice the queries take kWideTime of the time of a visited key. They pay where there still are enough boxes to fill a device.
  constexpr double kWideTime = 1.5;
  constexpr int64_t kBlocksWanted = 256;
  const int visited = bucket == 128 ? 5 : 6, keys = 1 << visited;
  const Choice wide = choose_boxes(p, false, 7, visited);
  const bool pays = wide.work * kWideTime * keys < narrow.work * 64;
  if (!pays || neighborhood_blocks(wide.params) * p.heads_q * p.batch < kBlocksWanted) return {narrow.params, "", bytes(64, 64)};
  return {wide.params, "_wide", bytes(128, keys)};
}

}  // namespace

int neighborhood_bucket(const NeighborhoodParams& p) {
  const int64_t dim = std::max(p.dim, p.dim_v);
  return dim <= 32 ? 32 : dim <= 64 ? 64 : dim <= 128 ? 128 : 256;
}

bool neighborhood_rows_wide(const NeighborhoodTensor& t, int64_t dim, DType dtype) {
  const int64_t piece = 16 / static_cast<int64_t>(size_of(dtype));
  return t.data && t.sd == 1 && dim % piece == 0 && t.sp[0] % piece == 0 && t.sp[1] % piece == 0 && t.sp[2] % piece == 0 &&
         t.sh % piece == 0 && t.sb % piece == 0 && reinterpret_cast<uintptr_t>(t.data) % 16 == 0;
}

const char* neighborhood_refusal(const NeighborhoodParams& p) {
  int64_t table = 1;
  for (const NeighborhoodAxis& a : p.axis) {
    if (a.length >= kLargest) return "axes of 2^30 tokens and more are not addressed";
    if ((table *= 2 * a.kernel - 1) >= kLargest) return "windows of 2^27 keys and more are not addressed";
  }
  if (p.batch * p.tokens * p.heads_q >= int64_t{2} * kLargest) return "2^31 rows of queries and more are too many for one grid";
  if (p.extra >= kLargest) return "2^30 extra keys and more are not addressed";
  return nullptr;
}

NeighborhoodKernelParams neighborhood_boxes(const NeighborhoodParams& p, bool own_keys, int owned, int visited) {
  return choose_boxes(p, own_keys, owned, visited).params;
}

int64_t neighborhood_blocks(const NeighborhoodKernelParams& k) {
  int64_t blocks = 1;
  for (int a = 0; a < kNeighborhoodAxes; a++) blocks *= k.grid[a] * k.call.axis[a].dilation;
  return blocks;
}

void neighborhood_tile_shape(const NeighborhoodParams& p, int64_t tile[kNeighborhoodAxes]) {
  const Launch launch = launch_of(p);
  for (int a = 0; a < kNeighborhoodAxes; a++) tile[a] = int64_t{1} << launch.params.owned.shift[a];
}

void neighborhood(const NeighborhoodParams& p, Stream& stream) {
  if (p.batch == 0) return;
  const Launch launch = launch_of(p);
  char kernel[64];
  std::snprintf(kernel, sizeof kernel, "neighborhood_forward_%s_d%d%s", name_of(p.dtype), neighborhood_bucket(p), launch.suffix);
  stream.launch(kernel, grid_of(neighborhood_blocks(launch.params) * p.heads_q * p.batch), {kBlockThreads}, launch.bytes, launch.params);
}

}  // namespace fovea::cuda
