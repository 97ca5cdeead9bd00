// Arithmetic of floats, comparisons and conversions against plain C++.
#include "compare.h"

using namespace harness;

namespace {

float flush(float v) { return std::fabs(v) < std::numeric_limits<float>::min() ? std::copysign(0.f, v) : v; }

template <class T>
T smaller(T a, T b) {
  return a != a ? b : b != b ? a : a == b ? (std::signbit(a) ? a : b) : std::min(a, b);
}
template <class T>
T larger(T a, T b) {
  return -smaller(-a, -b);
}

template <class T>
void arithmetic(const std::string& t) {
  compare<T, T, T>("add" + t, [](T a, T b) { return a + b; });
  compare<T, T, T>("add.rn" + t, [](T a, T b) { return a + b; });
  compare<T, T, T>("sub" + t, [](T a, T b) { return a - b; });
  compare<T, T, T>("sub.rn" + t, [](T a, T b) { return a - b; });
  compare<T, T, T>("mul" + t, [](T a, T b) { return a * b; });
  compare<T, T, T>("mul.rn" + t, [](T a, T b) { return a * b; });
  compare<T, T, T>("div.rn" + t, [](T a, T b) { return a / b; });
  compare<T, T, T, T>("fma.rn" + t, [](T a, T b, T c) { return std::fma(a, b, c); });
  compare<T, T>("sqrt.rn" + t, [](T a) { return std::sqrt(a); });
  compare<T, T>("rcp.rn" + t, [](T a) { return 1 / a; });
  compare<T, T>("neg" + t, [](T a) { return -a; });
  compare<T, T>("abs" + t, [](T a) { return std::fabs(a); });
  compare<T, T>("mov" + t, [](T a) { return a; });
  compare<T, T, T>("min" + t, smaller<T>);
  compare<T, T, T>("max" + t, larger<T>);
  compare<T, T, T>("copysign" + t, [](T a, T b) { return std::copysign(b, a); });
  compare<T, T>("cvt.rmi" + t + t, [](T v) { return std::floor(v); });
  compare<T, T>("cvt.rpi" + t + t, [](T v) { return std::ceil(v); });
  compare<T, T>("cvt.rni" + t + t, [](T v) { return std::nearbyint(v); });
  compare<T, T>("cvt.rzi" + t + t, [](T v) { return std::trunc(v); });
}

template <class T>
void conditions(const std::string& t) {
  const auto condition = [&](const std::string& name, auto f) {
    compare<uint32_t, T, T>("setp." + name + t + " %p0, $s0, $s1; selp.b32 $d0, 1, 0, %p0;",
                            [f](T a, T b) { return static_cast<uint32_t>(f(a, b)); });
    compare<uint32_t, T, T>("setp.gt" + t + " %p1, $s0, 0" + (sizeof(T) == 4 ? "f00000000" : "d0000000000000000") + "; setp." + name +
                                ".and" + t + " %p0, $s0, $s1, %p1; selp.b32 $d0, 1, 0, %p0;",
                            [f](T a, T b) { return static_cast<uint32_t>(a > 0 && f(a, b)); });
  };
  const auto ordered = [](T a, T b) { return a == a && b == b; };
  condition("eq", [](T a, T b) { return a == b; });
  condition("ne", [](T a, T b) { return a < b || a > b; });
  condition("lt", [](T a, T b) { return a < b; });
  condition("le", [](T a, T b) { return a <= b; });
  condition("gt", [](T a, T b) { return a > b; });
  condition("ge", [](T a, T b) { return a >= b; });
  condition("equ", [=](T a, T b) { return !ordered(a, b) || a == b; });
  condition("neu", [](T a, T b) { return a != b; });
  condition("ltu", [](T a, T b) { return !(a >= b); });
  condition("leu", [](T a, T b) { return !(a > b); });
  condition("gtu", [](T a, T b) { return !(a <= b); });
  condition("geu", [](T a, T b) { return !(a < b); });
  condition("num", ordered);
  condition("nan", [=](T a, T b) { return !ordered(a, b); });
  compare<T, T, T>("setp.lt" + t + " %p0, $s0, $s1; selp" + t + " $d0, $s0, $s1, %p0;", [](T a, T b) { return a < b ? a : b; });
}

// Both ends of D saturate; NaN is left out, since CUDA does not say what becomes of it where 64 bits are involved.
template <class D, class S>
void to_integer(const std::string& mode, const std::string& d, const std::string& s, S (*whole)(S)) {
  compare<D, S>("setp.nan" + s + " %p0, $s0, $s0; selp" + s + " $s0, 0" + (sizeof(S) == 4 ? "f00000000" : "d0000000000000000") +
                    ", $s0, %p0; cvt." + mode + d + s + " $d0, $s0;",
                [whole](S v) {
                  if (v != v) return D{0};
                  const S low = static_cast<S>(std::numeric_limits<D>::min()), w = whole(v);
                  return w >= -low ? std::numeric_limits<D>::max() : w <= low ? std::numeric_limits<D>::min() : static_cast<D>(w);
                });
}

}  // namespace

