// Integer arithmetic, logic and bit fields against plain C++.
#include "compare.h"

using namespace harness;

namespace {

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

}  // namespace

TEST("signs") {
  compare<int32_t, int32_t>("neg.s32", [](int32_t a) { return static_cast<int32_t>(-static_cast<uint32_t>(a)); });
  compare<int64_t, int64_t>("neg.s64", [](int64_t a) { return static_cast<int64_t>(-static_cast<uint64_t>(a)); });
  compare<int32_t, int32_t>("abs.s32", [](int32_t a) { return a < 0 ? static_cast<int32_t>(-static_cast<uint32_t>(a)) : a; });
  compare<int64_t, int64_t>("abs.s64", [](int64_t a) { return a < 0 ? static_cast<int64_t>(-static_cast<uint64_t>(a)) : a; });
}

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

TEST("chains of carries") {
  const std::string halves = "mov.b64 {%r4, %r5}, $s0; mov.b64 {%r6, %r7}, $s1; ";
  compare<uint64_t, uint64_t, uint64_t>(
      halves + "add.cc.u32 %x, %r4, %r6; addc.cc.u32 %r5, %r5, %r7; addc.u32 %r4, 0, 0; xor.b32 %x, %x, %r4; mov.b64 $d0, {%x, %r5};",
      [](uint64_t a, uint64_t b) { return (a + b) ^ static_cast<uint64_t>(a + b < a); });
  compare<uint64_t, uint64_t, uint64_t>(
      halves + "sub.cc.u32 %x, %r4, %r6; subc.cc.u32 %r5, %r5, %r7; subc.u32 %r4, 0, 0; xor.b32 %x, %x, %r4; mov.b64 $d0, {%x, %r5};",
      [](uint64_t a, uint64_t b) { return (a - b) ^ (a < b ? 0xffffffffull : 0); });
  compare<uint64_t, uint64_t, uint32_t>(
      "mov.b64 {%r4, %r5}, $s0; mad.lo.cc.u32 %x, %r4, $s1, -1; madc.hi.cc.u32 %r6, %r4, $s1, -7; madc.lo.cc.u32 %r7, %r5, $s1, %r6; "
      "madc.hi.u32 %r4, %r5, $s1, 3; xor.b32 %x, %x, %r6; add.u32 %r7, %r7, %r4; mov.b64 $d0, {%x, %r7};",
      [](uint64_t a, uint32_t b) {
        const uint64_t low = (a & 0xffffffff) * b, high = (a >> 32) * b;
        const uint64_t x = (low & 0xffffffff) + 0xffffffffu, r6 = (low >> 32) + 0xfffffff9u + (x >> 32);
        const uint64_t r7 = (high & 0xffffffff) + (r6 & 0xffffffff) + (r6 >> 32), r4 = (high >> 32) + 3 + (r7 >> 32);
        return ((x ^ r6) & 0xffffffff) | static_cast<uint64_t>(static_cast<uint32_t>(r7 + r4)) << 32;
      });
  compare<uint32_t, uint16_t, uint16_t>("mul.wide.u16", [](uint16_t a, uint16_t b) { return uint32_t{a} * b; });
}

