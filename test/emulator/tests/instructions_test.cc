// Instructions against plain C++ over random and edge values. A snippet reads its operands from arrays, one element a thread.
#include <bit>
#include <limits>

#include "harness.h"

using namespace harness;

namespace {

template <class T>
std::string suffix() {
  const char kind = std::is_floating_point_v<T> ? 'f' : 'b';
  return kind + std::to_string(8 * sizeof(T));
}
const char* register_of(size_t bytes) { return bytes == 2 ? "%h" : bytes == 4 ? "%r" : "%d"; }

constexpr int kCount = 256;

template <class T>
std::vector<T> samples(uint32_t seed) {
  std::mt19937_64 rng(seed);
  std::vector<T> v(kCount);
  for (auto& x : v) {
    const uint64_t bits = rng();
    if constexpr (std::is_floating_point_v<T>) {
      x = static_cast<T>(std::ldexp(static_cast<double>(static_cast<int64_t>(bits)) / 9.2e18, static_cast<int>(rng() % 40) - 20));
    } else {
      x = static_cast<T>(bits >> (rng() % (8 * sizeof(T))));
    }
  }
  if constexpr (std::is_floating_point_v<T>) {
    const T edges[] = {0,
                       static_cast<T>(-0.0),
                       1,
                       -1,
                       std::numeric_limits<T>::infinity(),
                       -std::numeric_limits<T>::infinity(),
                       std::numeric_limits<T>::quiet_NaN(),
                       std::numeric_limits<T>::max(),
                       std::numeric_limits<T>::min(),
                       std::numeric_limits<T>::denorm_min(),
                       static_cast<T>(0.5),
                       static_cast<T>(2.5),
                       static_cast<T>(-3.5),
                       static_cast<T>(3e9),
                       static_cast<T>(-3e9)};
    for (size_t k = 0; k < std::size(edges); ++k) v[(k * (seed % 7 + 1)) % kCount] = edges[k];
  } else {
    const T edges[] = {0,  1,  static_cast<T>(-1),  std::numeric_limits<T>::max(), std::numeric_limits<T>::min(), 2, 31, 32, 33,
                       63, 64, static_cast<T>(0x80)};
    for (size_t k = 0; k < std::size(edges); ++k) v[(k * (seed % 7 + 1)) % kCount] = edges[k];
  }
  return v;
}

// Runs `body`, PTX over d0 (the result) and s0, s1, s2 with the register classes of D and S..., for each element.
template <class D, class... S>
std::vector<D> execute(const std::string& body, const std::vector<S>&... inputs) {
  const size_t bytes[] = {sizeof(D), sizeof(S)...};
  std::string text = ptx_header() + ".visible .entry k(.param .u64 p0";
  for (size_t k = 1; k <= sizeof...(S); ++k) text += ", .param .u64 p" + std::to_string(k);
  text +=
      ") {\n.reg .b32 %t, %x; .reg .b64 %a<8>, %o<8>; .reg .pred %p<4>; .reg .b16 %h<8>; .reg .b32 %r<8>; .reg .b64 %d<8>;\n mov.u32 %t, "
      "%tid.x;\n";
  for (size_t k = 0; k <= sizeof...(S); ++k) {
    const std::string n = std::to_string(k);
    text += "ld.param.u64 %a" + n + ", [p" + n + "];\n mul.wide.u32 %o" + n + ", %t, " + std::to_string(bytes[k]) + ";\n add.u64 %a" + n +
            ", %a" + n + ", %o" + n + ";\n";
    if (k) text += "ld.global.b" + std::to_string(8 * bytes[k]) + " " + register_of(bytes[k]) + std::to_string(k) + ", [%a" + n + "];\n";
  }
  std::string code = body;
  for (size_t k = 0; k <= sizeof...(S); ++k) {
    const std::string from = (k ? "s" + std::to_string(k - 1) : "d0");
    for (size_t at; (at = code.find("$" + from)) != std::string::npos;)
      code.replace(at, from.size() + 1, register_of(bytes[k]) + std::to_string(k));
  }
  text += code + "\nst.global.b" + std::to_string(8 * sizeof(D)) + " [%a0], " + register_of(sizeof(D)) + "0;\nret;\n}\n";
  const Module module(text);
  const Buffer<D> out(kCount);
  const auto call = [&](const auto&... buffers) { run(module.function("k"), {1, kCount}, out.address(), buffers.address()...); };
  call(Buffer<S>(inputs)...);
  return out.read();
}

std::string show(double v) { return std::to_string(v); }

template <class D>
bool same(D a, D b, double tolerance) {
  if constexpr (std::is_floating_point_v<D>) {
    if (a != a || b != b) return a != a && b != b;
    if (a == b) return tolerance > 0 || std::signbit(a) == std::signbit(b);
    return std::fabs(a - b) <= tolerance * std::fabs(b);
  } else {
    return a == b;
  }
}

template <class D, class... S, class F>
void compare(const std::string& opcode, F f, double tolerance = 0) {
  static_assert(sizeof...(S) >= 1 && sizeof...(S) <= 4);
  uint32_t seed = 1;
  const auto inputs = std::make_tuple(samples<S>(seed++)...);
  std::string body = opcode + " $d0";
  for (size_t k = 0; k < sizeof...(S); ++k) body += ", $s" + std::to_string(k);
  std::apply(
      [&](const auto&... in) {
        const std::vector<D> got = execute<D, S...>(opcode.find("$d0") == std::string::npos ? body + ";" : opcode, in...);
        for (int k = 0; k < kCount; ++k) {
          const D want = f(in[k]...);
          std::string operands;
          ((operands += " " + show(static_cast<double>(in[k]))), ...);
          check(same(got[k], want, tolerance),
                opcode + ":" + operands + " gave " + show(static_cast<double>(got[k])) + ", expected " + show(static_cast<double>(want)));
        }
      },
      inputs);
}

template <class T>
void integers(const char* t) {
  using U = std::make_unsigned_t<T>;
  const std::string s = std::string(".") + t;
  compare<T, T, T>("add" + s, [](T a, T b) { return static_cast<T>(static_cast<U>(a) + static_cast<U>(b)); });
  compare<T, T, T>("sub" + s, [](T a, T b) { return static_cast<T>(static_cast<U>(a) - static_cast<U>(b)); });
  compare<T, T, T>("mul.lo" + s, [](T a, T b) { return static_cast<T>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b)); });
  compare<T, T, T, T>("mad.lo" + s, [](T a, T b, T c) {
    return static_cast<T>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b) + static_cast<uint64_t>(c));
  });
  compare<T, T, T>("mul.hi" + s, [](T a, T b) {
    __extension__ using W = std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>;
    return static_cast<T>((static_cast<W>(a) * static_cast<W>(b)) >> (8 * sizeof(T)));
  });
  compare<T, T, T>("min" + s, [](T a, T b) { return std::min(a, b); });
  compare<T, T, T>("max" + s, [](T a, T b) { return std::max(a, b); });
  compare<T, T, T>("div" + s, [](T a, T b) {
    return b == 0                                           ? static_cast<T>(-1)
           : std::is_signed_v<T> && b == static_cast<T>(-1) ? static_cast<T>(-static_cast<U>(a))
                                                            : static_cast<T>(a / b);
  });
  compare<T, T, T>("rem" + s, [](T a, T b) {
    return b == 0 ? a : std::is_signed_v<T> && b == static_cast<T>(-1) ? T(0) : static_cast<T>(a % b);
  });
  compare<T, T, uint32_t>("shr" + s,
                          [](T a, uint32_t n) { return n >= 8 * sizeof(T) ? static_cast<T>(a < 0 ? -1 : 0) : static_cast<T>(a >> n); });
  const auto condition = [&](const char* name, auto f) {
    compare<uint32_t, T, T>("setp." + std::string(name) + s + " %p0, $s0, $s1; selp.b32 $d0, 1, 0, %p0;",
                            [f](T a, T b) { return static_cast<uint32_t>(f(a, b)); });
  };
  condition("eq", [](T a, T b) { return a == b; });
  condition("ne", [](T a, T b) { return a != b; });
  condition("lt", [](T a, T b) { return a < b; });
  condition("le", [](T a, T b) { return a <= b; });
  condition("gt", [](T a, T b) { return a > b; });
  condition("ge", [](T a, T b) { return a >= b; });
}

