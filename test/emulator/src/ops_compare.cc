// setp, set, selp and logic on predicates.
#include "map_lanes.h"
#include "numeric.h"
#include "ops.h"

namespace fovea::emulator::FOVEA_EMULATOR_ISA {

namespace {

constexpr InstrClass kCls = InstrClass::Compare;

FOVEA_INLINE u32 combine(int mode, u32 value, u32 with) {
  return mode == 0 ? value : mode == 1 ? value & with : mode == 2 ? value | with : value ^ with;
}

// ops: p, q, a, b, c: p = (a cmp b) mode c, q = !(a cmp b) mode c
template <class F, class T>
void setp(Warp& w, const Instr& i, u32 mask) {
  const u32 r = test_loop<F, T, T>(w.src<T>(i.ops[2]), w.src<T>(i.ops[3])), c = w.pred(i.ops[4]);
  w.set_pred(i.ops[0], combine(i.mode, r, c), mask);
  w.set_pred(i.ops[1], combine(i.mode, ~r, c), mask);
}

template <class F, class T, class D>
void set(Warp& w, const Instr& i, u32 mask) {
  const auto *a = w.src<T>(i.ops[1]), *b = w.src<T>(i.ops[2]);
  u32* d = w.dst<D>(i.ops[0]);
  const u32 one = std::is_same_v<D, f32> ? 0x3f800000u : std::is_same_v<D, f16> ? 0x3c00u : std::is_same_v<D, bf16> ? 0x3f80u : ~0u;
  for (int l = 0; l < kLanes; ++l) {
    const u32 v = F{}(unpack<T>(a[l]), unpack<T>(b[l])) ? one : 0;
    d[l] = (mask >> l & 1) ? v : d[l];
  }
}

template <class T>
FOVEA_INLINE auto value(T v) {
  if constexpr (std::is_same_v<T, f16> || std::is_same_v<T, bf16>) return to_f32(v);
  else return v;
}

template <class T, class F>
void comparison(Registry& r, const char* name, F) {
  const char* t = name_of_type<T>();
  r.add(Key("setp.", name, ".", t).c_str(), {&setp<F, T>, kCls, 5, 2, {Kind::Pred, Kind::Pred, kind_of<T>(), kind_of<T>(), Kind::Pred}});
  r.add(Key("set.", name, ".u32.", t).c_str(), {&set<F, T, u32>, kCls, 3, 1, {Kind::B32, kind_of<T>(), kind_of<T>()}});
  r.add(Key("set.", name, ".s32.", t).c_str(), {&set<F, T, u32>, kCls, 3, 1, {Kind::B32, kind_of<T>(), kind_of<T>()}});
  if constexpr (std::is_same_v<T, f16> || std::is_same_v<T, bf16>) {
    r.add(Key("set.", name, ".", t, ".", t).c_str(), {&set<F, T, T>, kCls, 3, 1, {Kind::B32, Kind::B32, Kind::B32}});
  }
  r.add(Key("set.", name, ".f32.", t).c_str(), {&set<F, T, f32>, kCls, 3, 1, {Kind::B32, kind_of<T>(), kind_of<T>()}});
}

template <class T>
void add_ordered(Registry& r) {
  comparison<T>(r, "eq", [](T a, T b) { return value(a) == value(b); });
  comparison<T>(r, "ne", [](T a, T b) { return value(a) < value(b) || value(a) > value(b); });
  comparison<T>(r, "lt", [](T a, T b) { return value(a) < value(b); });
  comparison<T>(r, "le", [](T a, T b) { return value(a) <= value(b); });
  comparison<T>(r, "gt", [](T a, T b) { return value(a) > value(b); });
  comparison<T>(r, "ge", [](T a, T b) { return value(a) >= value(b); });
}

template <class T>
void add_unordered(Registry& r) {
  comparison<T>(r, "equ", [](T a, T b) { return !(value(a) < value(b) || value(a) > value(b)); });
  comparison<T>(r, "neu", [](T a, T b) { return !(value(a) == value(b)); });
  comparison<T>(r, "ltu", [](T a, T b) { return !(value(a) >= value(b)); });
  comparison<T>(r, "leu", [](T a, T b) { return !(value(a) > value(b)); });
  comparison<T>(r, "gtu", [](T a, T b) { return !(value(a) <= value(b)); });
  comparison<T>(r, "geu", [](T a, T b) { return !(value(a) < value(b)); });
  comparison<T>(r, "num", [](T a, T b) { return value(a) == value(a) && value(b) == value(b); });
  comparison<T>(r, "nan", [](T a, T b) { return value(a) != value(a) || value(b) != value(b); });
}

// Both halves at once: p from the low halves, q from the high ones.
template <class F, class P>
void setp_pair(Warp& w, const Instr& i, u32 mask) {
  const u32 *a = w.src<P>(i.ops[2]), *b = w.src<P>(i.ops[3]);
  u32 lo = 0, hi = 0;
  for (int l = 0; l < kLanes; ++l) {
    const P x = unpack<P>(a[l]), y = unpack<P>(b[l]);
    lo |= static_cast<u32>(F{}(x.lo, y.lo)) << l;
    hi |= static_cast<u32>(F{}(x.hi, y.hi)) << l;
  }
  const u32 c = w.pred(i.ops[4]);
  w.set_pred(i.ops[0], combine(i.mode, lo, c), mask);
  w.set_pred(i.ops[1], combine(i.mode, hi, c), mask);
}

template <class F, class P, bool kBits>
void set_pair(Warp& w, const Instr& i, u32 mask) {
  const u32 *a = w.src<P>(i.ops[1]), *b = w.src<P>(i.ops[2]);
  u32* d = w.dst<P>(i.ops[0]);
  const u32 one = kBits ? 0xffff : std::is_same_v<P, f16x2> ? 0x3c00 : 0x3f80;
  for (int l = 0; l < kLanes; ++l) {
    const P x = unpack<P>(a[l]), y = unpack<P>(b[l]);
    const u32 v = (F{}(x.lo, y.lo) ? one : 0) | (F{}(x.hi, y.hi) ? one << 16 : 0);
    d[l] = (mask >> l & 1) ? v : d[l];
  }
}

template <class P, class F>
void pair_comparison(Registry& r, const char* name, F) {
  const char* t = name_of_type<P>();
  constexpr Kind B = Kind::B32;
  r.add(Key("setp.", name, ".", t).c_str(), {&setp_pair<F, P>, kCls, 5, 2, {Kind::Pred, Kind::Pred, B, B, Kind::Pred}});
  r.add(Key("set.", name, ".u32.", t).c_str(), {&set_pair<F, P, true>, kCls, 3, 1, {B, B, B}});
  r.add(Key("set.", name, ".", t, ".", t).c_str(), {&set_pair<F, P, false>, kCls, 3, 1, {B, B, B}});
}

template <class P, class H>
void add_pairs(Registry& r) {
  pair_comparison<P>(r, "eq", [](H a, H b) { return value(a) == value(b); });
  pair_comparison<P>(r, "ne", [](H a, H b) { return value(a) < value(b) || value(a) > value(b); });
  pair_comparison<P>(r, "lt", [](H a, H b) { return value(a) < value(b); });
  pair_comparison<P>(r, "le", [](H a, H b) { return value(a) <= value(b); });
  pair_comparison<P>(r, "gt", [](H a, H b) { return value(a) > value(b); });
  pair_comparison<P>(r, "ge", [](H a, H b) { return value(a) >= value(b); });
  pair_comparison<P>(r, "neu", [](H a, H b) { return !(value(a) == value(b)); });
}

template <class T>
void select(Warp& w, const Instr& i, u32 mask) {
  const storage_t<T>*a = w.src<T>(i.ops[1]), *b = w.src<T>(i.ops[2]);
  storage_t<T>* d = w.dst<T>(i.ops[0]);
  const u32 p = w.pred(i.ops[3]);
#pragma GCC ivdep
  for (int l = 0; l < kLanes; ++l) {
    const storage_t<T> v = (p >> l & 1) ? a[l] : b[l];
    d[l] = (mask >> l & 1) ? v : d[l];
  }
}

template <class T>
void slct(Warp& w, const Instr& i, u32 mask) {
  const u32 *a = w.src<u32>(i.ops[1]), *b = w.src<u32>(i.ops[2]), *c = w.src<T>(i.ops[3]);
  u32* d = w.dst<u32>(i.ops[0]);
  for (int l = 0; l < kLanes; ++l) {
    const u32 v = unpack<T>(c[l]) >= 0 ? a[l] : b[l];
    d[l] = (mask >> l & 1) ? v : d[l];
  }
}

void and_pred(Warp& w, const Instr& i, u32 mask) { w.set_pred(i.ops[0], w.pred(i.ops[1]) & w.pred(i.ops[2]), mask); }
void or_pred(Warp& w, const Instr& i, u32 mask) { w.set_pred(i.ops[0], w.pred(i.ops[1]) | w.pred(i.ops[2]), mask); }
void xor_pred(Warp& w, const Instr& i, u32 mask) { w.set_pred(i.ops[0], w.pred(i.ops[1]) ^ w.pred(i.ops[2]), mask); }
void not_pred(Warp& w, const Instr& i, u32 mask) { w.set_pred(i.ops[0], ~w.pred(i.ops[1]), mask); }
void mov_pred(Warp& w, const Instr& i, u32 mask) { w.set_pred(i.ops[0], w.pred(i.ops[1]), mask); }
void selp_pred(Warp& w, const Instr& i, u32 mask) {
  const u32 p = w.pred(i.ops[3]);
  w.set_pred(i.ops[0], (w.pred(i.ops[1]) & p) | (w.pred(i.ops[2]) & ~p), mask);
}

}  // namespace

void register_compare(Registry& r) {
  for_types(Types<u16, s16, u32, s32, u64, s64, f32, f64, f16, bf16>{}, [&]<class T>(T) { add_ordered<T>(r); });
  for_types(Types<f32, f64, f16, bf16>{}, [&]<class T>(T) { add_unordered<T>(r); });
  add_pairs<f16x2, f16>(r);
  add_pairs<bf16x2, bf16>(r);
  constexpr Kind P = Kind::Pred;
  r.add("selp.4", {&select<u32>, kCls, 4, 1, {Kind::B32, Kind::B32, Kind::B32, P}});
  r.add("selp.f4", {&select<f32>, kCls, 4, 1, {Kind::F32, Kind::F32, Kind::F32, P}});
  r.add("selp.8", {&select<u64>, kCls, 4, 1, {Kind::B64, Kind::B64, Kind::B64, P}});
  r.add("selp.f8", {&select<f64>, kCls, 4, 1, {Kind::F64, Kind::F64, Kind::F64, P}});
  r.add("slct.s32", {&slct<s32>, kCls, 4, 1, {Kind::B32, Kind::B32, Kind::B32, Kind::B32}});
  r.add("slct.f32", {&slct<f32>, kCls, 4, 1, {Kind::B32, Kind::B32, Kind::B32, Kind::F32}});
  r.add("and.pred", {&and_pred, kCls, 3, 1, {P, P, P}});
  r.add("or.pred", {&or_pred, kCls, 3, 1, {P, P, P}});
  r.add("xor.pred", {&xor_pred, kCls, 3, 1, {P, P, P}});
  r.add("not.pred", {&not_pred, kCls, 2, 1, {P, P}});
  r.add("mov.pred", {&mov_pred, InstrClass::Move, 2, 1, {P, P}});
  r.add("selp.pred", {&selp_pred, kCls, 4, 1, {P, P, P, P}});
}

}  // namespace fovea::emulator::FOVEA_EMULATOR_ISA
