// The regions nearest to each, against double-precision loops: affinities within rounding, and among those nothing better left out.
#include "cpu/region_top.h"

#include "exact_view.h"
#include "levels.h"
#include "random.h"

using namespace fovea;

namespace {

// Fields that a case does not name are those of a small image whose last regions are cut off.
struct Case {
  const char* name;
  int64_t batch = 2, height = 7, width = 11, channels = 21, region_height = 3, region_width = 4, top = 4;
  DType dtype = DType::F32;

  int64_t down() const { return (height + region_height - 1) / region_height; }
  int64_t across() const { return (width + region_width - 1) / region_width; }
  int64_t regions() const { return down() * across(); }
};

const Case kCases[] = {
    {.name = "plain"},
    {.name = "one pixel", .height = 1, .width = 1, .region_height = 1, .region_width = 1, .top = 1},
    {.name = "one region", .region_height = 7, .region_width = 11, .top = 1},
    {.name = "one channel", .channels = 1},
    {.name = "all regions", .top = 9},
    {.name = "regions of a pixel", .region_height = 1, .region_width = 1, .top = 30},
    {.name = "whole vectors", .height = 8, .width = 8, .channels = 128, .region_height = 2, .region_width = 2},
    {.name = "many channels", .channels = 201},
    {.name = "bf16", .dtype = DType::BF16},
    {.name = "f16, many channels", .channels = 85, .dtype = DType::F16},
    {.name = "many regions", .batch = 1, .height = 37, .width = 29, .channels = 5, .region_height = 1, .region_width = 1, .top = 31},
};

class Problem {
 public:
  explicit Problem(const Case& c) : c_(c), q_(image()), k_(image()), affinity_(affinities(q_.values(), k_.values())) {
    std::vector<double> sorted;
    for (int64_t row = 0; row < c.batch * c.regions(); row++) {
      sorted.assign(affinity_.begin() + row * c.regions(), affinity_.begin() + (row + 1) * c.regions());
      std::partial_sort(sorted.begin(), sorted.begin() + c.top, sorted.end(), std::greater<>());
      best_.insert(best_.end(), sorted.begin(), sorted.begin() + c.top);
    }
  }

  void check() {
    at_each_level(Isa::Avx512, [&] {
      const Result got = same_for_threads(c_.name, [&] { return run(); });
      const std::vector<double> indices = got.indices.values();
      std::vector<double> named;  // affinities of the regions named; none counts twice
      for (int64_t row = 0; row < c_.batch * c_.regions(); row++) {
        std::vector<bool> seen(static_cast<size_t>(c_.regions()));
        for (int64_t i = 0; i < c_.top; i++) {
          const auto region = static_cast<int64_t>(indices[static_cast<size_t>(row * c_.top + i)]);
          const bool fine = region >= 0 && region < c_.regions() && !seen[static_cast<size_t>(region)];
          named.push_back(fine ? affinity_[static_cast<size_t>(row * c_.regions() + region)] : NAN);
          if (fine) seen[static_cast<size_t>(region)] = true;
        }
      }
      expect_close(c_.name, "affinities", got.affinities.values(), best_, 2e-6);
      expect_close(c_.name, "those of the regions named", named, best_, 2e-6);
    });
  }

 private:
  struct Result {
    View indices, affinities;
    bool operator==(const Result& other) const { return indices == other.indices && affinities == other.affinities; }
  };

  View image() const {
    return View(c_.dtype, {c_.batch, c_.height, c_.width, c_.channels}, normals(c_.batch * c_.height * c_.width * c_.channels));
  }

  std::vector<double> means(const std::vector<double>& x) const {
    std::vector<double> sums(static_cast<size_t>(c_.batch * c_.regions() * c_.channels)), pixels(sums.size());
    for (size_t i = 0; i < x.size(); i++) {
      const int64_t at = static_cast<int64_t>(i), channel = at % c_.channels, column = at / c_.channels % c_.width;
      const int64_t row = at / c_.channels / c_.width % c_.height, b = at / c_.channels / c_.width / c_.height;
      const int64_t region = b * c_.regions() + row / c_.region_height * c_.across() + column / c_.region_width;
      sums[static_cast<size_t>(region * c_.channels + channel)] += x[i], pixels[static_cast<size_t>(region * c_.channels + channel)]++;
    }
    for (size_t i = 0; i < sums.size(); i++) sums[i] /= pixels[i];
    return sums;
  }

  std::vector<double> affinities(const std::vector<double>& q, const std::vector<double>& k) const {
    const std::vector<double> a = means(q), b = means(k);
    std::vector<double> all;
    for (int64_t row = 0; row < c_.batch * c_.regions(); row++)
      for (int64_t r = 0; r < c_.regions(); r++) {
        double sum = 0;
        for (int64_t d = 0; d < c_.channels; d++)
          sum += a[static_cast<size_t>(row * c_.channels + d)] *
                 b[static_cast<size_t>((row / c_.regions() * c_.regions() + r) * c_.channels + d)];
        all.push_back(kScale * sum);
      }
    return all;
  }

  Result run() {
    Result r{View(DType::I32, {c_.batch, c_.regions(), c_.top}), View(DType::F32, {c_.batch, c_.regions(), c_.top})};
    View means(DType::F32, {2, c_.batch, c_.regions(), c_.channels});
    RegionTopParams p{};
    p.q = q_.data(), p.k = k_.data(), p.dtype = c_.dtype;
    p.batch = c_.batch, p.height = c_.height, p.width = c_.width, p.channels = c_.channels;
    p.region_height = c_.region_height, p.region_width = c_.region_width, p.down = c_.down(), p.across = c_.across();
    p.scale = kScale, p.top = c_.top;
    p.means = means.data<float>(), p.indices = r.indices.data<int32_t>(), p.affinities = r.affinities.data<float>();
    dispatch_isa([&](auto isa) { cpu::region_top<isa()>(p, ThreadPool::instance()); });
    return r;
  }

  static constexpr float kScale = 0.375f;
  const Case& c_;
  View q_, k_;
  const std::vector<double> affinity_;  // [batch, region, region]
  std::vector<double> best_;            // [batch, region, top]
};

}  // namespace

int main() {
  for (const Case& c : kCases) Problem(c).check();
  std::printf("region_top: %zu cases, %d failures\n", std::size(kCases), failures);
  return failures != 0;
}
