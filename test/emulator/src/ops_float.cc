// f32 and f64 arithmetic. `.ftz` forms flush subnormal inputs and results to signed zero; approximations are within the error that the
// PTX manual states, but are not the hardware's bits.
#include "map_lanes.h"
#include "numeric.h"
#include "ops.h"

namespace fovea::emulator::FOVEA_EMULATOR_ISA {

namespace {

constexpr InstrClass kCls = InstrClass::Float;

template <class F, class... A>
struct Flushed {
  FOVEA_INLINE f32 operator()(A... a) const { return flush(F{}(flush(a)...)); }
};
template <class F, class... A>
struct Saturated {
  FOVEA_INLINE f32 operator()(A... a) const { return saturate(F{}(a...)); }
};
template <class F, class... A>
struct FlushedSaturated {
  FOVEA_INLINE f32 operator()(A... a) const { return saturate(F{}(flush(a)...)); }
};

// "name<mode>.f32" with and without .ftz and .sat
template <class F>
FOVEA_INLINE void unary(Registry& r, const char* name, F f) {
  map<f32(f32)>(r, Key(name, ".f32").c_str(), kCls, f);
  map<f32(f32)>(r, Key(name, ".ftz.f32").c_str(), kCls, Flushed<F, f32>{});
}
template <class F>
FOVEA_INLINE void binary(Registry& r, const char* name, F f) {
  map<f32(f32, f32)>(r, Key(name, ".f32").c_str(), kCls, f);
  map<f32(f32, f32)>(r, Key(name, ".ftz.f32").c_str(), kCls, Flushed<F, f32, f32>{});
  map<f32(f32, f32)>(r, Key(name, ".sat.f32").c_str(), kCls, Saturated<F, f32, f32>{});
  map<f32(f32, f32)>(r, Key(name, ".ftz.sat.f32").c_str(), kCls, FlushedSaturated<F, f32, f32>{});
}
template <class F>
FOVEA_INLINE void ternary(Registry& r, const char* name, F f) {
  map<f32(f32, f32, f32)>(r, Key(name, ".f32").c_str(), kCls, f);
  map<f32(f32, f32, f32)>(r, Key(name, ".ftz.f32").c_str(), kCls, Flushed<F, f32, f32, f32>{});
  map<f32(f32, f32, f32)>(r, Key(name, ".sat.f32").c_str(), kCls, Saturated<F, f32, f32, f32>{});
  map<f32(f32, f32, f32)>(r, Key(name, ".ftz.sat.f32").c_str(), kCls, FlushedSaturated<F, f32, f32, f32>{});
}

template <class T>
FOVEA_INLINE T number_min(T a, T b) {  // a NaN loses; -0 < +0
  if (a != a) return b;
  if (b != b) return a;
  return a < b || (a == b && std::signbit(a)) ? a : b;
}
template <class T>
FOVEA_INLINE T number_max(T a, T b) {
  if (a != a) return b;
  if (b != b) return a;
  return a > b || (a == b && !std::signbit(a)) ? a : b;
}
FOVEA_INLINE f32 quiet_nan() { return std::bit_cast<f32>(0x7fffffffu); }

template <Round kMode>
void add_directed(Registry& r, const char* mode) {
  binary(r, Key("add.", mode).c_str(), [](f32 a, f32 b) { return round_to_f32<kMode>(add_odd(a, b)); });
  binary(r, Key("sub.", mode).c_str(), [](f32 a, f32 b) { return round_to_f32<kMode>(add_odd(a, -f64{b})); });
  binary(r, Key("mul.", mode).c_str(), [](f32 a, f32 b) { return round_to_f32<kMode>(f64{a} * f64{b}); });
  ternary(r, Key("fma.", mode).c_str(), [](f32 a, f32 b, f32 c) { return round_to_f32<kMode>(fma_odd(a, b, c)); });
  binary(r, Key("div.", mode).c_str(), [](f32 a, f32 b) {
    const f64 q = f64{a} / f64{b}, rest = __builtin_fma(-q, f64{b}, f64{a});  // exact remainder: its sign tells which side q is on
    const f64 odd = rest != 0 && q - q == 0 && !(std::bit_cast<u64>(q) & 1)
                        ? std::bit_cast<f64>((rest > 0) == ((q > 0) == (b > 0)) ? std::bit_cast<u64>(q) + 1 : std::bit_cast<u64>(q) - 1)
                        : q;
    return round_to_f32<kMode>(odd);
  });
  unary(r, Key("sqrt.", mode).c_str(), [](f32 a) {
    const f64 s = std::sqrt(f64{a}), rest = __builtin_fma(-s, s, f64{a});
    return round_to_f32<kMode>(rest != 0 && s - s == 0 ? std::bit_cast<f64>(std::bit_cast<u64>(s) | 1) : s);
  });
}

void add_f32(Registry& r) {
  binary(r, "add", [](f32 a, f32 b) { return a + b; });
  binary(r, "sub", [](f32 a, f32 b) { return a - b; });
  binary(r, "mul", [](f32 a, f32 b) { return a * b; });
  ternary(r, "fma", [](f32 a, f32 b, f32 c) { return __builtin_fmaf(a, b, c); });
  ternary(r, "mad", [](f32 a, f32 b, f32 c) { return __builtin_fmaf(a, b, c); });
  add_directed<Round::Zero>(r, "rz");
  add_directed<Round::Down>(r, "rm");
  add_directed<Round::Up>(r, "rp");
  binary(r, "div", [](f32 a, f32 b) { return a / b; });
  binary(r, "div.approx", [](f32 a, f32 b) { return a / b; });
  binary(r, "div.full", [](f32 a, f32 b) { return a / b; });
  binary(r, "min", [](f32 a, f32 b) { return number_min(a, b); });
  binary(r, "max", [](f32 a, f32 b) { return number_max(a, b); });
  const auto min_nan = [](f32 a, f32 b) { return a != a || b != b ? quiet_nan() : number_min(a, b); };
  const auto max_nan = [](f32 a, f32 b) { return a != a || b != b ? quiet_nan() : number_max(a, b); };
  binary(r, "min.NaN", min_nan);
  binary(r, "max.NaN", max_nan);
  map<f32(f32, f32)>(r, "min.ftz.NaN.f32", kCls, Flushed<decltype(min_nan), f32, f32>{});
  map<f32(f32, f32)>(r, "max.ftz.NaN.f32", kCls, Flushed<decltype(max_nan), f32, f32>{});
  binary(r, "copysign",
         [](f32 a, f32 b) { return std::bit_cast<f32>((std::bit_cast<u32>(a) & 0x80000000u) | (std::bit_cast<u32>(b) & 0x7fffffffu)); });
  unary(r, "abs", [](f32 a) { return std::bit_cast<f32>(std::bit_cast<u32>(a) & 0x7fffffffu); });
  unary(r, "neg", [](f32 a) { return std::bit_cast<f32>(std::bit_cast<u32>(a) ^ 0x80000000u); });
  unary(r, "sqrt", [](f32 a) { return std::sqrt(a); });
  unary(r, "sqrt.approx", [](f32 a) { return std::sqrt(a); });
  unary(r, "rcp", [](f32 a) { return 1.f / a; });
  unary(r, "rcp.approx", [](f32 a) { return 1.f / a; });
  unary(r, "rsqrt.approx", [](f32 a) { return static_cast<f32>(1.0 / std::sqrt(f64{a})); });
  unary(r, "ex2.approx", [](f32 a) { return exp2_approx(a); });
  unary(r, "lg2.approx", [](f32 a) { return std::log2(a); });
  unary(r, "sin.approx", [](f32 a) { return std::sin(a); });
  unary(r, "cos.approx", [](f32 a) { return std::cos(a); });
  unary(r, "tanh.approx", [](f32 a) { return std::tanh(a); });
}

void add_f64(Registry& r) {
  map<f64(f64, f64)>(r, "add.f64", kCls, [](f64 a, f64 b) { return a + b; });
  map<f64(f64, f64)>(r, "sub.f64", kCls, [](f64 a, f64 b) { return a - b; });
  map<f64(f64, f64)>(r, "mul.f64", kCls, [](f64 a, f64 b) { return a * b; });
  map<f64(f64, f64)>(r, "div.f64", kCls, [](f64 a, f64 b) { return a / b; });
  map<f64(f64, f64, f64)>(r, "fma.f64", kCls, [](f64 a, f64 b, f64 c) { return __builtin_fma(a, b, c); });
  map<f64(f64, f64)>(r, "min.f64", kCls, [](f64 a, f64 b) { return number_min(a, b); });
  map<f64(f64, f64)>(r, "max.f64", kCls, [](f64 a, f64 b) { return number_max(a, b); });
  map<f64(f64)>(r, "abs.f64", kCls, [](f64 a) { return std::fabs(a); });
  map<f64(f64)>(r, "neg.f64", kCls, [](f64 a) { return -a; });
  map<f64(f64)>(r, "sqrt.f64", kCls, [](f64 a) { return std::sqrt(a); });
  map<f64(f64)>(r, "rcp.f64", kCls, [](f64 a) { return 1.0 / a; });
  // 20 bits of mantissa and no subnormals, as the manual says; software refines them.
  map<f64(f64)>(r, "rcp.approx.ftz.f64", kCls, [](f64 a) { return std::bit_cast<f64>(std::bit_cast<u64>(1.0 / a) & ~0xffffffffull); });
  map<f64(f64)>(r, "rsqrt.approx.f64", kCls, [](f64 a) { return 1.0 / std::sqrt(a); });
  map<f64(f64)>(r, "rsqrt.approx.ftz.f64", kCls,
                [](f64 a) { return std::bit_cast<f64>(std::bit_cast<u64>(1.0 / std::sqrt(a)) & ~0xffffffffull); });
  map<f64(f64, f64)>(r, "copysign.f64", kCls, [](f64 a, f64 b) { return std::copysign(b, a); });
}

template <class T>
FOVEA_INLINE u32 class_of_value(int mode, T v) {
  switch (mode) {
    case 0: return std::isfinite(v);
    case 1: return std::isinf(v);
    case 2: return v == v;
    case 3: return v != v;
    case 4: return std::isnormal(v);
    default: return v != 0 && std::isfinite(v) && !std::isnormal(v);
  }
}

template <class T>
void test_property(Warp& w, const Instr& i, u32 mask) {
  const auto* a = w.src<T>(i.ops[1]);
  u32 r = 0;
  for (int l = 0; l < kLanes; ++l) r |= class_of_value<T>(i.mode, unpack<T>(a[l])) << l;
  w.set_pred(i.ops[0], r, mask);
}

}  // namespace

void register_float(Registry& r) {
  add_f32(r);
  add_f64(r);
  r.add("testp.f32", {&test_property<f32>, InstrClass::Compare, 2, 1, {Kind::Pred, Kind::F32}});
  r.add("testp.f64", {&test_property<f64>, InstrClass::Compare, 2, 1, {Kind::Pred, Kind::F64}});
}

}  // namespace fovea::emulator::FOVEA_EMULATOR_ISA
