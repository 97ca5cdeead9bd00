// What each query of a rising list sees of a rising list, counted key by key: equals, lists that end before the other begins, and lengths
// around those of vectors.
#include "cpu/causal_ranges.h"

#include "exact_view.h"
#include "levels.h"
#include "random.h"

using namespace fovea;

namespace {

// Fields that a case does not name are those of a few short lists.
struct Case {
  const char* name;
  int64_t lists = 3, queries = 21, keys = 18;
  int64_t query_low = 0, query_high = 40, key_low = 0, key_high = 40;  // what the lists name
};

const Case kCases[] = {
    {.name = "plain"},
    {.name = "one", .lists = 1, .queries = 1, .keys = 1},
    {.name = "no key", .keys = 0},
    {.name = "no query", .queries = 0},
    {.name = "no list", .lists = 0},
    {.name = "whole vectors", .queries = 64, .keys = 64},
    {.name = "many keys", .queries = 5, .keys = 333, .query_high = 400, .key_high = 400},
    {.name = "many queries", .lists = 7, .queries = 333, .keys = 5, .query_high = 400, .key_high = 400},
    {.name = "equals", .queries = 37, .keys = 41, .query_high = 3, .key_high = 3},
    {.name = "keys behind all queries", .key_low = 41, .key_high = 60},
    {.name = "keys before all queries", .query_low = 41, .query_high = 60},
    {.name = "places of no row", .query_low = -9, .query_high = 9, .key_low = -9, .key_high = 9},
};

std::vector<double> rising(int64_t lists, int64_t length, int64_t low, int64_t high) {
  std::vector<double> rows = whole_numbers(lists * length, low, high);
  for (int64_t list = 0; list < lists; list++) std::sort(rows.begin() + list * length, rows.begin() + (list + 1) * length);
  return rows;
}

void check_case(const Case& c) {
  const std::vector<double> queries = rising(c.lists, c.queries, c.query_low, c.query_high);
  const std::vector<double> keys = rising(c.lists, c.keys, c.key_low, c.key_high);
  std::vector<double> want;
  for (int64_t i = 0; i < c.lists * c.queries; i++) {
    double seen = 0;
    for (int64_t j = 0; j < c.keys; j++) seen += keys[static_cast<size_t>(i / c.queries * c.keys + j)] <= queries[static_cast<size_t>(i)];
    want.push_back(0), want.push_back(seen);
  }
  View q(DType::I32, {c.lists, c.queries}, queries), kv(DType::I32, {c.lists, c.keys}, keys);
  at_each_level(Isa::Avx512, [&] {
    const View got = same_for_threads(c.name, [&] {
      View ranges(DType::I32, {c.lists, c.queries, 2});
      const CausalRangesParams p{q.data<int32_t>(), kv.data<int32_t>(), c.lists, c.queries, c.keys, ranges.data<int32_t>()};
      dispatch_isa([&](auto isa) { cpu::causal_ranges<isa()>(p, ThreadPool::instance()); });
      return ranges;
    });
    expect_equal(c.name, "ranges", got.values(), want);
  });
}

}  // namespace

int main() {
  for (const Case& c : kCases) check_case(c);
  std::printf("causal_ranges: %zu cases, %d failures\n", std::size(kCases), failures);
  return failures != 0;
}
