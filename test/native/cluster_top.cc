// The tokens nearest to each centroid, against the arithmetic that core/cluster_top_params.h defines. Tokens and centroids are small whole
// numbers, whose products and sums are exact, so that every level, the tile unit's too, must name the same tokens. Many are equally near.
#include "cpu/cluster_top.h"

#include <numeric>

#include "exact_view.h"
#include "levels.h"
#include "random.h"

using namespace fovea;

namespace {

enum class Some { Nothing, Zero, NaN, Huge };

// Fields that a case does not name are those of a few short lists. From 2048 tokens on they are the tile unit's, where there is one.
struct Case {
  const char* name;
  int64_t batch = 2, heads = 2, length = 71, clusters = 5, dim = 20, window = 9;
  Some tokens = Some::Nothing;  // are not small whole numbers
  int64_t alike = 0;            // tokens at multiples of it have one direction
  DType dtype = DType::F32;
  Layout layout = {};
};

const Case kCases[] = {
    {.name = "plain"},
    {.name = "one token", .length = 1, .window = 1},
    {.name = "one dim", .dim = 1},
    {.name = "one cluster", .clusters = 1},
    {.name = "all tokens", .window = 71},
    {.name = "whole vectors", .length = 96, .clusters = 16, .dim = 64},
    {.name = "many clusters", .clusters = 37},
    {.name = "bf16", .dim = 33, .dtype = DType::BF16},
    {.name = "f16", .dim = 33, .dtype = DType::F16},
    {.name = "padded rows", .dtype = DType::BF16, .layout = {.padding = 1}},
    {.name = "heads inside", .layout = {.turned = true, .padding = 3}},
    {.name = "blocks", .length = 1549},
    {.name = "blocks of f16", .length = 1537, .window = 700, .dtype = DType::F16},
    {.name = "no direction", .tokens = Some::Zero},
    {.name = "no numbers", .tokens = Some::NaN},
    {.name = "long", .length = 2051, .window = 83},
    {.name = "long, one dim", .batch = 1, .length = 2048, .clusters = 3, .dim = 1, .window = 100},
    {.name = "long, whole tiles", .batch = 1, .length = 3072, .clusters = 64, .dim = 64, .window = 48},
    {.name = "long, many clusters", .batch = 1, .length = 2100, .clusters = 37, .dim = 70, .window = 57},
    {.name = "long, bf16", .length = 2333, .clusters = 33, .dim = 31, .dtype = DType::BF16},
    {.name = "long, f16", .length = 2333, .dim = 65, .dtype = DType::F16, .layout = {.padding = 1}},
    {.name = "long, most tokens", .length = 2100, .window = 1500},
    {.name = "long, all tokens", .batch = 1, .length = 2100, .window = 2100},
    {.name = "long, no direction", .length = 2051, .window = 900, .tokens = Some::Zero},
    {.name = "long, no numbers", .length = 2051, .tokens = Some::NaN},
    {.name = "long, huge numbers", .length = 2051, .tokens = Some::Huge},
    // Samples that bounds come from are alike: every 14th or 15th token with vectors, every 4th with tiles.
    {.name = "a bound too high, vectors", .batch = 1, .length = 2047, .window = 700, .alike = 14},
    {.name = "a bound too high, vectors of 4", .batch = 1, .length = 2047, .window = 700, .alike = 15},
    {.name = "a bound too high, tiles", .batch = 1, .length = 2048, .window = 700, .alike = 4},
};

class Problem {
 public:
  explicit Problem(const Case& c) : c_(c) {
    const int64_t most = c.dtype == DType::F32 ? 300 : 30;  // bf16 has 8 bits
    std::vector<double> x = whole_numbers(c.batch * c.heads * c.length * c.dim, -most, most);
    const std::vector<double> centroids = whole_numbers(c.heads * c.clusters * c.dim, -most, most);
    for (size_t i = 0; i < x.size(); i++) x[i] = changed(static_cast<int64_t>(i) / c.dim % c.length, x[i]);
    x_ = View(c.dtype, {c.batch, c.heads, c.length, c.dim}, x, c.layout);
    centroids_ = View(DType::F32, {c.heads, c.clusters, c.dim}, centroids);
    find_wanted(x_.values(), centroids);
  }

  void check() {
    at_each_level(Isa::Amx, [&] {
      const View got = same_for_threads(c_.name, [&] { return run(); });
      expect_equal(c_.name, "indices", got.values(), want_);
    });
  }

 private:
  double changed(int64_t t, double x) const {
    if (c_.alike && t % c_.alike == 0) return 1;
    switch (c_.tokens) {
      case Some::Zero: return t % 3 ? x : 0;
      case Some::NaN: return t % 300 == 7 ? NAN : x;
      case Some::Huge: return t % 300 == 7 ? x * 0x1p52 : x;
      default: return x;
    }
  }

  void find_wanted(const std::vector<double>& x, const std::vector<double>& centroids) {
    for (int64_t list = 0; list < c_.batch * c_.heads; list++)
      for (int64_t c = 0; c < c_.clusters; c++) {
        std::vector<float> similarity;
        for (int64_t t = 0; t < c_.length; t++) {
          double sum = 0, squares = 0;
          for (int64_t d = 0; d < c_.dim; d++) {
            const double a = x[static_cast<size_t>((list * c_.length + t) * c_.dim + d)];
            sum += a * centroids[static_cast<size_t>((list % c_.heads * c_.clusters + c) * c_.dim + d)], squares += a * a;
          }
          const float length = std::sqrt(static_cast<float>(squares));
          similarity.push_back(static_cast<float>(sum) * (1.f / (length > 1e-12f ? length : 1e-12f)));
        }
        std::vector<int64_t> order(static_cast<size_t>(c_.length));
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](int64_t i, int64_t j) {
          const float a = similarity[static_cast<size_t>(i)], b = similarity[static_cast<size_t>(j)];
          return a > b || (std::isnan(a) && !std::isnan(b));
        });
        std::sort(order.begin(), order.begin() + c_.window);
        want_.insert(want_.end(), order.begin(), order.begin() + c_.window);
      }
  }

  View run() {
    View indices(DType::I32, {c_.batch, c_.heads, c_.clusters, c_.window});
    ClusterTopParams p{};
    p.dtype = c_.dtype, p.batch = c_.batch, p.heads = c_.heads, p.length = c_.length, p.clusters = c_.clusters, p.dim = c_.dim;
    p.x = {x_.data(), x_.stride(0), x_.stride(1), x_.stride(2), x_.stride(3)};
    p.centroids = centroids_.data<float>(), p.window = c_.window, p.indices = indices.data<int32_t>();
    dispatch_isa([&](auto isa) { cpu::cluster_top<isa()>(p, ThreadPool::instance()); });
    return indices;
  }

  const Case& c_;
  View x_, centroids_;
  std::vector<double> want_;
};

}  // namespace

int main() {
  for (const Case& c : kCases) Problem(c).check();
  std::printf("cluster_top: %zu cases, %d failures\n", std::size(kCases), failures);
  return failures != 0;
}
