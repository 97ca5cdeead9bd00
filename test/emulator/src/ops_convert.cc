// cvt in all forms nvcc writes: between integers, integer to float, float to integer (saturating, NaN is 0), between floats, packed pairs.
#include <limits>

#include "map_lanes.h"
#include "numeric.h"
#include "ops.h"

namespace fovea::emulator::FOVEA_EMULATOR_ISA {

namespace {

constexpr InstrClass kCls = InstrClass::Convert;
using Integers = Types<u8, s8, u16, s16, u32, s32, u64, s64>;
__extension__ using s128 = __int128;

template <class D, class S>
FOVEA_INLINE D clamp_integer(S v) {
  const s128 lo = std::numeric_limits<D>::min(), hi = std::numeric_limits<D>::max(), x = v;
  return static_cast<D>(x < lo ? lo : x > hi ? hi : x);
}

template <Round kMode, class F>
FOVEA_INLINE F whole(F v) {
  if (kMode == Round::Zero) return std::trunc(v);
  if (kMode == Round::Down) return std::floor(v);
  if (kMode == Round::Up) return std::ceil(v);
  return std::nearbyint(v);
}

template <class D, Round kMode, class F>
FOVEA_INLINE D to_integer(F v) {
  if (v != v) return sizeof(D) == 8 ? static_cast<D>(0x8000000000000000ull) : D(0);
  const F w = whole<kMode>(v);
  const F lo = static_cast<F>(std::numeric_limits<D>::min()), hi = static_cast<F>(std::numeric_limits<D>::max());
  if (w <= lo) return std::numeric_limits<D>::min();
  if (w >= hi) return std::numeric_limits<D>::max();
  return static_cast<D>(w);
}

void add_integer_integer(Registry& r) {
  for_types(Integers{}, [&]<class D>(D) {
    for_types(Integers{}, [&]<class S>(S) {
      const char *d = name_of_type<D>(), *s = name_of_type<S>();
      map<D(S)>(r, Key("cvt.", d, ".", s).c_str(), kCls, [](S v) { return static_cast<D>(v); });
      map<D(S)>(r, Key("cvt.sat.", d, ".", s).c_str(), kCls, [](S v) { return clamp_integer<D>(v); });
    });
  });
}

// The rounding of a 64-bit integer to f32 has no short exact way through double, hence the sticky bit.
template <Round kMode, class S>
FOVEA_INLINE f32 integer_to_f32(S v) {
  if constexpr (sizeof(S) < 8) {
    return round_to_f32<kMode>(static_cast<f64>(v));
  } else {
    const bool negative = v < 0;
    u64 m = negative ? 0 - static_cast<u64>(v) : static_cast<u64>(v);
    if (m >> 53) m = (m >> 12 | ((m & 0xfff) != 0)) << 12;
    const f64 d = static_cast<f64>(m);
    return round_to_f32<kMode>(negative ? -d : d);
  }
}

template <Round kMode>
void add_integer_float(Registry& r, const char* mode) {
  for_types(Integers{}, [&]<class S>(S) {
    const char* s = name_of_type<S>();
    map<f32(S)>(r, Key("cvt.", mode, ".f32.", s).c_str(), kCls, [](S v) { return integer_to_f32<kMode>(v); });
    if (kMode != Round::Nearest) return;
    map<f16(S)>(r, Key("cvt.", mode, ".f16.", s).c_str(), kCls, [](S v) { return to_f16<kMode>(integer_to_f32<Round::Nearest>(v)); });
    map<bf16(S)>(r, Key("cvt.", mode, ".bf16.", s).c_str(), kCls, [](S v) { return to_bf16<kMode>(integer_to_f32<Round::Nearest>(v)); });
    map<f64(S)>(r, Key("cvt.", mode, ".f64.", s).c_str(), kCls, [](S v) { return static_cast<f64>(v); });
  });
}

template <Round kMode>
void add_float_integer(Registry& r, const char* mode) {
  for_types(Integers{}, [&]<class D>(D) {
    const char* d = name_of_type<D>();
    map<D(f32)>(r, Key("cvt.", mode, ".", d, ".f32").c_str(), kCls, [](f32 v) { return to_integer<D, kMode>(v); });
    map<D(f32)>(r, Key("cvt.", mode, ".ftz.", d, ".f32").c_str(), kCls, [](f32 v) { return to_integer<D, kMode>(flush(v)); });
    map<D(f64)>(r, Key("cvt.", mode, ".", d, ".f64").c_str(), kCls, [](f64 v) { return to_integer<D, kMode>(v); });
    map<D(f16)>(r, Key("cvt.", mode, ".", d, ".f16").c_str(), kCls, [](f16 v) { return to_integer<D, kMode>(to_f32(v)); });
    map<D(bf16)>(r, Key("cvt.", mode, ".", d, ".bf16").c_str(), kCls, [](bf16 v) { return to_integer<D, kMode>(to_f32(v)); });
  });
  map<f32(f32)>(r, Key("cvt.", mode, ".f32.f32").c_str(), kCls, [](f32 v) { return whole<kMode>(v); });
  map<f32(f32)>(r, Key("cvt.", mode, ".ftz.f32.f32").c_str(), kCls, [](f32 v) { return whole<kMode>(flush(v)); });
  map<f32(f32)>(r, Key("cvt.", mode, ".sat.f32.f32").c_str(), kCls, [](f32 v) { return saturate(whole<kMode>(v)); });
  map<f64(f64)>(r, Key("cvt.", mode, ".f64.f64").c_str(), kCls, [](f64 v) { return whole<kMode>(v); });
  map<f16(f16)>(r, Key("cvt.", mode, ".f16.f16").c_str(), kCls, [](f16 v) { return to_f16(whole<kMode>(to_f32(v))); });
}

template <class H>
FOVEA_INLINE H relu(H v) {
  return (v.bits & 0x8000) && (v.bits & 0x7fff) <= 0x7f80 ? H{0} : v;
}

template <Round kMode>
void add_float_float(Registry& r, const char* mode) {
  map<f32(f64)>(r, Key("cvt.", mode, ".f32.f64").c_str(), kCls, [](f64 v) { return round_to_f32<kMode>(v); });
  map<f16(f32)>(r, Key("cvt.", mode, ".f16.f32").c_str(), kCls, [](f32 v) { return to_f16<kMode>(v); });
  map<f16(f64)>(r, Key("cvt.", mode, ".f16.f64").c_str(), kCls, [](f64 v) {
    const f32 t = round_to_f32<Round::Zero>(v);
    return to_f16<kMode>(f64{t} != v && v == v ? std::bit_cast<f32>(std::bit_cast<u32>(t) | 1) : t);
  });
  map<bf16(f32)>(r, Key("cvt.", mode, ".bf16.f32").c_str(), kCls, [](f32 v) { return to_bf16<kMode>(v); });
  map<bf16(f32)>(r, Key("cvt.", mode, ".relu.bf16.f32").c_str(), kCls, [](f32 v) { return relu(to_bf16<kMode>(v)); });
  map<f16(f32)>(r, Key("cvt.", mode, ".relu.f16.f32").c_str(), kCls, [](f32 v) { return relu(to_f16<kMode>(v)); });
  // The first source goes to the upper half.
  map<f16x2(f32, f32)>(r, Key("cvt.", mode, ".f16x2.f32").c_str(), kCls, [](f32 a, f32 b) {
    return f16x2{to_f16<kMode>(b), to_f16<kMode>(a)};
  });
  map<bf16x2(f32, f32)>(r, Key("cvt.", mode, ".bf16x2.f32").c_str(), kCls, [](f32 a, f32 b) {
    return bf16x2{to_bf16<kMode>(b), to_bf16<kMode>(a)};
  });
  map<f16x2(f32, f32)>(r, Key("cvt.", mode, ".relu.f16x2.f32").c_str(), kCls, [](f32 a, f32 b) {
    return f16x2{relu(to_f16<kMode>(b)), relu(to_f16<kMode>(a))};
  });
  map<bf16x2(f32, f32)>(r, Key("cvt.", mode, ".relu.bf16x2.f32").c_str(), kCls, [](f32 a, f32 b) {
    return bf16x2{relu(to_bf16<kMode>(b)), relu(to_bf16<kMode>(a))};
  });
}

void add_widening(Registry& r) {
  map<f32(f16)>(r, "cvt.f32.f16", kCls, [](f16 v) { return to_f32(v); });
  map<f32(f16)>(r, "cvt.ftz.f32.f16", kCls, [](f16 v) { return to_f32(v); });
  map<f32(bf16)>(r, "cvt.f32.bf16", kCls, [](bf16 v) { return to_f32(v); });
  map<f64(f32)>(r, "cvt.f64.f32", kCls, [](f32 v) { return f64{v}; });
  map<f64(f32)>(r, "cvt.ftz.f64.f32", kCls, [](f32 v) { return f64{flush(v)}; });
  map<f64(f16)>(r, "cvt.f64.f16", kCls, [](f16 v) { return f64{to_f32(v)}; });
  map<bf16(f16)>(r, "cvt.rn.bf16.f16", kCls, [](f16 v) { return to_bf16(to_f32(v)); });
  map<f16(bf16)>(r, "cvt.rn.f16.bf16", kCls, [](bf16 v) { return to_f16(to_f32(v)); });
  map<f32(f32)>(r, "cvt.f32.f32", kCls, [](f32 v) { return v; });
  map<f32(f32)>(r, "cvt.ftz.f32.f32", kCls, [](f32 v) { return flush(v); });
  map<f32(f32)>(r, "cvt.sat.f32.f32", kCls, [](f32 v) { return saturate(v); });
  map<f32(f32)>(r, "cvt.ftz.sat.f32.f32", kCls, [](f32 v) { return saturate(flush(v)); });
  map<f32(f64)>(r, "cvt.rn.ftz.f32.f64", kCls, [](f64 v) { return flush(static_cast<f32>(v)); });
  // Ties away from zero, 10 bits of mantissa.
  map<u32(f32)>(r, "cvt.rna.tf32.f32", kCls, [](f32 v) {
    const u32 b = std::bit_cast<u32>(v);
    return (b & 0x7f800000u) == 0x7f800000u ? b : (b + 0x1000u) & ~0x1fffu;
  });
  map<u32(f32)>(r, "cvt.rn.tf32.f32", kCls, [](f32 v) {
    const u32 b = std::bit_cast<u32>(v);
    return (b & 0x7f800000u) == 0x7f800000u ? b : (b + 0xfffu + (b >> 13 & 1)) & ~0x1fffu;
  });
}

}  // namespace

void register_convert(Registry& r) {
  add_integer_integer(r);
  add_integer_float<Round::Nearest>(r, "rn");
  add_integer_float<Round::Zero>(r, "rz");
  add_integer_float<Round::Down>(r, "rm");
  add_integer_float<Round::Up>(r, "rp");
  add_float_integer<Round::Nearest>(r, "rni");
  add_float_integer<Round::Zero>(r, "rzi");
  add_float_integer<Round::Down>(r, "rmi");
  add_float_integer<Round::Up>(r, "rpi");
  add_float_float<Round::Nearest>(r, "rn");
  add_float_float<Round::Zero>(r, "rz");
  add_float_float<Round::Down>(r, "rm");
  add_float_float<Round::Up>(r, "rp");
  add_widening(r);
}

}  // namespace fovea::emulator::FOVEA_EMULATOR_ISA
