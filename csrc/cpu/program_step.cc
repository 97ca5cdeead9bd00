// The loops run down a column, so a per-query operand stays where it is and a per-key operand advances by one register.
#include "cpu/program_step.h"

#include "cpu/program_math.h"

namespace fovea::cpu {
namespace {
namespace vm {

template <class V>
FOVEA_INLINE V get(const char* p) {
  if constexpr (__is_same(V, vf)) return load(reinterpret_cast<const float*>(p));
  else return load(reinterpret_cast<const int32_t*>(p));
}
FOVEA_INLINE void put(char* p, vf v) { store(reinterpret_cast<float*>(p), v); }
FOVEA_INLINE void put(char* p, vi v) { store(reinterpret_cast<int32_t*>(p), v); }

template <class A, class F>
FOVEA_INLINE void map1(Strip s, F f) {
  for (int c = 0; c < s.cols; c++, s.a.at += s.a.col, s.out.at += s.out.col) {
    char *a = s.a.at, *out = s.out.at;
#pragma GCC unroll 4
    for (int r = 0; r < s.rows; r++, a += s.a.row, out += s.out.row) put(out, f(get<A>(a)));
  }
}

template <class A, class F>
FOVEA_INLINE void map2(Strip s, F f) {
  for (int c = 0; c < s.cols; c++, s.a.at += s.a.col, s.b.at += s.b.col, s.out.at += s.out.col) {
    char *a = s.a.at, *b = s.b.at, *out = s.out.at;
#pragma GCC unroll 4
    for (int r = 0; r < s.rows; r++, a += s.a.row, b += s.b.row, out += s.out.row) put(out, f(get<A>(a), get<A>(b)));
  }
}

template <class A, class C, class F>
FOVEA_INLINE void map3(Strip s, F f) {
  for (int k = 0; k < s.cols; k++, s.a.at += s.a.col, s.b.at += s.b.col, s.c.at += s.c.col, s.out.at += s.out.col) {
    char *a = s.a.at, *b = s.b.at, *c = s.c.at, *out = s.out.at;
#pragma GCC unroll 4
    for (int r = 0; r < s.rows; r++, a += s.a.row, b += s.b.row, c += s.c.row, out += s.out.row)
      put(out, f(get<A>(a), get<A>(b), get<C>(c)));
  }
}

// Integer arithmetic, comparisons of integers, booleans. False: not one of these.
bool step_int(MaskOp op, const Strip& s) {
  switch (op) {
    case MaskOp::AddI: return map2<vi>(s, [](vi a, vi b) { return add(a, b); }), true;
    case MaskOp::SubI: return map2<vi>(s, [](vi a, vi b) { return subtract(a, b); }), true;
    case MaskOp::MulI: return map2<vi>(s, [](vi a, vi b) { return multiply(a, b); }), true;
    case MaskOp::DivI: return map2<vi>(s, [](vi a, vi b) { return divide(a, b); }), true;
    case MaskOp::RemI: return map2<vi>(s, [](vi a, vi b) { return remainder(a, b); }), true;
    case MaskOp::NegI: return map1<vi>(s, [](vi a) { return subtract(vi{}, a); }), true;
    case MaskOp::AbsI: return map1<vi>(s, [](vi a) { return select(a < 0, subtract(vi{}, a), a); }), true;
    case MaskOp::MinI: return map2<vi>(s, [](vi a, vi b) { return select(a < b, a, b); }), true;
    case MaskOp::MaxI: return map2<vi>(s, [](vi a, vi b) { return select(a > b, a, b); }), true;
    case MaskOp::AndB:
    case MaskOp::AndI: return map2<vi>(s, [](vi a, vi b) { return a & b; }), true;
    case MaskOp::OrB:
    case MaskOp::OrI: return map2<vi>(s, [](vi a, vi b) { return a | b; }), true;
    case MaskOp::XorI: return map2<vi>(s, [](vi a, vi b) { return a ^ b; }), true;
    case MaskOp::NotB:
    case MaskOp::NotI: return map1<vi>(s, [](vi a) { return ~a; }), true;
    case MaskOp::ShlI:
      return map2<vi>(s, [](vi a, vi b) { return reinterpret_cast<vi>(reinterpret_cast<vu>(a) << reinterpret_cast<vu>(b & 31)); }), true;
    case MaskOp::ShrI: return map2<vi>(s, [](vi a, vi b) { return a >> (b & 31); }), true;
    case MaskOp::ShrU:
      return map2<vi>(s, [](vi a, vi b) { return reinterpret_cast<vi>(reinterpret_cast<vu>(a) >> reinterpret_cast<vu>(b & 31)); }), true;
    case MaskOp::EqI: return map2<vi>(s, [](vi a, vi b) { return vi(a == b); }), true;
    case MaskOp::NeI: return map2<vi>(s, [](vi a, vi b) { return vi(a != b); }), true;
    case MaskOp::LtI: return map2<vi>(s, [](vi a, vi b) { return vi(a < b); }), true;
    case MaskOp::LeI: return map2<vi>(s, [](vi a, vi b) { return vi(a <= b); }), true;
    case MaskOp::SelectI:
    case MaskOp::SelectF:
    case MaskOp::SelectB: return map3<vi, vi>(s, [](vi a, vi b, vi c) { return select(c, a, b); }), true;
    case MaskOp::BoolToInt: return map1<vi>(s, [](vi a) { return a & 1; }), true;
    case MaskOp::BoolToFloat: return map1<vi>(s, [](vi a) { return a & 0x3f800000; }), true;
    case MaskOp::IntToFloat: return map1<vi>(s, [](vi a) { return to_float(a); }), true;
    default: return false;
  }
}

// Float arithmetic that rounds once and comparisons. False: not one of these.
bool step_float(MaskOp op, const Strip& s) {
  switch (op) {
    case MaskOp::AddF: return map2<vf>(s, [](vf a, vf b) { return a + b; }), true;
    case MaskOp::SubF: return map2<vf>(s, [](vf a, vf b) { return a - b; }), true;
    case MaskOp::MulF: return map2<vf>(s, [](vf a, vf b) { return a * b; }), true;
    case MaskOp::DivF: return map2<vf>(s, [](vf a, vf b) { return a / b; }), true;
    case MaskOp::RemF:
      return map2<vf>(s, [](vf a, vf b) { return each(a, b, [](double x, double y) { return __builtin_fmod(x, y); }); }), true;
    case MaskOp::NegF: return map1<vi>(s, [](vi a) { return a ^ INT32_MIN; }), true;
    case MaskOp::AbsF: return map1<vf>(s, [](vf a) { return abs(a); }), true;
    case MaskOp::MinF: return map2<vf>(s, [](vf a, vf b) { return minimum(a, b); }), true;
    case MaskOp::MaxF: return map2<vf>(s, [](vf a, vf b) { return maximum(a, b); }), true;
    case MaskOp::FloorF: return map1<vf>(s, [](vf a) { return floor(a); }), true;
    case MaskOp::CeilF: return map1<vf>(s, [](vf a) { return ceiled(a); }), true;
    case MaskOp::TruncF: return map1<vf>(s, [](vf a) { return truncated(a); }), true;
    case MaskOp::RoundF: return map1<vf>(s, [](vf a) { return rounded(a); }), true;
    case MaskOp::SqrtF: return map1<vf>(s, [](vf a) { return sqrt(a); }), true;
    case MaskOp::SignF: return map1<vf>(s, [](vf a) { return sign(a); }), true;
    case MaskOp::EqF: return map2<vf>(s, [](vf a, vf b) { return vi(a == b); }), true;
    case MaskOp::NeF: return map2<vf>(s, [](vf a, vf b) { return vi(a != b); }), true;
    case MaskOp::LtF: return map2<vf>(s, [](vf a, vf b) { return vi(a < b); }), true;
    case MaskOp::LeF: return map2<vf>(s, [](vf a, vf b) { return vi(a <= b); }), true;
    case MaskOp::FloatToInt: return map1<vf>(s, [](vf a) { return saturated_int(a); }), true;
    default: return false;
  }
}

// exp, log, tanh, sin, cos, pow: polynomials, or the double function rounded where a mask hangs on the last bit.
void step_transcendental(MaskOp op, const Strip& s, bool exact) {
  auto apply = [&](auto fast, auto slow) {
    if (exact) map1<vf>(s, [&](vf a) { return each(a, slow); });
    else map1<vf>(s, fast);
  };
  switch (op) {
    case MaskOp::ExpF: return apply([](vf a) { return exp(a); }, [](double x) { return __builtin_exp(x); });
    case MaskOp::LogF: return apply([](vf a) { return log(a); }, [](double x) { return __builtin_log(x); });
    case MaskOp::TanhF: return apply([](vf a) { return tanh(a); }, [](double x) { return __builtin_tanh(x); });
    case MaskOp::SinF: return apply([](vf a) { return sin(a); }, [](double x) { return __builtin_sin(x); });
    case MaskOp::CosF: return apply([](vf a) { return cos(a); }, [](double x) { return __builtin_cos(x); });
    case MaskOp::PowF:
      if (exact) return map2<vf>(s, [](vf a, vf b) { return each(a, b, [](double x, double y) { return power(x, y); }); });
      return map2<vf>(s, [](vf a, vf b) { return power(a, b); });
    default: __builtin_unreachable();
  }
}

void step_fused(FusedOp op, const Strip& s) {
  switch (op) {
    case FusedOp::DiffToFloat: return map2<vi>(s, [](vi a, vi b) { return to_float(subtract(a, b)); });
    case FusedOp::MulAdd: return map3<vf, vf>(s, [](vf a, vf b, vf c) { return fma(a, b, c); });
    case FusedOp::MulSub: return map3<vf, vf>(s, [](vf a, vf b, vf c) { return fma(a, b, -c); });
    case FusedOp::NegMulAdd: return map3<vf, vf>(s, [](vf a, vf b, vf c) { return fma(-a, b, c); });
  }
}

FOVEA_INLINE vi gather(const int32_t* table, vi index) {
#if defined(__AVX512F__)
  return reinterpret_cast<vi>(_mm512_mask_i32gather_epi32(__m512i{}, 0xffff, reinterpret_cast<__m512i>(index), table, 4));
#elif defined(__AVX2__)
  return reinterpret_cast<vi>(_mm256_i32gather_epi32(table, reinterpret_cast<__m256i>(index), 4));
#else
  vi r{};
  FOVEA_UNROLL
  for (int i = 0; i < kLanes; i++) r[i] = table[index[i]];
  return r;
#endif
}

// Lanes of a query tile read one element, neighbours, or neighbours in reverse more often than not (tables by head, by query, by relative
// position), and a plain load is several times faster than a gather.
FOVEA_INLINE vi lookup(const int32_t* table, vi index) {
  int32_t first = index[0], step = index[1] - first;
  if (step < -1 || step > 1 || lane_bits(index == set1(first) + set1(step) * iota()) != kAllLanes) return gather(table, index);
  if (step == 0) return set1(table[first]);
  return step == 1 ? load(table + first) : reversed(load(table + first - (kLanes - 1)));
}

void step_load(const MaskTable& table, const Strip& s) {
  int32_t last = last_index(table);
  if (table.dtype == 2) {
    const uint8_t* bytes = static_cast<const uint8_t*>(table.data);
    return map1<vi>(s, [=](vi index) {
      index = clamped(index, last);
      vi r{};
      FOVEA_UNROLL
      for (int i = 0; i < kLanes; i++) r[i] = bytes[index[i]];
      return r;
    });
  }
  const int32_t* words = static_cast<const int32_t*>(table.data);
  map1<vi>(s, [=](vi index) { return lookup(words, clamped(index, last)); });
}

}  // namespace vm
}  // namespace

template <>
void program_step<kIsa>(const PlanInstr& instr, const Strip& s, const MaskTable* tables, bool exact) {
  if (instr.op >= static_cast<int32_t>(MaskOp::Count)) return vm::step_fused(static_cast<FusedOp>(instr.op), s);
  MaskOp op = static_cast<MaskOp>(instr.op);
  if (op == MaskOp::LoadI || op == MaskOp::LoadF) return vm::step_load(tables[instr.immediate], s);
  if (!vm::step_int(op, s) && !vm::step_float(op, s)) vm::step_transcendental(op, s, exact);
}

}  // namespace fovea::cpu
