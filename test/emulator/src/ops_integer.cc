// Integer arithmetic, logic, shifts, bit fields, byte permutes.
#include "map_lanes.h"
#include "ops.h"

namespace fovea::emulator::FOVEA_EMULATOR_ISA {

namespace {

constexpr InstrClass kCls = InstrClass::Integer;
using Integers = Types<u16, s16, u32, s32, u64, s64>;
template <class T>
using Unsigned = std::make_unsigned_t<T>;
template <class T>
using Wide = std::conditional_t<sizeof(T) == 2, std::conditional_t<std::is_signed_v<T>, s32, u32>,
                                std::conditional_t<std::is_signed_v<T>, s64, u64>>;
__extension__ using u128 = unsigned __int128;
__extension__ using s128 = __int128;

template <class T>
FOVEA_INLINE T mul_low(T a, T b) {
  return static_cast<T>(static_cast<u64>(a) * static_cast<u64>(b));
}

template <class T>
FOVEA_INLINE T mul_high(T a, T b) {
  if constexpr (sizeof(T) == 8) {
    using W = std::conditional_t<std::is_signed_v<T>, s128, u128>;
    return static_cast<T>((static_cast<W>(a) * static_cast<W>(b)) >> 64);
  } else {
    return static_cast<T>((static_cast<Wide<T>>(a) * static_cast<Wide<T>>(b)) >> (8 * sizeof(T)));
  }
}

template <class T>
FOVEA_INLINE T divide(T a, T b) {
  if (b == 0) return static_cast<T>(-1);
  if constexpr (std::is_signed_v<T>) {
    if (b == -1) return static_cast<T>(-static_cast<Unsigned<T>>(a));
  }
  return static_cast<T>(a / b);
}

template <class T>
FOVEA_INLINE T remainder(T a, T b) {
  if (b == 0) return a;
  if constexpr (std::is_signed_v<T>) {
    if (b == -1) return 0;
  }
  return static_cast<T>(a % b);
}

template <class T>
FOVEA_INLINE T saturate_sum(s64 sum) {
  return static_cast<T>(sum > INT32_MAX ? INT32_MAX : sum < INT32_MIN ? INT32_MIN : sum);
}

template <class T>
FOVEA_INLINE T shift_left(T a, u32 n) {
  return n >= 8 * sizeof(T) ? T(0) : static_cast<T>(static_cast<u64>(a) << n);
}

template <class T>
FOVEA_INLINE T shift_right(T a, u32 n) {
  constexpr u32 bits = 8 * sizeof(T);
  if (n >= bits) return a < 0 ? static_cast<T>(-1) : T(0);
  return static_cast<T>(a >> n);
}

void add_arithmetic(Registry& r) {
  for_types(Integers{}, [&]<class T>(T) {
    const char* t = name_of_type<T>();
    map<T(T, T)>(r, Key("add.", t).c_str(), kCls, [](T a, T b) { return static_cast<T>(static_cast<u64>(a) + static_cast<u64>(b)); });
    map<T(T, T)>(r, Key("sub.", t).c_str(), kCls, [](T a, T b) { return static_cast<T>(static_cast<u64>(a) - static_cast<u64>(b)); });
    map<T(T, T)>(r, Key("mul.lo.", t).c_str(), kCls, [](T a, T b) { return mul_low(a, b); });
    map<T(T, T)>(r, Key("mul.hi.", t).c_str(), kCls, [](T a, T b) { return mul_high(a, b); });
    map<T(T, T, T)>(r, Key("mad.lo.", t).c_str(), kCls,
                    [](T a, T b, T c) { return static_cast<T>(static_cast<u64>(mul_low(a, b)) + static_cast<u64>(c)); });
    map<T(T, T, T)>(r, Key("mad.hi.", t).c_str(), kCls,
                    [](T a, T b, T c) { return static_cast<T>(static_cast<u64>(mul_high(a, b)) + static_cast<u64>(c)); });
    map<T(T, T)>(r, Key("div.", t).c_str(), kCls, [](T a, T b) { return divide(a, b); });
    map<T(T, T)>(r, Key("rem.", t).c_str(), kCls, [](T a, T b) { return remainder(a, b); });
    map<T(T, T)>(r, Key("min.", t).c_str(), kCls, [](T a, T b) { return a < b ? a : b; });
    map<T(T, T)>(r, Key("max.", t).c_str(), kCls, [](T a, T b) { return a > b ? a : b; });
    if constexpr (sizeof(T) < 8) {
      using W = Wide<T>;
      map<W(T, T)>(r, Key("mul.wide.", t).c_str(), kCls, [](T a, T b) { return static_cast<W>(static_cast<W>(a) * static_cast<W>(b)); });
      map<W(T, T, W)>(r, Key("mad.wide.", t).c_str(), kCls, [](T a, T b, W c) {
        return static_cast<W>(static_cast<u64>(static_cast<W>(a) * static_cast<W>(b)) + static_cast<u64>(c));
      });
    }
    if constexpr (std::is_signed_v<T>) {
      map<T(T)>(r, Key("abs.", t).c_str(), kCls, [](T a) { return a < 0 ? static_cast<T>(-static_cast<Unsigned<T>>(a)) : a; });
      map<T(T)>(r, Key("neg.", t).c_str(), kCls, [](T a) { return static_cast<T>(-static_cast<Unsigned<T>>(a)); });
    }
  });
  map<s32(s32, s32)>(r, "add.sat.s32", kCls, [](s32 a, s32 b) { return saturate_sum<s32>(s64{a} + b); });
  map<s32(s32, s32)>(r, "sub.sat.s32", kCls, [](s32 a, s32 b) { return saturate_sum<s32>(s64{a} - b); });
  map<u32(u32, u32)>(r, "mul24.lo.u32", kCls, [](u32 a, u32 b) { return (a & 0xffffff) * (b & 0xffffff); });
  map<s32(s32, s32)>(r, "mul24.lo.s32", kCls,
                     [](s32 a, s32 b) { return static_cast<s32>(static_cast<u32>((a << 8) >> 8) * static_cast<u32>((b << 8) >> 8)); });
  map<u32(u32, u32, u32)>(r, "sad.u32", kCls, [](u32 a, u32 b, u32 c) { return c + (a < b ? b - a : a - b); });
  map<u32(s32, s32, u32)>(r, "sad.s32", kCls, [](s32 a, s32 b, u32 c) {
    return c + (a < b ? static_cast<u32>(b) - static_cast<u32>(a) : static_cast<u32>(a) - static_cast<u32>(b));
  });
}

void add_logic(Registry& r) {
  for_types(Types<u16, u32, u64>{}, [&]<class T>(T) {
    const char* t = sizeof(T) == 2 ? "b16" : sizeof(T) == 4 ? "b32" : "b64";
    map<T(T, T)>(r, Key("and.", t).c_str(), kCls, [](T a, T b) { return static_cast<T>(a & b); });
    map<T(T, T)>(r, Key("or.", t).c_str(), kCls, [](T a, T b) { return static_cast<T>(a | b); });
    map<T(T, T)>(r, Key("xor.", t).c_str(), kCls, [](T a, T b) { return static_cast<T>(a ^ b); });
    map<T(T)>(r, Key("not.", t).c_str(), kCls, [](T a) { return static_cast<T>(~a); });
    map<T(T)>(r, Key("cnot.", t).c_str(), kCls, [](T a) { return static_cast<T>(a == 0); });
    map<T(T, u32)>(r, Key("shl.", t).c_str(), kCls, [](T a, u32 n) { return shift_left(a, n); });
    map<T(T, u32)>(r, Key("shr.", t).c_str(), kCls, [](T a, u32 n) { return shift_right(a, n); });
  });
  for_types(Integers{}, [&]<class T>(T) {
    map<T(T, u32)>(r, Key("shr.", name_of_type<T>()).c_str(), kCls, [](T a, u32 n) { return shift_right(a, n); });
  });
  map<u32(u32, u32, u32)>(r, "shf.l.wrap.b32", kCls,
                          [](u32 a, u32 b, u32 n) { return static_cast<u32>(((u64{b} << 32 | a) << (n & 31)) >> 32); });
  map<u32(u32, u32, u32)>(r, "shf.r.wrap.b32", kCls, [](u32 a, u32 b, u32 n) { return static_cast<u32>((u64{b} << 32 | a) >> (n & 31)); });
  map<u32(u32, u32, u32)>(r, "shf.l.clamp.b32", kCls,
                          [](u32 a, u32 b, u32 n) { return n >= 32 ? a : static_cast<u32>(((u64{b} << 32 | a) << n) >> 32); });
  map<u32(u32, u32, u32)>(r, "shf.r.clamp.b32", kCls,
                          [](u32 a, u32 b, u32 n) { return n >= 32 ? b : static_cast<u32>((u64{b} << 32 | a) >> n); });
}

template <class T>
FOVEA_INLINE T extract_bits(T a, u32 at, u32 count) {
  constexpr u32 bits = 8 * sizeof(T);
  using U = Unsigned<T>;
  at &= 255, count &= 255;
  if (count == 0) return 0;
  const U shifted = at >= bits ? 0 : static_cast<U>(a) >> at;
  const u32 width = at >= bits ? 0 : (count < bits - at ? count : bits - at);
  const U low = width >= bits ? shifted : (width == 0 ? 0 : shifted & ((U(1) << width) - 1));
  if (!std::is_signed_v<T>) return static_cast<T>(low);
  const u32 sign_at = at + count - 1 < bits - 1 ? at + count - 1 : bits - 1;
  const bool sign = static_cast<U>(a) >> sign_at & 1;
  return static_cast<T>(!sign || width >= bits ? low : low | (~U(0) << width));
}

template <class T>
FOVEA_INLINE T insert_bits(T a, T b, u32 at, u32 count) {
  constexpr u32 bits = 8 * sizeof(T);
  at &= 255, count &= 255;
  if (count == 0 || at >= bits) return b;
  const T field = (count >= bits ? ~T(0) : (T(1) << count) - 1) << at;
  return (b & ~field) | ((a << at) & field);
}

FOVEA_INLINE u32 reverse_bits(u32 x) {
  x = (x & 0x55555555u) << 1 | (x >> 1 & 0x55555555u);
  x = (x & 0x33333333u) << 2 | (x >> 2 & 0x33333333u);
  x = (x & 0x0f0f0f0fu) << 4 | (x >> 4 & 0x0f0f0f0fu);
  return __builtin_bswap32(x);
}

template <class T>
FOVEA_INLINE u32 find_high_bit(T a) {
  Unsigned<T> v = static_cast<Unsigned<T>>(std::is_signed_v<T> && a < 0 ? ~a : a);
  if (v == 0) return ~0u;
  return sizeof(T) == 8 ? 63 - static_cast<u32>(__builtin_clzll(v)) : 31 - static_cast<u32>(__builtin_clz(static_cast<u32>(v)));
}

FOVEA_INLINE u32 permute_bytes(u32 a, u32 b, u32 selector) {
  const u64 bytes = u64{b} << 32 | a;
  u32 d = 0;
  for (int k = 0; k < 4; ++k) {
    const u32 s = selector >> (4 * k) & 15;
    u32 v = static_cast<u32>(bytes >> (8 * (s & 7))) & 255;
    if (s & 8) v = v & 128 ? 255 : 0;
    d |= v << (8 * k);
  }
  return d;
}

template <class A, class B>
FOVEA_INLINE s32 dot4(u32 a, u32 b, s32 c) {
  u32 sum = static_cast<u32>(c);
  for (int k = 0; k < 4; ++k)
    sum += static_cast<u32>(static_cast<s32>(static_cast<A>(a >> (8 * k))) * static_cast<s32>(static_cast<B>(b >> (8 * k))));
  return static_cast<s32>(sum);
}

void add_bits(Registry& r) {
  for_types(Types<u32, s32, u64, s64>{}, [&]<class T>(T) {
    map<T(T, u32, u32)>(r, Key("bfe.", name_of_type<T>()).c_str(), kCls, [](T a, u32 at, u32 count) { return extract_bits(a, at, count); });
    map<u32(T)>(r, Key("bfind.", name_of_type<T>()).c_str(), kCls, [](T a) { return find_high_bit(a); });
    map<u32(T)>(r, Key("bfind.shiftamt.", name_of_type<T>()).c_str(), kCls, [](T a) {
      const u32 at = find_high_bit(a);
      return at == ~0u ? at : static_cast<u32>(8 * sizeof(T)) - 1 - at;
    });
  });
  map<u32(u32, u32, u32, u32)>(r, "bfi.b32", kCls, [](u32 a, u32 b, u32 at, u32 count) { return insert_bits(a, b, at, count); });
  map<u64(u64, u64, u32, u32)>(r, "bfi.b64", kCls, [](u64 a, u64 b, u32 at, u32 count) { return insert_bits(a, b, at, count); });
  map<u32(u32)>(r, "popc.b32", kCls, [](u32 a) { return static_cast<u32>(__builtin_popcount(a)); });
  map<u32(u64)>(r, "popc.b64", kCls, [](u64 a) { return static_cast<u32>(__builtin_popcountll(a)); });
  map<u32(u32)>(r, "clz.b32", kCls, [](u32 a) { return a ? static_cast<u32>(__builtin_clz(a)) : 32u; });
  map<u32(u64)>(r, "clz.b64", kCls, [](u64 a) { return a ? static_cast<u32>(__builtin_clzll(a)) : 64u; });
  map<u32(u32)>(r, "brev.b32", kCls, [](u32 a) { return reverse_bits(a); });
  map<u64(u64)>(r, "brev.b64", kCls,
                [](u64 a) { return u64{reverse_bits(static_cast<u32>(a))} << 32 | reverse_bits(static_cast<u32>(a >> 32)); });
  map<u32(u32, u32, u32)>(r, "prmt.b32", kCls, [](u32 a, u32 b, u32 s) { return permute_bytes(a, b, s); });
  map<u32(u32, u32)>(r, "bmsk.clamp.b32", kCls, [](u32 at, u32 n) { return at >= 32 ? 0u : (n >= 32 ? ~0u : (1u << n) - 1) << at; });
  map<u32(u32, u32)>(r, "bmsk.wrap.b32", kCls, [](u32 at, u32 n) { return ((n & 31) == 0 ? 0u : (1u << (n & 31)) - 1) << (at & 31); });
  map<s32(u32, u32, s32)>(r, "dp4a.u32.u32", kCls, [](u32 a, u32 b, s32 c) { return dot4<u8, u8>(a, b, c); });
  map<s32(u32, u32, s32)>(r, "dp4a.s32.s32", kCls, [](u32 a, u32 b, s32 c) { return dot4<s8, s8>(a, b, c); });
  map<s32(u32, u32, s32)>(r, "dp4a.u32.s32", kCls, [](u32 a, u32 b, s32 c) { return dot4<u8, s8>(a, b, c); });
  map<s32(u32, u32, s32)>(r, "dp4a.s32.u32", kCls, [](u32 a, u32 b, s32 c) { return dot4<s8, u8>(a, b, c); });
}

// lop3: the truth table stands in the instruction, so the eight minterms are chosen once and not per lane.
void lop3(Warp& w, const Instr& i, u32 mask) {
  const u32 *a = w.src<u32>(i.ops[1]), *b = w.src<u32>(i.ops[2]), *c = w.src<u32>(i.ops[3]);
  u32* d = w.dst<u32>(i.ops[0]);
  u32 term[8];
  for (int k = 0; k < 8; ++k) term[k] = i.imm >> k & 1 ? kAllLanes : 0;
#pragma GCC ivdep
  for (int l = 0; l < kLanes; ++l) {
    const u32 x = a[l], y = b[l], z = c[l];
    const u32 v = (~x & ((~y & ((~z & term[0]) | (z & term[1]))) | (y & ((~z & term[2]) | (z & term[3]))))) |
                  (x & ((~y & ((~z & term[4]) | (z & term[5]))) | (y & ((~z & term[6]) | (z & term[7])))));
    d[l] = (mask >> l & 1) ? v : d[l];
  }
}

// add.cc and friends; mode bit 0: subtract, bit 1: carry in, bit 2: carry out.
template <class T>
void with_carry(Warp& w, const Instr& i, u32 mask) {
  const storage_t<T>*a = w.src<T>(i.ops[1]), *b = w.src<T>(i.ops[2]);
  storage_t<T>* d = w.dst<T>(i.ops[0]);
  for (int l = 0; l < kLanes; ++l) {
    if (!(mask >> l & 1)) continue;
    const bool subtract = i.mode & 1;
    const u128 carry = i.mode & 2 ? w.carry[l] : 0;
    const u128 x = static_cast<T>(a[l]), y = static_cast<T>(b[l]);
    const u128 sum = subtract ? x - y - carry : x + y + carry;
    d[l] = static_cast<T>(sum);
    if (i.mode & 4) w.carry[l] = static_cast<u32>(sum >> (8 * sizeof(T))) & 1;
  }
}

// mad.lo.cc, madc.hi.cc, ...; mode bit 0: high half, bit 1: carry in, bit 2: carry out.
template <class T>
void mad_with_carry(Warp& w, const Instr& i, u32 mask) {
  const storage_t<T>*a = w.src<T>(i.ops[1]), *b = w.src<T>(i.ops[2]), *c = w.src<T>(i.ops[3]);
  storage_t<T>* d = w.dst<T>(i.ops[0]);
  for (int l = 0; l < kLanes; ++l) {
    if (!(mask >> l & 1)) continue;
    const T x = static_cast<T>(a[l]), y = static_cast<T>(b[l]);
    const u128 product = static_cast<Unsigned<T>>(i.mode & 1 ? mul_high(x, y) : mul_low(x, y));
    const u128 sum = product + static_cast<Unsigned<T>>(c[l]) + (i.mode & 2 ? w.carry[l] : 0);
    d[l] = static_cast<Unsigned<T>>(sum);
    if (i.mode & 4) w.carry[l] = static_cast<u32>(sum >> (8 * sizeof(T))) & 1;
  }
}

void add_special(Registry& r) {
  constexpr Kind B = Kind::B32, L = Kind::B64;
  r.add("lop3.b32", {&lop3, kCls, 4, 1, {B, B, B, B}});
  r.add("carry.32", {&with_carry<u32>, kCls, 3, 1, {B, B, B}});
  r.add("carry.64", {&with_carry<u64>, kCls, 3, 1, {L, L, L}});
  r.add("madcarry.u32", {&mad_with_carry<u32>, kCls, 4, 1, {B, B, B, B}});
  r.add("madcarry.s32", {&mad_with_carry<s32>, kCls, 4, 1, {B, B, B, B}});
  r.add("madcarry.u64", {&mad_with_carry<u64>, kCls, 4, 1, {L, L, L, L}});
  r.add("madcarry.s64", {&mad_with_carry<s64>, kCls, 4, 1, {L, L, L, L}});
}

}  // namespace

void register_integer(Registry& r) {
  add_arithmetic(r);
  add_logic(r);
  add_bits(r);
  add_special(r);
}

}  // namespace fovea::emulator::FOVEA_EMULATOR_ISA