TEST("predicates and selection") {
  const std::string bits = "setp.lt.s32 %p0, $s0, 3; setp.gt.s32 %p1, $s1, -9; ";
  const auto logic = [&](const std::string& body, auto f) {
    compare<uint32_t, int32_t, int32_t>(bits + body + " selp.u32 $d0, 7, 2, %p2;",
                                        [f](int32_t a, int32_t b) { return f(a<3, b> - 9) ? 7u : 2u; });
  };
  logic("and.pred %p2, %p0, %p1;", [](bool a, bool b) { return a && b; });
  logic("or.pred %p2, %p0, %p1;", [](bool a, bool b) { return a || b; });
  logic("xor.pred %p2, %p0, %p1;", [](bool a, bool b) { return a != b; });
  logic("not.pred %p3, %p0; mov.pred %p2, %p3;", [](bool a, bool) { return !a; });
  compare<uint32_t, int32_t, int32_t>("setp.gt.s32 %p1, $s1, -9; setp.lt.and.s32 %p2, $s0, -4, %p1; selp.u32 $d0, 7, 2, %p2;",
                                      [](int32_t a, int32_t b) { return a < -4 && b > -9 ? 7u : 2u; });
  compare<uint16_t, uint16_t, uint16_t>("setp.lt.u16 %p0, $s0, $s1; selp.u16 $d0, $s0, $s1, %p0;",
                                        [](uint16_t a, uint16_t b) { return std::min(a, b); });
  compare<uint16_t, uint16_t, uint16_t>("setp.gt.u16 %p0, $s0, $s1; selp.b16 $d0, $s0, $s1, %p0;",
                                        [](uint16_t a, uint16_t b) { return std::max(a, b); });
  compare<uint64_t, uint64_t, uint64_t>("setp.lt.u64 %p0, $s0, $s1; selp.u64 $d0, $s0, $s1, %p0;",
                                        [](uint64_t a, uint64_t b) { return std::min(a, b); });
  compare<uint64_t, uint64_t, uint64_t>("setp.eq.b64 %p0, $s0, $s1; selp.b64 $d0, 5, $s1, %p0;",
                                        [](uint64_t a, uint64_t b) { return a == b ? 5 : b; });
  compare<uint32_t, uint32_t, uint32_t>("setp.eq.b32 %p0, $s0, $s1; selp.b32 $d0, 5, $s1, %p0;",
                                        [](uint32_t a, uint32_t b) { return a == b ? 5 : b; });
  compare<uint16_t, uint16_t>("mov.u16", [](uint16_t a) { return a; });
  compare<uint32_t, uint32_t>("mov.u32", [](uint32_t a) { return a; });
  compare<uint64_t, uint64_t>("mov.u64", [](uint64_t a) { return a; });
}

TEST("integers of other widths") {
  compare<int32_t, int16_t>("cvt.s32.s16", [](int16_t v) { return int32_t{v}; });
  compare<uint32_t, uint64_t>("cvt.u32.u64", [](uint64_t v) { return static_cast<uint32_t>(v); });
  compare<uint16_t, uint32_t>("cvt.u16.u32", [](uint32_t v) { return static_cast<uint16_t>(v); });
  compare<uint32_t, uint16_t>("cvt.u32.u16", [](uint16_t v) { return uint32_t{v}; });
  compare<uint64_t, uint32_t>("cvt.u64.u32", [](uint32_t v) { return uint64_t{v}; });
}

TEST("logic, shifts, bit fields") {
  compare<uint64_t, uint64_t, uint64_t>("and.b64", [](uint64_t a, uint64_t b) { return a & b; });
  compare<uint64_t, uint64_t, uint64_t>("or.b64", [](uint64_t a, uint64_t b) { return a | b; });
  compare<uint64_t, uint64_t>("not.b64", [](uint64_t a) { return ~a; });
  compare<uint32_t, uint32_t, uint32_t>("or.b32", [](uint32_t a, uint32_t b) { return a | b; });
  compare<uint32_t, uint32_t, uint32_t>("xor.b32", [](uint32_t a, uint32_t b) { return a ^ b; });
  compare<uint16_t, uint16_t, uint16_t>("and.b16", [](uint16_t a, uint16_t b) { return static_cast<uint16_t>(a & b); });
  compare<uint16_t, uint16_t, uint16_t>("or.b16", [](uint16_t a, uint16_t b) { return static_cast<uint16_t>(a | b); });
  compare<uint16_t, uint16_t, uint16_t>("xor.b16", [](uint16_t a, uint16_t b) { return static_cast<uint16_t>(a ^ b); });
  compare<uint16_t, uint16_t, uint32_t>("shl.b16", [](uint16_t a, uint32_t n) { return static_cast<uint16_t>(n > 15 ? 0 : a << n); });
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
  compare<uint64_t, uint64_t, uint64_t, uint32_t, uint32_t>("bfi.b64", [](uint64_t a, uint64_t b, uint32_t at, uint32_t count) {
    at &= 255, count &= 255;
    for (uint32_t k = 0; k < count && at + k < 64; ++k) b = (b & ~(1ull << (at + k))) | (k < 64 ? (a >> k & 1) << (at + k) : 0);
    return b;
  });
  compare<uint32_t, uint64_t>("clz.b64", [](uint64_t a) { return static_cast<uint32_t>(std::countl_zero(a)); });
  compare<uint32_t, uint32_t>("bfind.shiftamt.u32", [](uint32_t a) { return a ? static_cast<uint32_t>(std::countl_zero(a)) : ~0u; });
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

int main(int argc, char** argv) { return main_of_tests(argc, argv); }
