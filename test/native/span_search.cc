// The search of spans against the steps that core/span_search_params.h names. Operands are small whole numbers, whose scores are exact, so
// that anchors must be equal.
#include "cpu/span_search.h"

#include "exact_view.h"
#include "levels.h"
#include "random.h"

using namespace fovea;

namespace {

// Fields that a case does not name are those of a few queries behind some keys.
struct Case {
  const char* name;
  int64_t batch = 2, heads_q = 2, heads_kv = 1, len_q = 37, len_kv = 50, q_offset = 13, dim = 20;
  int64_t distances = 12, refinements = 2, window = 5, spans = 3;
  int unused = 0;  // of every so many keys one is masked, the first few too; 0 = no mask
  DType dtype = DType::F32;
  Layout layout = {};
};

const Case kCases[] = {
    {.name = "plain"},
    {.name = "one token", .batch = 1, .heads_q = 1, .len_q = 1, .len_kv = 1, .q_offset = 0, .distances = 1, .window = 0},
    {.name = "one dim", .dim = 1},
    {.name = "whole vectors", .dim = 64},
    {.name = "whole vectors of bf16", .dim = 48, .dtype = DType::BF16},
    {.name = "f16", .dim = 33, .dtype = DType::F16},
    {.name = "no keys before the queries", .len_kv = 37, .q_offset = 0},
    {.name = "fewer keys than positions", .len_kv = 40, .dim = 16},
    {.name = "grouped heads", .heads_q = 6, .heads_kv = 2, .dim = 32},
    {.name = "one span", .spans = 1},
    {.name = "the most spans", .distances = 40, .spans = kMaxSpans},
    {.name = "no distances", .distances = 0},
    {.name = "no refinements", .dim = 32, .refinements = 0},
    {.name = "masked keys", .dim = 32, .unused = 3},
    {.name = "no keys in use", .unused = 1},
    {.name = "many tiles", .batch = 1, .len_q = 1500, .len_kv = 1533, .q_offset = 33, .dim = 16},
    {.name = "padded rows", .dim = 32, .layout = {.padding = 3}},
    {.name = "heads inside", .dim = 32, .dtype = DType::BF16, .layout = {.turned = true, .padding = 1}},
};

class Problem {
 public:
  explicit Problem(const Case& c) : c_(c) {
    const int64_t entries = c.q_offset + c.len_q + 2;
    q_ = whole(c.dtype, {c.batch, c.heads_q, c.len_q, c.dim}, -2, 2, c.layout);
    k_ = whole(c.dtype, {c.batch, c.heads_kv, c.len_kv, c.dim}, -2, 2, c.layout);
    steps_ = whole(DType::I32, {c.refinements, 3, entries}, 1, 6), reach_ = whole(DType::I32, {2, entries}, 0, 9);
    std::vector<double> distances, mask;
    for (int64_t i = 0; i < c.distances; i++) distances.push_back(static_cast<double>(i + i * i / 3));
    for (int64_t i = 0; i < c.batch * c.len_kv; i++) mask.push_back(c.unused && i % c.len_kv > 4 && i % c.unused);
    distances_ = View(DType::I32, {c.distances}, distances), mask_ = View(DType::Bool, {c.batch, c.len_kv}, mask);
    p_.dtype = c.dtype, p_.batch = c.batch, p_.heads_q = c.heads_q, p_.heads_kv = c.heads_kv, p_.dim = c.dim;
    p_.len_q = c.len_q, p_.len_kv = c.len_kv, p_.q_offset = c.q_offset, p_.window = c.window, p_.spans = c.spans;
    p_.q = bound(q_), p_.k = bound(k_);
    p_.distances = distances_.data<int32_t>(), p_.distance_count = c.distances;
    p_.steps = steps_.data<int32_t>(), p_.refinements = c.refinements;
    p_.span_back = reach_.data<int32_t>(), p_.span_forward = p_.span_back + entries, p_.table = entries;
    if (c.unused) {
      for (int64_t b = 0; b < c.batch; b++) {
        const uint8_t* used = mask_.data<uint8_t>() + b * c.len_kv;
        first_.push_back(std::find(used, used + c.len_kv, 1) - used);
      }
      p_.key_mask = mask_.data<uint8_t>(), p_.first = first_.data();
    }
    find_wanted();
  }

  void check() {
    at_each_level(Isa::Avx512, [&] {
      const Result got = same_for_threads(c_.name, [&] { return run(); });
      expect_equal(c_.name, "anchors", got.anchors.values(), anchors_);
      expect_equal(c_.name, "scores", got.scores.values(), scores_);
      expect_equal(c_.name, "ranges", got.ranges.values(), ranges_);
    });
  }

