// Lists of the tokens of each head against plain loops: nothing, everything, and heads around the number taken at a time.
#include "cpu/head_rows.h"

#include "exact_view.h"
#include "levels.h"
#include "random.h"

using namespace fovea;

namespace {

// Fields that a case does not name are those of a few short lists.
struct Case {
  const char* name;
  int64_t batch = 2, tokens = 19, heads = 5;
  double share = 0.4;  // of the tokens that take a head
};

const Case kCases[] = {
    {.name = "plain"},
    {.name = "one", .batch = 1, .tokens = 1, .heads = 1, .share = 1},
    {.name = "no token", .tokens = 0},
    {.name = "no batch", .batch = 0},
    {.name = "nothing taken", .share = 0},
    {.name = "all taken", .share = 1},
    {.name = "a tile of heads", .heads = 16},
    {.name = "a head more", .tokens = 131, .heads = 17},
    {.name = "some tiles", .batch = 3, .tokens = 67, .heads = 45},
};

void check_case(const Case& c) {
  std::vector<double> taken;
  for (int64_t i = 0; i < c.batch * c.tokens * c.heads; i++) taken.push_back(chance(c.share));
  View active(DType::Bool, {c.batch, c.tokens, c.heads}, taken);
  std::vector<double> want;
  for (int64_t b = 0; b < c.batch; b++)
    for (int64_t h = 0; h < c.heads; h++) {
      for (int64_t t = 0; t < c.tokens; t++)
        if (taken[static_cast<size_t>((b * c.tokens + t) * c.heads + h)] != 0) want.push_back(static_cast<double>(t));
      want.resize(static_cast<size_t>((b * c.heads + h + 1) * c.tokens), -1);
    }
  at_each_level(Isa::Avx512, [&] {
    const View got = same_for_threads(c.name, [&] {
      View rows(DType::I32, {c.batch, c.heads, c.tokens});
      const HeadRowsParams p{active.data<uint8_t>(), c.batch, c.tokens, c.heads, rows.data<int32_t>()};
      dispatch_isa([&](auto isa) { cpu::head_rows<isa()>(p, ThreadPool::instance()); });
      return rows;
    });
    expect_equal(c.name, "rows", got.values(), want);
  });
}

}  // namespace

int main() {
  for (const Case& c : kCases) check_case(c);
  std::printf("head_rows: %zu cases, %d failures\n", std::size(kCases), failures);
  return failures != 0;
}
