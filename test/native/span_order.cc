// The order of spans against a stable sort.
#include "cpu/span_order.h"

#include "exact_view.h"
#include "levels.h"
#include "random.h"

using namespace fovea;

namespace {

// Fields that a case does not name are those of a few lists.
struct Case {
  const char* name;
  int64_t lists = 3, group = 2, queries = 29, spans = 3, len_kv = 301, longest = 20;
};

const Case kCases[] = {
    {.name = "plain"},
    {.name = "one span", .lists = 1, .group = 1, .queries = 1, .spans = 1, .len_kv = 1},
    {.name = "no keys", .len_kv = 0},
    {.name = "empty spans", .longest = 0},
    {.name = "whole blocks", .len_kv = 256},
    {.name = "many spans", .lists = 1, .group = 1, .queries = 2000, .spans = 1},
};

void check_case(const Case& c) {
  const int64_t each = c.group * c.queries * c.spans, count = c.lists * each;
  std::vector<double> ranges, pairs, rows, sorted;
  for (int64_t i = 0; i < count; i++) {
    const int64_t begin = uniform(0, c.len_kv), end = std::min(begin + uniform(0, c.longest), c.len_kv);
    ranges.push_back(static_cast<double>(begin)), ranges.push_back(static_cast<double>(end));
  }
  for (int64_t list = 0; list < c.lists; list++) {
    struct Pair {
      int64_t pair, row, block;  // blocks of 64 keys; empty spans come behind all
    };
    std::vector<Pair> order;
    for (int64_t q = 0; q < c.queries; q++)
      for (int64_t g = 0; g < c.group; g++)
        for (int64_t t = 0; t < c.spans; t++) {
          const int64_t row = (list * c.group + g) * c.queries + q, pair = row * c.spans + t;
          const double* range = ranges.data() + 2 * pair;
          order.push_back({pair, row, range[0] < range[1] ? static_cast<int64_t>(range[0]) / 64 : INT64_MAX});
        }
    std::stable_sort(order.begin(), order.end(), [](const Pair& a, const Pair& b) { return a.block < b.block; });
    for (const Pair& p : order) {
      pairs.push_back(static_cast<double>(p.pair)), rows.push_back(static_cast<double>(p.row));
      for (int64_t end : {2 * p.pair, 2 * p.pair + 1}) sorted.push_back(p.block == INT64_MAX ? 0 : ranges[static_cast<size_t>(end)]);
    }
  }
  View given(DType::I32, {count, 2}, ranges);
  struct Result {
    View pairs, rows, sorted;
    bool operator==(const Result& other) const { return pairs == other.pairs && rows == other.rows && sorted == other.sorted; }
  };
  at_each_level(Isa::Avx512, [&] {
    const Result got = same_for_threads(c.name, [&] {
      Result r{View(DType::I32, {count}), View(DType::I32, {count}), View(DType::I32, {count, 2})};
      const SpanOrderParams p{
          given.data<int32_t>(),   c.lists, c.group, c.queries, c.spans, c.len_kv, r.pairs.data<int32_t>(), r.rows.data<int32_t>(),
          r.sorted.data<int32_t>()};
      dispatch_isa([&](auto isa) { cpu::span_order<isa()>(p, ThreadPool::instance()); });
      return r;
    });
    expect_equal(c.name, "pairs", got.pairs.values(), pairs);
    expect_equal(c.name, "rows", got.rows.values(), rows);
    expect_equal(c.name, "ranges", got.sorted.values(), sorted);
  });
}

}  // namespace

int main() {
  for (const Case& c : kCases) check_case(c);
  std::printf("span_order: %zu cases, %d failures\n", std::size(kCases), failures);
  return failures != 0;
}
