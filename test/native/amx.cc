// The products of the tile unit (attention_amx_tile.h, gemm_amx.h) against plain loops. Operands are small whole numbers, whose products
// and sums are exact, so that every result must be equal, whatever the order of the sum.
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "core/float_mode.h"
#include "core/isa.h"
#include "cpu/attention_amx_tile.h"
#include "cpu/gemm_amx.h"
#include "sixteen_bit.h"

#if defined(__AVX512BW__)

using namespace fovea;
using namespace fovea::cpu;

namespace {

std::mt19937 engine(1);
int uniform(int lo, int hi) { return std::uniform_int_distribution<int>(lo, hi)(engine); }

int failures = 0;

void expect_equal(const char* what, const char* sizes, int64_t at, double got, double wanted) {
  if (got == wanted) return;
  if (failures++ < 20) std::printf("FAIL %s, %s: element %ld is %g, not %g\n", what, sizes, static_cast<long>(at), got, wanted);
}

// bf16 whole numbers in [-8, 8], one behind the other.
std::vector<uint16_t> whole_numbers(int64_t n) {
  std::vector<uint16_t> v(static_cast<size_t>(n));
  for (auto& x : v) x = ::narrow(DType::BF16, static_cast<float>(uniform(-8, 8)));
  return v;
}
std::vector<uint16_t> normal_numbers(int64_t n) {
  std::vector<uint16_t> v(static_cast<size_t>(n));
  for (auto& x : v) x = ::narrow(DType::BF16, std::normal_distribution<float>()(engine));
  return v;
}
double at(const std::vector<uint16_t>& v, int64_t i) { return widen(DType::BF16, v.data(), i); }

// Scores of 16 rows, and those rows' values added by weights that pair neighbouring keys.
template <int NZ>
void test_attention(int words, int key_pitch, int keys, int dim, int value_step) {
  char sizes[100];
  std::snprintf(sizes, sizeof sizes, "%d vectors, %d words, %d keys, dim %d", NZ, words, keys, dim);
  constexpr int kLanesOfTile = NZ * kLanes;
  const TileUnit unit;

  const auto key = whole_numbers(kTileRows * key_pitch);
  const auto query = whole_numbers(int64_t{2} * words * kLanesOfTile);  // [word][lane][2]
  std::vector<float> scores(kTileRows * kLanesOfTile, 7.f);
  tile_scores<NZ>(key.data(), 2 * key_pitch, reinterpret_cast<const float*>(query.data()), words, scores.data());
  for (int j = 0; j < kTileRows; j++)
    for (int lane = 0; lane < kLanesOfTile; lane++) {
      double sum = 0;
      for (int d = 0; d < 2 * words; d++) sum += at(key, j * key_pitch + d) * at(query, (d / 2 * kLanesOfTile + lane) * 2 + d % 2);
      expect_equal("scores", sizes, j * kLanesOfTile + lane, scores[static_cast<size_t>(j * kLanesOfTile + lane)], sum);
    }

  const int steps = (keys + kTileDepth - 1) / kTileDepth, pitch = dim * value_step + 3;
  const int turned_dim = (dim + kTileDepth - 1) / kTileDepth * kTileDepth, out_dim = (dim + kTileRows - 1) / kTileRows * kTileRows;
  const auto value = whole_numbers(int64_t{keys} * pitch);
  const auto weight = whole_numbers(int64_t{steps} * kTileDepth * kLanesOfTile);  // [pair of keys][lane][2]
  std::vector<bf16> turned(static_cast<size_t>(steps * turned_dim * kTileDepth));
  for (int s = 0; s < steps; s++) {
    const bf16* row[kTileDepth] = {};
    const int count = keys - s * kTileDepth < kTileDepth ? keys - s * kTileDepth : kTileDepth;
    for (int j = 0; j < count; j++) row[j] = reinterpret_cast<const bf16*>(value.data()) + (s * kTileDepth + j) * pitch;
    turn_values(row, count, value_step, dim, turned.data() + s * turned_dim * kTileDepth);
  }
  std::vector<float> out(static_cast<size_t>(out_dim * kLanesOfTile), 3.f);
  tile_accumulate<NZ>(turned.data(), steps, dim, turned_dim * kTileDepth, reinterpret_cast<const float*>(weight.data()), out.data());
  for (int d = 0; d < dim; d++)
    for (int lane = 0; lane < kLanesOfTile; lane++) {
      double sum = 3;
      for (int j = 0; j < keys; j++) sum += at(value, j * pitch + d * value_step) * at(weight, (j / 2 * kLanesOfTile + lane) * 2 + j % 2);
      expect_equal("values", sizes, d * kLanesOfTile + lane, out[static_cast<size_t>(d * kLanesOfTile + lane)], sum);
    }
}

// One call of the micro-kernel: A rows [row][step][2], B [step][column][2].
struct Gemm {
  int vectors, columns, rows, steps;
  bool accumulate;
  std::vector<uint16_t> a, b;
  int a_pitch() const { return 2 * steps + 5; }
  int width() const { return vectors * kLanes; }
  int c_pitch() const { return width() + 3; }