TEST("arithmetic of both widths") { arithmetic<float>(".f32"), arithmetic<double>(".f64"); }
TEST("conditions of both widths") { conditions<float>(".f32"), conditions<double>(".f64"); }

TEST("floats to integers") {
  to_integer<int32_t, float>("rzi", ".s32", ".f32", std::trunc);
  to_integer<int64_t, float>("rzi", ".s64", ".f32", std::trunc);
  to_integer<int32_t, double>("rzi", ".s32", ".f64", std::trunc);
  to_integer<int64_t, double>("rzi", ".s64", ".f64", std::trunc);
  to_integer<int32_t, double>("rni", ".s32", ".f64", std::nearbyint);
}

TEST("integers to floats") {
  compare<double, int32_t>("cvt.rn.f64.s32", [](int32_t v) { return static_cast<double>(v); });
  compare<double, uint32_t>("cvt.rn.f64.u32", [](uint32_t v) { return static_cast<double>(v); });
  compare<double, uint16_t>("cvt.rn.f64.u16", [](uint16_t v) { return static_cast<double>(v); });
  compare<float, uint32_t>("cvt.rn.f32.u32", [](uint32_t v) { return static_cast<float>(v); });
  compare<float, uint16_t>("cvt.rn.f32.u16", [](uint16_t v) { return static_cast<float>(v); });
}

TEST("approximations") {
  compare<float, float>(
      "ex2.approx.ftz.f32", [](float a) { return flush(std::exp2(flush(a))); }, 3e-7);
  compare<float, float>(
      "rcp.approx.f32", [](float a) { return 1 / a; }, 3e-7);
  compare<float, float>(
      "rcp.approx.ftz.f32", [](float a) { return flush(1 / flush(a)); }, 3e-7);
  compare<double, double>(
      "rcp.approx.ftz.f64", [](double a) { return 1 / (std::fabs(a) < std::numeric_limits<double>::min() ? std::copysign(0.0, a) : a); },
      1e-6);
  compare<float, float>(
      "sqrt.approx.f32", [](float a) { return std::sqrt(a); }, 3e-7);
  for (const std::string mode : {"approx", "full"})
    compare<float, float>(
        "setp.nan.f32 %p0, $s0, $s0; selp.f32 $s0, 0f3F800000, $s0, %p0; min.f32 $s0, $s0, 0f49742400; max.f32 $s0, $s0, 0fC9742400; div." +
            mode + ".f32 $d0, $s0, 0f40490FDB;",
        [](float a) { return (a != a ? 1.f : std::min(std::max(a, -1e6f), 1e6f)) / 3.14159274f; }, 5e-7);
}

TEST("f32 arithmetic") {
  compare<float, float, float>("add.f32", [](float a, float b) { return a + b; });
  compare<float, float, float>("add.rn.ftz.f32", [](float a, float b) { return flush(flush(a) + flush(b)); });
  compare<float, float, float>("sub.f32", [](float a, float b) { return a - b; });
  compare<float, float, float>("mul.rn.f32", [](float a, float b) { return a * b; });
  compare<float, float, float, float>("fma.rn.f32", [](float a, float b, float c) { return std::fma(a, b, c); });
  compare<float, float, float>("div.rn.f32", [](float a, float b) { return a / b; });
  compare<float, float>("sqrt.rn.f32", [](float a) { return std::sqrt(a); });
  compare<float, float, float>("min.f32", [](float a, float b) {
    return a != a ? b : b != b ? a : a == b ? (std::signbit(a) ? a : b) : std::min(a, b);
  });
  compare<float, float, float>("min.NaN.f32", [](float a, float b) { return a != a || b != b ? NAN : smaller(a, b); });
  compare<float, float, float>("max.NaN.f32", [](float a, float b) {
    return a != a || b != b ? NAN : a == b ? (std::signbit(a) ? b : a) : std::max(a, b);
  });
  compare<float, float>("abs.f32", [](float a) { return std::fabs(a); });
  compare<float, float>(
      "ex2.approx.f32", [](float a) { return std::exp2(a); }, 3e-7);
  compare<float, float>(
      "lg2.approx.f32", [](float a) { return std::log2(a); }, 1e-6);
  compare<float, float>(
      "rsqrt.approx.f32", [](float a) { return static_cast<float>(1 / std::sqrt(static_cast<double>(a))); }, 3e-7);
  compare<float, float>(
      "tanh.approx.f32", [](float a) { return std::tanh(a); }, 1e-6);
  compare<double, double, double, double>("fma.rn.f64", [](double a, double b, double c) { return std::fma(a, b, c); });
}