float flush(float v) { return std::fabs(v) < std::numeric_limits<float>::min() ? std::copysign(0.f, v) : v; }

}  // namespace

TEST("integer arithmetic of 16 bits") { integers<uint16_t>("u16"), integers<int16_t>("s16"); }
TEST("integer arithmetic of 32 bits") { integers<uint32_t>("u32"), integers<int32_t>("s32"); }
TEST("integer arithmetic of 64 bits") { integers<uint64_t>("u64"), integers<int64_t>("s64"); }

TEST("wide and carrying multiplication") {
  compare<uint64_t, uint32_t, uint32_t>("mul.wide.u32", [](uint32_t a, uint32_t b) { return uint64_t{a} * b; });
  compare<int64_t, int32_t, int32_t>("mul.wide.s32", [](int32_t a, int32_t b) { return int64_t{a} * b; });
  compare<int32_t, int16_t, int16_t>("mul.wide.s16", [](int16_t a, int16_t b) { return int32_t{a} * b; });
  compare<uint64_t, uint32_t, uint32_t, uint64_t>("mad.wide.u32", [](uint32_t a, uint32_t b, uint64_t c) { return uint64_t{a} * b + c; });
  compare<uint64_t, uint32_t, uint32_t, uint32_t>(
      "add.cc.u32 %x, $s0, $s1; addc.u32 %r7, $s2, 0; mov.b64 $d0, {%x, %r7};", [](uint32_t a, uint32_t b, uint32_t c) {
        const uint64_t s = uint64_t{a} + b;
        return static_cast<uint64_t>(static_cast<uint32_t>(s)) | uint64_t{static_cast<uint32_t>(c + (s >> 32))} << 32;
      });
  compare<uint64_t, uint32_t, uint32_t>("sub.cc.u32 %x, $s0, $s1; subc.u32 %r7, 0, 0; mov.b64 $d0, {%x, %r7};",
                                        [](uint32_t a, uint32_t b) { return uint64_t{a} - uint64_t{b}; });
  compare<uint64_t, uint32_t, uint32_t, uint32_t>("mad.lo.cc.u32 %x, $s0, $s1, $s2; madc.hi.u32 %r7, $s0, $s1, 0; mov.b64 $d0, {%x, %r7};",
                                                  [](uint32_t a, uint32_t b, uint32_t c) { return uint64_t{a} * b + c; });
}