  std::vector<float> run(int some_rows) const {
    std::vector<float> c(static_cast<size_t>(rows * c_pitch()), 5.f);
    const FlushDenormals like_the_tile_unit(true);
    tile_kernel_for({reinterpret_cast<const char*>(a.data()), 2 * a_pitch(), reinterpret_cast<const char*>(b.data()), width() * 4, steps,
                     c.data(), c_pitch(), columns, accumulate},
                    some_rows, vectors);
    return c;
  }
};

void test_gemm() {
  Gemm g{uniform(1, 3), 0, uniform(1, 2 * kTileRows), uniform(1, 70), uniform(0, 1) == 1, {}, {}};
  g.columns = g.width() - uniform(0, 1) * uniform(0, kLanes - 1);
  char sizes[100];
  std::snprintf(sizes, sizeof sizes, "%d rows, %d columns, %d steps%s", g.rows, g.columns, g.steps, g.accumulate ? ", accumulating" : "");
  g.a = whole_numbers(g.rows * g.a_pitch()), g.b = whole_numbers(int64_t{2} * g.steps * g.width());
  const std::vector<float> c = g.run(g.rows);
  for (int i = 0; i < g.rows; i++)
    for (int n = 0; n < g.c_pitch(); n++) {
      double sum = n < g.columns && !g.accumulate ? 0 : 5;
      for (int d = 0; d < 2 * g.steps && n < g.columns; d++)
        sum += at(g.a, i * g.a_pitch() + d) * at(g.b, (d / 2 * g.width() + n) * 2 + d % 2);
      expect_equal("matmul", sizes, i * g.c_pitch() + n, c[static_cast<size_t>(i * g.c_pitch() + n)], sum);
    }
  // One and two rows are the vectors' work, which has the bits of the tile unit for any numbers.
  g.a = normal_numbers(g.rows * g.a_pitch()), g.b = normal_numbers(int64_t{2} * g.steps * g.width());
  const std::vector<float> all = g.run(g.rows);
  for (int few = 1; few <= 2 && few <= g.rows; few++) {
    const std::vector<float> first = g.run(few);
    for (int i = 0; i < few * g.c_pitch(); i++)
      expect_equal("matmul of few rows", sizes, i, first[static_cast<size_t>(i)], all[static_cast<size_t>(i)]);
  }
}

// Apart from main, which runs on any processor.
__attribute__((noinline)) int run_tests() {
  for (int i = 0; i < 60; i++) {
    const int words = kTileWords * uniform(1, 5), pitch = 2 * words + uniform(0, 40), keys = uniform(1, 128), dim = uniform(1, 100);
    const int step = uniform(1, 2);
    if (i % 3 == 0) test_attention<1>(words, pitch, keys, dim, step);
    else if (i % 3 == 1) test_attention<2>(words, pitch, keys, dim, step);
    else test_attention<3>(words, pitch, keys, dim, step);
  }
  for (int i = 0; i < 200; i++) test_gemm();
  std::printf("amx: %d failures\n", failures);
  return failures != 0;
}

}  // namespace

int main() {
  if (best_isa() == Isa::Amx) return run_tests();
  std::printf("amx: skipped, the processor has no AMX-BF16\n");
  return 0;
}

#else

int main() {
  std::printf("amx: skipped, no tile unit on this architecture\n");
  return 0;
}

#endif
