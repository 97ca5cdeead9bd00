// Chooses the runs of k, the tile and the kernel of a matrix product.
#include "cuda/matmul.h"

#include <algorithm>
#include <iterator>
#include <string>

#include "cuda/grid.h"
#include "cuda/matmul_params.h"

namespace fovea::cuda {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Tiles of cuda/matmul_mma.cuh and of cuda/matmul_f32*.cu, with the rate at which a multiprocessor multiplies by them, relative to the
// first. Small tiles read more of shared memory and L2 for a product, and have fewer products to a barrier.
struct Tile {
  const char* name;
  int rows, columns;
  unsigned threads;
  size_t shared_bytes;
  double rate;
};
constexpr Tile kMmaTiles[] = {
    {"128x256", 128, 256, 256, 3 * (128 + 256) * 128, 1},
    {"128x128", 128, 128, 128, 3 * (128 + 128) * 64, 0.85},
    {"64x64", 64, 64, 128, 3 * (64 + 64) * 128, 0.5},
    {"16x32", 16, 32, 64, 8 * (16 + 32) * 128, 0.15},
};
constexpr Tile kF32Tiles[] = {
    {"128x128", 128, 128, 256, 0, 1},
    {"64x64", 64, 64, 256, 3 * (64 + 64) * 128, 0.7},
    {"16x32", 16, 32, 128, 4 * (16 + 32) * 256, 0.3},
};
constexpr Tile kF64Tile = {"16x16", 16, 16, 256, 0, 1};

// k in runs, each summed by itself.
struct Cut {
  int chunks, chunk;
};

struct Choice {
  const Tile* tile;
  bool split;      // each run has blocks of its own
  int64_t blocks;  // of one run
};

int64_t batches_of(const MatmulParams& p) {
  int64_t batches = 1;
  for (int i = 0; i < p.batch_rank; i++) batches *= p.batch_shape[i];
  return batches;
}

bool uses_mma(const MatmulParams& p) {
  return p.dtype == DType::BF16 || p.dtype == DType::F16 || (p.dtype == DType::F32 && p.precision == MatmulPrecision::High);
}

// Into how many runs k is cut. The runs make the bits of an element, so they follow n and k alone: a row has the same bits in every batch
// and on every device. Up to 4096 is one run. A longer k is cut into runs of at most that, and into more, of at least 1024, where n is
// small: such a product is mostly the gradient of a weight, a sum over tokens with about as few rows, and its tiles alone would leave a
// device idle.
Cut cut(const MatmulParams& p) {
  constexpr int64_t kLongest = 4096, kShortest = 1024, kStep = 64, kBlocks = 256, kEdge = 64;
  if (p.k <= kLongest || p.dtype == DType::F64) return {1, static_cast<int>(p.k)};
  const int64_t tiles = ceil_div(p.n, kEdge), wanted = kBlocks / (tiles * tiles);
  const int64_t chunks = std::clamp(wanted, ceil_div(p.k, kLongest), p.k / kShortest);
  const int64_t chunk = ceil_div(ceil_div(p.k, chunks), kStep) * kStep;
  return {static_cast<int>(ceil_div(p.k, chunk)), static_cast<int>(chunk)};
}

// The tile, and whether runs get blocks of their own, by the time that a device would take: the blocks that fall to one multiprocessor,
// times the products of a block at the tile's rate. A block costs as much as 128 more of k besides, to fill its stages and to store its
// tile.
Choice choose(const MatmulParams& p, const Cut& cut, const DeviceInfo& device) {
  constexpr double kOverhead = 128;
  constexpr int64_t kMostSums = int64_t{256} << 20;  // bytes
  const int64_t batches = batches_of(p);
  if (p.dtype == DType::F64) return {&kF64Tile, false, batches * ceil_div(p.m, kF64Tile.rows) * ceil_div(p.n, kF64Tile.columns)};
  const bool may_split = cut.chunks > 1 && batches * p.m * p.n * cut.chunks * 4 <= kMostSums;
  Choice best{};
  double least = 0;
  const auto consider = [&](const Tile& tile) {
    if (tile.shared_bytes > device.shared_bytes_per_block) return;
    const int64_t blocks = batches * ceil_div(p.m, tile.rows) * ceil_div(p.n, tile.columns);
    for (int split = 0; split <= static_cast<int>(may_split); split++) {
      const int64_t all = split ? blocks * cut.chunks : blocks;
      const double rounds = static_cast<double>(ceil_div(all, device.multiprocessors));
      const double depth = kOverhead + static_cast<double>(split ? cut.chunk : p.k);
      const double time = rounds * depth * tile.rows * tile.columns / tile.rate;
      if (!best.tile || time < least) best = {&tile, split != 0, blocks}, least = time;
    }
  };
  if (uses_mma(p)) std::for_each(std::begin(kMmaTiles), std::end(kMmaTiles), consider);
  else std::for_each(std::begin(kF32Tiles), std::end(kF32Tiles), consider);
  return best;
}

// matmul_<type>_<layouts>_<tile>; which way an operand lies: along k, or across it. Where neither is dense, either will do.
std::string kernel_of(const MatmulParams& p, const Tile& tile) {
  if (p.dtype == DType::F64) return "matmul_f64";
  std::string name = "matmul_";
  name += uses_mma(p) && p.dtype == DType::F32 ? "tf32" : name_of(p.dtype);
  if (uses_mma(p) || tile.shared_bytes > 0) {
    name += '_';
    name += p.a.row == 1 && p.a.column != 1 ? 't' : 'n';
    name += p.b.row == 1 && p.b.column != 1 ? 't' : 'n';
  }
  return name + '_' + tile.name;
}

// [batch, m, n] in f32, row-major.
MatmulOperand dense(const MatmulParams& p, float* data) {
  MatmulOperand x{data, p.n, 1, {}};
  int64_t stride = p.m * p.n;
  for (int i = p.batch_rank - 1; i >= 0; i--) x.batch[i] = stride, stride *= p.batch_shape[i];
  return x;
}

}  // namespace