TEST("logic, shifts, bit fields") {
  compare<uint32_t, uint32_t, uint32_t>("and.b32", [](uint32_t a, uint32_t b) { return a & b; });
  compare<uint64_t, uint64_t, uint64_t>("xor.b64", [](uint64_t a, uint64_t b) { return a ^ b; });
  compare<uint32_t, uint32_t>("not.b32", [](uint32_t a) { return ~a; });
  compare<uint32_t, uint32_t, uint32_t>("shl.b32", [](uint32_t a, uint32_t n) { return n > 31 ? 0 : a << n; });
  compare<uint64_t, uint64_t, uint32_t>("shl.b64", [](uint64_t a, uint32_t n) { return n > 63 ? 0 : a << n; });
  compare<uint32_t, uint32_t, uint32_t, uint32_t>("shf.l.wrap.b32", [](uint32_t a, uint32_t b, uint32_t n) {
    n &= 31;
    return n ? b << n | a >> (32 - n) : b;
  });
  compare<uint32_t, uint32_t, uint32_t, uint32_t>("shf.r.wrap.b32", [](uint32_t a, uint32_t b, uint32_t n) {
    n &= 31;
    return n ? a >> n | b << (32 - n) : a;
  });
  compare<uint32_t, uint32_t, uint32_t, uint32_t>("shf.r.clamp.b32", [](uint32_t a, uint32_t b, uint32_t n) {
    return n >= 32 ? b : n ? a >> n | b << (32 - n) : a;
  });
  for (uint32_t table : {0x00u, 0x80u, 0xe8u, 0x96u, 0xcau, 0x1bu, 0xffu}) {
    compare<uint32_t, uint32_t, uint32_t, uint32_t>("lop3.b32 $d0, $s0, $s1, $s2, " + std::to_string(table) + ";",
                                                    [table](uint32_t a, uint32_t b, uint32_t c) {
                                                      uint32_t r = 0;
                                                      for (int k = 0; k < 32; ++k)
                                                        r |= (table >> ((a >> k & 1) * 4 + (b >> k & 1) * 2 + (c >> k & 1)) & 1) << k;
                                                      return r;
                                                    });
  }
  compare<uint32_t, uint32_t, uint32_t, uint32_t>("prmt.b32", [](uint32_t a, uint32_t b, uint32_t s) {
    uint32_t r = 0;
    for (int k = 0; k < 4; ++k) {
      const uint32_t pick = s >> (4 * k) & 15, byte = static_cast<uint32_t>((uint64_t{b} << 32 | a) >> (8 * (pick & 7))) & 255;
      r |= (pick & 8 ? (byte & 128 ? 255u : 0u) : byte) << (8 * k);
    }
    return r;
  });
  const auto extract = [](auto a, uint32_t at, uint32_t count) {
    using T = decltype(a);
    const uint32_t bits = 8 * sizeof(T), p = at & 255, n = count & 255;
    std::make_unsigned_t<T> r = 0;
    const bool sign = n != 0 && std::is_signed_v<T> && (static_cast<std::make_unsigned_t<T>>(a) >> std::min(p + n - 1, bits - 1) & 1);
    for (uint32_t k = 0; k < bits; ++k) {
      const bool bit = k < n && p + k < bits ? static_cast<std::make_unsigned_t<T>>(a) >> (p + k) & 1 : sign;
      r |= static_cast<std::make_unsigned_t<T>>(bit) << k;
    }
    return static_cast<T>(r);
  };
  compare<uint32_t, uint32_t, uint32_t, uint32_t>("bfe.u32", extract);
  compare<int32_t, int32_t, uint32_t, uint32_t>("bfe.s32", extract);
  compare<int64_t, int64_t, uint32_t, uint32_t>("bfe.s64", extract);
  compare<uint32_t, uint32_t, uint32_t, uint32_t, uint32_t>("bfi.b32", [](uint32_t a, uint32_t b, uint32_t at, uint32_t count) {
    at &= 255, count &= 255;
    for (uint32_t k = 0; k < count && at + k < 32; ++k) b = (b & ~(1u << (at + k))) | (k < 32 ? (a >> k & 1) << (at + k) : 0);
    return b;
  });
  compare<uint32_t, uint32_t>("popc.b32", [](uint32_t a) { return static_cast<uint32_t>(std::popcount(a)); });
  compare<uint32_t, uint64_t>("popc.b64", [](uint64_t a) { return static_cast<uint32_t>(std::popcount(a)); });
  compare<uint32_t, uint32_t>("clz.b32", [](uint32_t a) { return static_cast<uint32_t>(std::countl_zero(a)); });
  compare<uint32_t, uint32_t>("brev.b32", [](uint32_t a) {
    uint32_t r = 0;
    for (int k = 0; k < 32; ++k) r |= (a >> k & 1) << (31 - k);
    return r;
  });
  compare<uint32_t, uint32_t>("bfind.u32", [](uint32_t a) { return a ? 31u - static_cast<uint32_t>(std::countl_zero(a)) : ~0u; });
  compare<int32_t, uint32_t, uint32_t, int32_t>("dp4a.s32.u32", [](uint32_t a, uint32_t b, int32_t c) {
    uint32_t sum = static_cast<uint32_t>(c);
    for (int k = 0; k < 4; ++k)
      sum += static_cast<uint32_t>(static_cast<int8_t>(a >> (8 * k)) * static_cast<int>(static_cast<uint8_t>(b >> (8 * k))));
    return static_cast<int32_t>(sum);
  });
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
      "and.b32 %x, $s0, 15; cvt.rn.f16.u32 %h1, %x; mov.b32 %r5, {%h1, %h1}; add.f16x2 %r6, %r5, %r5; mul.f16x2 %r6, %r6, %r5; mov.b32 "
      "{%h2, %h3}, %r6; cvt.f32.f16 %x, %h3; cvt.rzi.u32.f32 $d0, %x;",
      [](uint32_t s) { return 2 * (s & 15) * (s & 15); });
}

int main(int argc, char** argv) { return main_of_tests(argc, argv); }