 private:
  struct Result {
    View anchors, scores, ranges;
    bool operator==(const Result& other) const { return anchors == other.anchors && scores == other.scores && ranges == other.ranges; }
  };
  struct Anchor {
    double score;
    int64_t key;
  };

  static View whole(DType dtype, const std::vector<int64_t>& shape, int64_t low, int64_t high, Layout layout = {}) {
    int64_t count = 1;
    for (int64_t n : shape) count *= n;
    return View(dtype, shape, whole_numbers(count, low, high), layout);
  }
  static AttentionTensor bound(View& v) { return {v.data(), v.stride(0), v.stride(1), v.stride(2), v.stride(3)}; }

  void find_wanted() {
    const std::vector<double> q = q_.values(), k = k_.values();
    for (int64_t row = 0; row < c_.batch * c_.heads_q * c_.len_q; row++) {
      const int64_t h = row / c_.len_q % c_.heads_q, b = row / c_.len_q / c_.heads_q;
      const int64_t position = c_.q_offset + row % c_.len_q, first = p_.first ? p_.first[b] : 0;
      const int64_t n = std::clamp<int64_t>(position + 1 - first, 0, p_.table - 1), last = position - c_.window;
      const double* keys = k.data() + (b * c_.heads_kv + h / (c_.heads_q / c_.heads_kv)) * c_.len_kv * c_.dim;
      std::vector<Anchor> list;
      const auto insert = [&](int64_t key) {
        if (key < first || key >= c_.len_kv || (p_.key_mask && !p_.key_mask[b * c_.len_kv + key])) return;
        double score = 0;
        for (int64_t d = 0; d < c_.dim; d++) score += q[static_cast<size_t>(row * c_.dim + d)] * keys[key * c_.dim + d];
        const auto at = std::find_if(list.begin(), list.end(), [&](const Anchor& a) { return score > a.score; });
        list.insert(at, {score, key});
        if (static_cast<int64_t>(list.size()) > c_.spans) list.pop_back();
      };
      for (int64_t i = 0; i < c_.distances; i++) insert(position - p_.distances[i]);
      for (int64_t step = 0; step < c_.refinements; step++) {
        const int32_t* table = p_.steps + step * 3 * p_.table + n;
        const int64_t back = table[0], forward = table[p_.table], stride = table[2 * p_.table];
        for (const Anchor& a : std::vector<Anchor>(list))
          for (int64_t key = a.key - back / stride * stride; key <= a.key + forward; key += stride)
            if (key <= last && std::none_of(list.begin(), list.end(), [&](const Anchor& x) { return x.key == key; })) insert(key);
      }
      for (int64_t t = 0; t < c_.spans; t++) {
        const bool found = t < static_cast<int64_t>(list.size());
        const Anchor a = found ? list[static_cast<size_t>(t)] : Anchor{-INFINITY, -1};
        anchors_.push_back(static_cast<double>(a.key)), scores_.push_back(a.score);
        const int64_t end = std::min({a.key + p_.span_forward[n], last, position, c_.len_kv - 1}) + 1;
        ranges_.push_back(found ? static_cast<double>(std::max(a.key - p_.span_back[n], first)) : 0);
        ranges_.push_back(found ? static_cast<double>(end) : 0);
      }
    }
  }

  Result run() {
    const std::vector<int64_t> shape = {c_.batch, c_.heads_q, c_.len_q, c_.spans};
    Result r{View(DType::I32, shape), View(DType::F32, shape), View(DType::I32, {2, c_.batch, c_.heads_q, c_.len_q, c_.spans})};
    SpanSearchParams p = p_;
    p.anchors = r.anchors.data<int32_t>(), p.scores = r.scores.data<float>(), p.ranges = r.ranges.data<int32_t>();
    dispatch_isa([&](auto isa) { cpu::span_search<isa()>(p, ThreadPool::instance(), nullptr); });
    return r;
  }

  const Case& c_;
  SpanSearchParams p_{};
  View q_, k_, steps_, reach_, distances_, mask_;
  std::vector<int64_t> first_;
  std::vector<double> anchors_, scores_, ranges_;
};

}  // namespace

int main() {
  for (const Case& c : kCases) Problem(c).check();
  std::printf("span_search: %zu cases, %d failures\n", std::size(kCases), failures);
  return failures != 0;
}