TEST("directed rounding") {
  const auto down = [](double exact) {
    float r = static_cast<float>(exact);
    return static_cast<double>(r) > exact ? std::nextafter(r, -INFINITY) : r;
  };
  const auto up = [](double exact) {
    float r = static_cast<float>(exact);
    return static_cast<double>(r) < exact ? std::nextafter(r, INFINITY) : r;
  };
  const std::string guard =
      "abs.f32 $s0, $s0; setp.lt.f32 %p0, $s0, 0f49800000; selp.f32 $s0, $s0, 0f3F800000, %p0; setp.gt.f32 %p0, $s0, 0f3C000000; selp.f32 "
      "$s0, $s0, 0f3F800000, %p0; ";
  const auto clean = [](float a) {
    a = std::fabs(a);
    return a < 1048576.f && a > 0.0078125f ? a : 1.f;
  };
  compare<float, float>(guard + "mul.rm.f32 $d0, $s0, $s0;", [&](float a) {
    a = clean(a);
    return down(static_cast<double>(a) * a);
  });
  compare<float, float>(guard + "mul.rp.f32 $d0, $s0, $s0;", [&](float a) {
    a = clean(a);
    return up(static_cast<double>(a) * a);
  });
  compare<float, float>(guard + "fma.rm.f32 $d0, $s0, 0f437C0000, 0f4B400001;", [&](float a) {
    a = clean(a);
    return down(static_cast<double>(a) * 252.0 + 12582913.0);
  });
  compare<float, float>(guard + "fma.rz.f32 $d0, $s0, 0f437C0000, 0f4B400001;", [&](float a) {
    a = clean(a);
    return down(static_cast<double>(a) * 252.0 + 12582913.0);
  });
  compare<float, float>(guard + "add.rz.f32 $d0, $s0, 0f3DCCCCCD;", [&](float a) {
    a = clean(a);
    return down(static_cast<double>(a) + static_cast<double>(0.1f));
  });
}

TEST("comparisons of floats, ordered and unordered") {
  const auto condition = [&](const char* name, auto f) {
    compare<uint32_t, float, float>("setp." + std::string(name) + ".f32 %p0, $s0, $s1; selp.b32 $d0, 1, 0, %p0;",
                                    [f](float a, float b) { return static_cast<uint32_t>(f(a, b)); });
  };
  condition("eq", [](float a, float b) { return a == b; });
  condition("neu", [](float a, float b) { return a != b; });
  condition("ne", [](float a, float b) { return a < b || a > b; });
  condition("ltu", [](float a, float b) { return !(a >= b); });
  condition("ge", [](float a, float b) { return a >= b; });
  condition("nan", [](float a, float b) { return a != a || b != b; });
  compare<uint32_t, int32_t, int32_t>(
      "setp.lt.s32 %p2, $s0, 0; setp.gt.and.s32 %p0|%p1, $s1, 5, %p2; selp.b32 $d0, 1, 0, %p0; selp.b32 %x, 2, 0, %p1; or.b32 $d0, $d0, "
      "%x;",
      [](int32_t a, int32_t b) { return (b > 5 && a < 0 ? 1u : 0u) | (!(b > 5) && a < 0 ? 2u : 0u); });
}

