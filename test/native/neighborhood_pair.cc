// The products of neighborhood attention by themselves, their transpose, and attention in plain loops, against double-precision loops.
#include "cpu/neighborhood_pair.h"

#include "exact_view.h"
#include "levels.h"
#include "neighborhood_reference.h"
#include "random.h"

using namespace fovea;

namespace {

// Fields that a case does not name are those of a small image.
struct Case {
  const char* name;
  std::vector<NeighborhoodAxis> axes = {{.length = 7, .kernel = 3}, {.length = 11, .kernel = 5}};
  int64_t batch = 2, heads_q = 2, heads_kv = 1, dim = 24;
};

const Case kCases[] = {
    {.name = "plain"},
    {.name = "one token", .axes = {{.length = 1}}, .batch = 1, .heads_q = 1},
    {.name = "one dim", .dim = 1},
    {.name = "whole vectors", .dim = 64},
    {.name = "wide", .dim = 131},
    {.name = "grouped heads", .heads_q = 6, .heads_kv = 2},
    {.name = "a line", .axes = {{.length = 67, .kernel = 33}}},
    {.name = "a volume", .axes = {{.length = 3, .kernel = 2}, {.length = 4, .kernel = 3}, {.length = 5, .kernel = 5}}},
    {.name = "groups of unequal length", .axes = {{.length = 11, .kernel = 3, .dilation = 3}, {.length = 13, .kernel = 2, .dilation = 2}}},
    {.name = "causal, dilated",
     .axes = {{.length = 7, .kernel = 3, .dilation = 2, .causal = true}, {.length = 11, .kernel = 5, .causal = true}}},
    {.name = "strides", .axes = {{.length = 7, .kernel = 3, .stride = 2}, {.length = 11, .kernel = 5, .stride = 3, .causal = true}}},
};

constexpr double kUnseen = -7;
constexpr float kScale = 0.375f;

class Problem {
 public:
  explicit Problem(const Case& c) {
    NeighborhoodParams& s = p_.space;
    s.batch = c.batch, s.heads_q = c.heads_q, s.heads_kv = c.heads_kv, s.dim = c.dim, s.tokens = 1;
    for (size_t i = 0; i < c.axes.size(); i++) s.axis[kNeighborhoodAxes - c.axes.size() + i] = c.axes[i];
    p_.slots = 1, p_.scale = kScale, p_.unseen = kUnseen;
    for (const NeighborhoodAxis& a : s.axis) s.tokens *= a.length, p_.slots *= a.kernel;
    const int64_t rows = c.batch * s.tokens;
    x_ = row(rows * c.heads_q * c.dim), keys_ = row(rows * c.heads_kv * c.dim), values_ = row(rows * c.heads_kv * c.dim);
    weights_ = row(rows * c.heads_q * p_.slots);
    find_wanted();
  }

  template <Isa level>
  void check(const char* name) {
    const auto compare = [&](const char* what, const std::vector<double>& want, auto&& kernel, float* NeighborhoodPairParams::*out) {
      const View got = same_for_threads(name, [&] {
        View result(DType::F32, {static_cast<int64_t>(want.size())});
        NeighborhoodPairParams p = p_;
        p.x = x_.data<float>(), p.keys = keys_.data<float>(), p.weights = weights_.data<float>();
        p.*out = result.template data<float>();
        kernel(p, ThreadPool::instance());
        return result;
      });
      expect_close(name, what, got.values(), want, 1e-5);
    };
    using P = NeighborhoodPairParams;
    compare(
        "dot", dots_, [](const P& p, ThreadPool& pool) { cpu::neighborhood_dot<level>(p, pool, nullptr); }, &P::weights);
    compare(
        "gather", gathered_, [](const P& p, ThreadPool& pool) { cpu::neighborhood_gather<level>(p, pool, nullptr); }, &P::out);
    compare(
        "scatter", scattered_, [](const P& p, ThreadPool& pool) { cpu::neighborhood_scatter<level>(p, pool, nullptr); }, &P::out);
    const auto loops = [&](P p, ThreadPool& pool) {
      View weights(DType::F32, {static_cast<int64_t>(dots_.size())});
      p.weights = weights.template data<float>();
      cpu::neighborhood_loops<level>(p, values_.template data<float>(), pool, nullptr);
    };
    compare("attention", attended_, loops, &P::out);
  }

 private:
  static View row(int64_t count) { return View(DType::F32, {count}, normals(count)); }

  void find_wanted() {
    const NeighborhoodParams& s = p_.space;
    const int64_t rows = s.batch * s.tokens * s.heads_q;
    const std::vector<double> x = x_.values(), keys = keys_.values(), weights = weights_.values();
    dots_.assign(weights.size(), kUnseen), gathered_.assign(x.size(), 0), scattered_.assign(keys.size(), 0);
    for (int64_t r = 0; r < rows; r++) {
      const int64_t h = r % s.heads_q / (s.heads_q / s.heads_kv), token = r / s.heads_q % s.tokens, b = r / s.heads_q / s.tokens;
      for (const Neighbor& n : neighbors_of(s, token)) {
        const auto key = static_cast<size_t>((b * s.tokens + n.token) * s.heads_kv + h), slot = static_cast<size_t>(r * p_.slots + n.slot);
        const auto dim = static_cast<size_t>(s.dim), row = static_cast<size_t>(r);
        double sum = 0;
        for (size_t d = 0; d < dim; d++) {
          sum += x[row * dim + d] * keys[key * dim + d];
          gathered_[row * dim + d] += kScale * weights[slot] * keys[key * dim + d];
          scattered_[key * dim + d] += kScale * weights[slot] * x[row * dim + d];
        }
        dots_[slot] = kScale * sum;
      }
    }
    NeighborhoodArrays a;
    NeighborhoodParams attention = s;
    attention.dim_v = s.dim, attention.scale = kScale;
    a.q = x, a.k = keys, a.v = values_.values();
    neighborhood_reference(attention, a);
    attended_ = a.out;
  }

  NeighborhoodPairParams p_{};
  View x_, keys_, values_, weights_;
  std::vector<double> dots_, gathered_, scattered_, attended_;
};

}  // namespace

int main() {
  for (const Case& c : kCases) {
    Problem problem(c);
    at_each_level(Isa::Avx512, [&] { dispatch_isa([&](auto isa) { problem.check<isa()>(c.name); }); });
  }
  std::printf("neighborhood_pair: %zu cases, %d failures\n", std::size(kCases), failures);
  return failures != 0;
}
