// CUDA's math library on the emulator against the host's in double precision.
#include "harness.h"

using namespace harness;

namespace {

template <class T>
std::vector<T> run_math(const char* kernel, const std::vector<T>& x, int results) {
  static const Module m = Module::compiled("math");
  const Buffer<T> in(x), out(x.size() * results);
  run(m.function(kernel), {static_cast<unsigned>((x.size() + 95) / 96), 96}, in.address(), out.address(), static_cast<int>(x.size()));
  return out.read();
}

template <class T>
std::vector<T> points(int n) {
  std::vector<T> x(n);
  for (int i = 0; i < n; ++i) x[i] = static_cast<T>((i - n / 2) * 0.031 + 0.0007);
  return x;
}

void near(double got, double want, double tolerance, const std::string& what) {
  check(std::fabs(got - want) <= tolerance * std::max(1e-3, std::fabs(want)),
        what + ": " + std::to_string(got) + ", expected " + std::to_string(want));
}

}  // namespace

TEST("f32 functions") {
  const auto x = points<float>(500);
  const auto got = run_math<float>("math_f32", x, 27);
  for (size_t i = 0; i < x.size(); ++i) {
    const double v = x[i], p = std::fabs(x[i]) + 0.01f;
    const double want[] = {std::exp(v),
                           std::log(p),
                           std::pow(p, static_cast<double>(1.3f)),
                           std::sin(v),
                           std::cos(static_cast<double>(x[i] * 50.f)),
                           std::tanh(v),
                           std::erf(v),
                           1 / std::sqrt(p),
                           std::cbrt(v),
                           std::atan2(v, static_cast<double>(0.7f)),
                           std::fmod(v, static_cast<double>(0.3f)),
                           std::exp2(v),
                           std::log1p(p),
                           std::expm1(v),
                           std::asin(static_cast<double>(x[i] / 9.f)),
                           std::floor(v),
                           std::nearbyint(static_cast<double>(x[i] * 3)),
                           std::trunc(v),
                           std::sinh(v),
                           std::hypot(v, 2.),
                           0.5 * std::erfc(-v / std::sqrt(2.)),
                           std::log2(p),
                           1 / p,
                           std::sqrt(p),
                           std::ldexp(v, 5),
                           std::sin(static_cast<double>(x[i] * 1e6f)),
                           std::lgamma(p)};
    for (size_t k = 0; k < std::size(want); ++k)
      near(got[k * x.size() + i], want[k], 3e-5, "function " + std::to_string(k) + " of " + std::to_string(v));
  }
}

TEST("f64 functions") {
  const auto x = points<double>(300);
  const auto got = run_math<double>("math_f64", x, 8);
  for (size_t i = 0; i < x.size(); ++i) {
    const double v = x[i], p = std::fabs(v) + 0.01;
    const double want[] = {std::exp(v), std::log(p), std::sin(v), std::pow(p, 2.5), v / (p + 1), std::sqrt(p), std::erf(v), std::tanh(v)};
    for (size_t k = 0; k < std::size(want); ++k)
      near(got[k * x.size() + i], want[k], 1e-12, "function " + std::to_string(k) + " of " + std::to_string(v));
  }
}

TEST("long integers") {
  std::mt19937_64 rng(5);
  std::vector<uint64_t> x(400);
  for (auto& v : x) v = rng() >> (rng() % 60);
  const size_t n = x.size();
  const auto got = run_math<uint64_t>("math_int", x, 4);
  for (size_t i = 0; i < n; ++i) {
    const uint64_t a = x[i], b = x[(i + 1) % n] | 1;
    __extension__ using u128 = unsigned __int128;
    const u128 product = static_cast<u128>(a) * b;
    uint32_t c0 = static_cast<uint32_t>(a), c1 = static_cast<uint32_t>(a >> 32), key = static_cast<uint32_t>(b);
    for (int r = 0; r < 10; ++r) {
      const uint64_t p = static_cast<uint64_t>(c0) * 0xd2511f53u;
      c0 = static_cast<uint32_t>(p >> 32) ^ key ^ c1;
      c1 = static_cast<uint32_t>(p);
      key += 0x9e3779b9u;
    }
    const uint64_t want[] = {static_cast<uint64_t>(product >> 64) ^ static_cast<uint64_t>(product + a), a / b + a % b,
                             static_cast<uint64_t>(static_cast<int64_t>(a) / static_cast<int64_t>(b)) + a / 1000003,
                             static_cast<uint64_t>(c1) << 32 | c0};
    for (int k = 0; k < 4; ++k)
      check(got[k * n + i] == want[k], "result " + std::to_string(k) + " of " + std::to_string(a) + " and " + std::to_string(b));
  }
}

TEST("half functions") {
  const auto x = points<float>(200);
  const size_t n = x.size();
  const auto got = run_math<float>("math_half", x, 6);
  for (size_t i = 0; i < n; ++i) {
    const double v = x[i];
    near(got[i], std::exp(v), 4e-3, "hexp");
    near(got[n + i], v * v + v, 4e-3 * std::max(1.0, std::fabs(v / (v * v + v + 1e-6))), "hfma");
    near(got[2 * n + i], std::fabs(v), 5e-3, "hmax2");
    near(got[3 * n + i], -2 * v, 5e-3, "hadd2");
    near(got[4 * n + i], v / 3, 2e-3, "half division");
    check(std::fabs(v - 0.25) < 1e-3 || got[5 * n + i] == (v < 0.25 ? 1 : 0), "hlt");
  }
}

int main(int argc, char** argv) { return main_of_tests(argc, argv); }
