#include "cuda/optimizer.h"

#include "cuda/grid.h"
#include "cuda/optimizer_params.h"

namespace fovea::cuda {
namespace {

// Calls launch(group, tiles, first tile among all) for groups of as many items as fit one launch. item(i) gives them.
template <class Item, class Launch>
void for_groups(int64_t count, Item&& item, Launch&& launch) {
  int64_t done = 0;
  for (int64_t i = 0; i < count;) {
    OptimizerGroup group{};
    int64_t tiles = 0;
    for (; i < count && group.count < kOptimizerItems; i++) {
      const OptimizerItem next = item(i);
      if (next.count == 0) continue;
      if (tiles + optimizer_tiles(next.count) > INT32_MAX && group.count > 0) break;
      group.items[group.count] = next;
      group.first_tile[group.count++] = static_cast<int>(tiles);
      tiles += optimizer_tiles(next.count);
    }
    if (group.count > 0) launch(group, tiles, done);
    done += tiles;
  }
}

OptimizerItem gradient(const GradList& list, int64_t i) {
  OptimizerItem item{};
  item.param = list.data[i];
  item.count = list.counts[i];
  item.dtype = item.grad_dtype = list.dtypes[i];
  return item;
}

}  // namespace

void adamw(const AdamWParams& p, Stream& stream) {
  for_groups(
      p.count, [&](int64_t i) { return p.items[i]; },
      [&](const OptimizerGroup& group, int64_t tiles, int64_t) {
        stream.launch("adamw", grid_of(tiles), {kOptimizerThreads}, 0, AdamWLaunch{group, p});
      });
}

void sgd(const SgdParams& p, Stream& stream) {
  for_groups(
      p.count, [&](int64_t i) { return p.items[i]; },
      [&](const OptimizerGroup& group, int64_t tiles, int64_t) {
        stream.launch("sgd", grid_of(tiles), {kOptimizerThreads}, 0, SgdLaunch{group, p});
      });
}

void clip_norm(const GradList& list, double max_norm, float* norm, Stream& stream) {
  int64_t tiles = 0;
  for (int64_t i = 0; i < list.count; i++) tiles += optimizer_tiles(list.counts[i]);
  Scratch partial = stream.scratch(static_cast<size_t>(tiles + 1) * sizeof(double));
  auto* sums = partial.data<double>();
  auto* factor = reinterpret_cast<float*>(sums + tiles);
  auto item = [&](int64_t i) { return gradient(list, i); };
  for_groups(list.count, item, [&](const OptimizerGroup& group, int64_t blocks, int64_t first) {
    stream.launch("sum_squares", grid_of(blocks), {256}, 0, SumSquaresLaunch{group, sums + first});
  });
  stream.launch("clip_norm", {1}, {256}, 0, ClipNormParams{sums, tiles, norm, factor, max_norm});
  for_groups(list.count, item, [&](const OptimizerGroup& group, int64_t blocks, int64_t) {
    stream.launch("scale_all", grid_of(blocks), {kOptimizerThreads}, 0, ScaleLaunch{group, factor});
  });
}

}  // namespace fovea::cuda
