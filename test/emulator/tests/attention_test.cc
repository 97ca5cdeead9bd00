// The flash attention kernel of kernels/attention.cu against a double-precision reference.
#include <chrono>

#include "harness.h"

using namespace harness;

namespace {

uint16_t to_bf16(float v) {
  uint32_t b;
  std::memcpy(&b, &v, 4);
  return static_cast<uint16_t>((b + 0x7fff + (b >> 16 & 1)) >> 16);
}
float from_bf16(uint16_t v) {
  const uint32_t b = static_cast<uint32_t>(v) << 16;
  float f;
  std::memcpy(&f, &b, 4);
  return f;
}

std::vector<uint16_t> random_bf16(size_t n, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  std::vector<uint16_t> v(n);
  for (auto& x : v) x = to_bf16(normal(rng));
  return v;
}

void attend(int heads, int length, bool causal) {
  constexpr int d = 64;
  const size_t n = static_cast<size_t>(heads) * length * d;
  const auto q = random_bf16(n, 1), k = random_bf16(n, 2), v = random_bf16(n, 3);
  const Buffer<uint16_t> dq(q), dk(k), dv(v), out(n);
  const Buffer<float> lse(static_cast<size_t>(heads) * length);
  static const Module module = Module::compiled("attention");
  const float scale = 0.125f;
  const CUfunction f = module.function("attention");
  const auto begin = std::chrono::steady_clock::now();
  run(f, {static_cast<unsigned>((length + 63) / 64), 128, 5 * 64 * 128, static_cast<unsigned>(heads)}, dq.address(), dk.address(),
      dv.address(), out.address(), lse.address(), length, scale * 1.44269504f, causal ? 1 : 0);
  if (std::getenv("FOVEA_EMULATOR_TIMES")) {
    std::printf("attention H%d L%d: %.2f ms\n", heads, length,
                std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count());
  }
  const auto got = out.read();
  const auto got_lse = lse.read();
  std::vector<double> s(length), row(d);
  for (int h = 0; h < heads; ++h) {
    for (int i = 0; i < length; ++i) {
      const int keys = causal ? i + 1 : length;
      const size_t base = static_cast<size_t>(h) * length * d;
      double top = -INFINITY, sum = 0;
      for (int j = 0; j < keys; ++j) {
        s[j] = 0;
        for (int e = 0; e < d; ++e) s[j] += static_cast<double>(from_bf16(q[base + i * d + e])) * from_bf16(k[base + j * d + e]);
        s[j] *= scale;
        top = std::max(top, s[j]);
      }
      row.assign(d, 0);
      for (int j = 0; j < keys; ++j) {
        const double p = std::exp(s[j] - top);
        sum += p;
        for (int e = 0; e < d; ++e) row[e] += p * from_bf16(v[base + j * d + e]);
      }
      for (int e = 0; e < d; ++e) {
        const double want = row[e] / sum, have = from_bf16(got[base + i * d + e]);
        check(std::fabs(want - have) < 0.02, "row " + std::to_string(i) + " element " + std::to_string(e) + ": " + std::to_string(have) +
                                                 ", expected " + std::to_string(want));
      }
      check(std::fabs(got_lse[h * length + i] - (top + std::log(sum))) < 1e-3, "lse of row " + std::to_string(i));
    }
  }
}

}  // namespace

TEST("attention of 256 keys") { attend(1, 256, false); }
TEST("causal attention, two heads, ragged length") { attend(2, 150, true); }
TEST("attention shorter than a tile") { attend(1, 19, false); }

int main(int argc, char** argv) { return main_of_tests(argc, argv); }