TEST("conversions") {
  compare<int32_t, float>("cvt.rzi.s32.f32", [](float v) {
    return v != v ? 0 : v >= 2147483648.f ? INT32_MAX : v <= -2147483648.f ? INT32_MIN : static_cast<int32_t>(v);
  });
  compare<int32_t, float>("cvt.rni.s32.f32", [](float v) {
    return v != v ? 0 : v >= 2147483648.f ? INT32_MAX : v <= -2147483648.f ? INT32_MIN : static_cast<int32_t>(std::nearbyint(v));
  });
  compare<uint32_t, float>("cvt.rpi.u32.f32", [](float v) {
    return v != v || v <= 0 ? 0u : v >= 4294967296.f ? UINT32_MAX : static_cast<uint32_t>(std::ceil(v));
  });
  compare<float, int32_t>("cvt.rn.f32.s32", [](int32_t v) { return static_cast<float>(v); });
  compare<float, uint64_t>("cvt.rn.f32.u64", [](uint64_t v) { return static_cast<float>(v); });
  compare<float, int64_t>("cvt.rn.f32.s64", [](int64_t v) { return static_cast<float>(v); });
  compare<double, int64_t>("cvt.rn.f64.s64", [](int64_t v) { return static_cast<double>(v); });
  compare<float, double>("cvt.rn.f32.f64", [](double v) { return static_cast<float>(v); });
  compare<double, float>("cvt.f64.f32", [](float v) { return static_cast<double>(v); });
  compare<int64_t, int32_t>("cvt.s64.s32", [](int32_t v) { return int64_t{v}; });
  compare<uint64_t, uint16_t>("cvt.u64.u16", [](uint16_t v) { return uint64_t{v}; });
  compare<int16_t, int32_t>("cvt.sat.s16.s32", [](int32_t v) { return static_cast<int16_t>(std::min(32767, std::max(-32768, v))); });
  compare<int32_t, int32_t>("cvt.s32.s8", [](int32_t v) { return static_cast<int32_t>(static_cast<int8_t>(v)); });
  compare<float, float>("cvt.sat.f32.f32", [](float v) { return v > 0 ? std::min(v, 1.f) : 0.f; });
  compare<float, float>("cvt.rmi.f32.f32", [](float v) { return std::floor(v); });
  compare<uint16_t, float>("cvt.rn.bf16.f32", [](float v) {
    if (v != v) return static_cast<uint16_t>(0x7fff);
    const uint32_t b = std::bit_cast<uint32_t>(v);
    if ((b & 0x7f800000) == 0x7f800000) return static_cast<uint16_t>(b >> 16);
    const double unit = std::ldexp(1.0, std::max(-126, static_cast<int>(b >> 23 & 255) - 127) - 7);  // one step of bf16 here
    const float r = static_cast<float>(std::nearbyint(v / unit) * unit);
    return static_cast<uint16_t>(std::bit_cast<uint32_t>(std::copysign(r, v)) >> 16);
  });
  compare<uint16_t, float>("cvt.rn.f16.f32", [](float v) {
    if (v != v) return static_cast<uint16_t>(0x7fff);
    const uint16_t sign = std::signbit(v) ? 0x8000 : 0;
    const double m = std::fabs(static_cast<double>(v));
    if (m >= 65520) return static_cast<uint16_t>(sign | 0x7c00);
    const int e = m < std::ldexp(1, -14) ? -14 : std::ilogb(m);
    const double units = std::nearbyint(std::ldexp(m, 10 - e));  // 1024 + mantissa, or the subnormal's mantissa
    return static_cast<uint16_t>(sign | static_cast<uint16_t>(units + (e + 14) * 1024.0));
  });
  compare<float, uint16_t>("cvt.f32.f16", [](uint16_t h) {
    const int e = h >> 10 & 31, m = h & 1023;
    const double v = e == 31 ? (m ? NAN : INFINITY) : e ? std::ldexp(1024 + m, e - 25) : std::ldexp(m, -24);
    return static_cast<float>(h & 0x8000 ? -v : v);
  });
  compare<uint32_t, float>("cvt.rna.tf32.f32 $d0, $s0;", [](float v) {
    const uint32_t b = std::bit_cast<uint32_t>(v);
    return (b & 0x7f800000) == 0x7f800000 ? b : (b + 0x1000) & ~0x1fffu;
  });
}

TEST("packed halves") {
  // Sums and products of two small integers are exact in both formats.
  compare<uint32_t, uint32_t>(
      "cvt.u16.u32 %h1, $s0; and.b16 %h1, %h1, 63; cvt.rn.f32.u16 %x, %h1; cvt.rn.bf16x2.f32 %r5, %x, 0f40000000; fma.rn.bf16x2 %r6, %r5, "
      "%r5, %r5; mov.b32 $d0, %r6;",
      [](uint32_t s) {
        const auto bf = [](double v) {
          const uint32_t b = std::bit_cast<uint32_t>(static_cast<float>(v));
          return (b + 0x7fff + (b >> 16 & 1)) >> 16;
        };
        const double v = s & 63;
        return bf(6) | bf(v * v + v) << 16;
      });
  compare<uint32_t, uint32_t>(
      "and.b32 %x, $s0, 63; cvt.rn.f32.u32 %x, %x; cvt.rn.f16x2.f32 %r5, %x, 0f40000000; mov.b32 {%h2, %h3}, %r5; cvt.f32.f16 %r6, %h2; "
      "cvt.f32.f16 %r7, %h3; fma.rn.f32 %r7, %r7, 0f42C80000, %r6; cvt.rzi.u32.f32 $d0, %r7;",
      [](uint32_t s) { return 100 * (s & 63) + 2; });
  compare<uint32_t, uint32_t>(
      "and.b32 %x, $s0, 15; cvt.rn.f16.u32 %h1, %x; mov.b32 %r5, {%h1, %h1}; add.f16x2 %r6, %r5, %r5; mul.f16x2 %r6, %r6, %r5; mov.b32 "
      "{%h2, %h3}, %r6; cvt.f32.f16 %x, %h3; cvt.rzi.u32.f32 $d0, %x;",
      [](uint32_t s) { return 2 * (s & 15) * (s & 15); });
}

int main(int argc, char** argv) { return main_of_tests(argc, argv); }
