// f16, bf16 and their packed pairs. Every operation is computed exactly enough in a longer format and rounded once.
#include "map_lanes.h"
#include "numeric.h"
#include "ops.h"

namespace fovea::emulator::FOVEA_EMULATOR_ISA {

namespace {

constexpr InstrClass kCls = InstrClass::Half;

template <class H>
FOVEA_INLINE H from_f32(f32 v) {
  if constexpr (std::is_same_v<H, f16>) return to_f16(v);
  else return to_bf16(v);
}
// A value rounded to odd in double stays odd when it is rounded to odd in float, and float has more than two bits to spare over both.
FOVEA_INLINE f32 odd_to_f32(f64 v) {
  const f32 r = round_to_f32<Round::Zero>(v);
  return static_cast<f64>(r) != v && v - v == 0 ? std::bit_cast<f32>(std::bit_cast<u32>(r) | 1) : r;
}
template <class H>
FOVEA_INLINE bool is_nan(H h) {
  return to_f32(h) != to_f32(h);
}
template <class H>
FOVEA_INLINE H canonical_nan() {
  return {0x7fff};
}

struct Add {
  template <class H>
  FOVEA_INLINE H operator()(H a, H b) const {
    return from_f32<H>(odd_to_f32(add_odd(to_f32(a), to_f32(b))));
  }
};
struct Sub {
  template <class H>
  FOVEA_INLINE H operator()(H a, H b) const {
    return from_f32<H>(odd_to_f32(add_odd(to_f32(a), -to_f32(b))));
  }
};
struct Mul {
  template <class H>
  FOVEA_INLINE H operator()(H a, H b) const {
    return from_f32<H>(odd_to_f32(f64{to_f32(a)} * f64{to_f32(b)}));
  }
};
struct Fma {
  template <class H>
  FOVEA_INLINE H operator()(H a, H b, H c) const {
    return from_f32<H>(odd_to_f32(fma_odd(to_f32(a), to_f32(b), to_f32(c))));
  }
};
struct FmaRelu {
  template <class H>
  FOVEA_INLINE H operator()(H a, H b, H c) const {
    const H v = Fma{}(a, b, c);
    return !is_nan(v) && (v.bits & 0x8000) ? H{0} : v;
  }
};
struct Min {
  template <class H>
  FOVEA_INLINE H operator()(H a, H b) const {
    if (is_nan(a)) return is_nan(b) ? canonical_nan<H>() : b;
    if (is_nan(b)) return a;
    return to_f32(a) < to_f32(b) || (to_f32(a) == to_f32(b) && (a.bits & 0x8000)) ? a : b;
  }
};
struct Max {
  template <class H>
  FOVEA_INLINE H operator()(H a, H b) const {
    if (is_nan(a)) return is_nan(b) ? canonical_nan<H>() : b;
    if (is_nan(b)) return a;
    return to_f32(a) > to_f32(b) || (to_f32(a) == to_f32(b) && !(a.bits & 0x8000)) ? a : b;
  }
};
struct MinNan {
  template <class H>
  FOVEA_INLINE H operator()(H a, H b) const {
    return is_nan(a) || is_nan(b) ? canonical_nan<H>() : Min{}(a, b);
  }
};
struct MaxNan {
  template <class H>
  FOVEA_INLINE H operator()(H a, H b) const {
    return is_nan(a) || is_nan(b) ? canonical_nan<H>() : Max{}(a, b);
  }
};
struct Abs {
  template <class H>
  FOVEA_INLINE H operator()(H a) const {
    return {static_cast<u16>(a.bits & 0x7fff)};
  }
};
struct Neg {
  template <class H>
  FOVEA_INLINE H operator()(H a) const {
    return {static_cast<u16>(a.bits ^ 0x8000)};
  }
};
struct Ex2 {
  template <class H>
  FOVEA_INLINE H operator()(H a) const {
    return from_f32<H>(exp2_approx(to_f32(a)));
  }
};
struct Tanh {
  template <class H>
  FOVEA_INLINE H operator()(H a) const {
    return from_f32<H>(std::tanh(to_f32(a)));
  }
};

template <class F>
struct Pairwise {
  template <class P, class... Q>
  FOVEA_INLINE P operator()(P a, Q... b) const {
    return {F{}(a.lo, b.lo...), F{}(a.hi, b.hi...)};
  }
};

template <class H, class P>
void add_type(Registry& r) {
  const char *h = name_of_type<H>(), *p = name_of_type<P>();
  const auto unary = [&](const char* name, auto f) {
    map<H(H)>(r, Key(name, ".", h).c_str(), kCls, f);
    map<P(P)>(r, Key(name, ".", p).c_str(), kCls, Pairwise<decltype(f)>{});
  };
  const auto binary = [&](const char* name, auto f) {
    map<H(H, H)>(r, Key(name, ".", h).c_str(), kCls, f);
    map<P(P, P)>(r, Key(name, ".", p).c_str(), kCls, Pairwise<decltype(f)>{});
  };
  const auto ternary = [&](const char* name, auto f) {
    map<H(H, H, H)>(r, Key(name, ".", h).c_str(), kCls, f);
    map<P(P, P, P)>(r, Key(name, ".", p).c_str(), kCls, Pairwise<decltype(f)>{});
  };
  binary("add", Add{});
  binary("sub", Sub{});
  binary("mul", Mul{});
  ternary("fma", Fma{});
  ternary("fma.relu", FmaRelu{});
  binary("min", Min{});
  binary("max", Max{});
  binary("min.NaN", MinNan{});
  binary("max.NaN", MaxNan{});
  unary("abs", Abs{});
  unary("neg", Neg{});
  unary("ex2.approx", Ex2{});
  unary("ex2.approx.ftz", Ex2{});
  unary("tanh.approx", Tanh{});
}

}  // namespace

void register_half(Registry& r) {
  add_type<f16, f16x2>(r);
  add_type<bf16, bf16x2>(r);
}

}  // namespace fovea::emulator::FOVEA_EMULATOR_ISA