MatmulPlan plan_matmul(const MatmulParams& p, const DeviceInfo& device) {
  const Cut runs = cut(p);
  const Choice choice = choose(p, runs, device);
  return {choice.tile->name, runs.chunks, runs.chunk, choice.split};
}

void matmul(const MatmulParams& p, Stream& stream) {
  check(p.m <= INT32_MAX - 256 && p.n <= INT32_MAX - 256 && p.k <= INT32_MAX - 256, "ERR_UNSUPPORTED", "matmul on cuda: [", p.m, ", ", p.k,
        "] x [", p.k, ", ", p.n, "]; sizes must be below 2^31 - 256");
  const int64_t elements = batches_of(p) * p.m * p.n;
  if (elements == 0) return;
  const Cut runs = cut(p);
  const auto [tile, split, blocks] = choose(p, runs, stream.device());
  const std::string kernel = kernel_of(p, *tile);
  const auto launch = [&](const MatmulCall& call, int64_t grid) {
    stream.launch(kernel.c_str(), grid_of(grid), {tile->threads}, tile->shared_bytes, call);
  };
  MatmulCall call{p, runs.chunks, runs.chunk, split, nullptr, elements};
  if (runs.chunks == 1) return launch(call, blocks);
  const Scratch sums = stream.scratch(static_cast<size_t>(split ? elements * runs.chunks : blocks * tile->rows * tile->columns) * 4);
  call.sums = sums.data<float>();
  if (!split) return launch(call, blocks);
  MatmulCall parts = call;
  parts.product.out = dense(p, call.sums), parts.product.out_dtype = DType::F32;
  parts.product.bias.data = parts.product.pre.data = nullptr, parts.product.activation = Activation::None;
  launch(parts, blocks * runs.chunks);
  call.split = false;
  stream.launch(("matmul_" + std::string(name_of(p.dtype)) + "_add_chunks").c_str(), threads_for(elements), {kThreads}, 0, call);
}

}  // namespace fovea::cuda
