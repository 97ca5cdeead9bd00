// Elementary functions of f32 vectors, within 3 units in the last place of the true value over the whole range (docs/numerics.md has the
// measured errors). exp and exp2 are in cpu/simd.h.
//
// Each follows one plan: reduce the argument to a short interval where a minimax polynomial is exact to f32, then undo the reduction.
// Special values are those of the C library. Lanes with arguments for which the short reduction does not hold (sine of huge angles, powers
// of zero and infinity) are computed by the C library one at a time, so a lane's result never depends on its neighbours.
#pragma once

#include "cpu/simd.h"

namespace fovea::cpu {
namespace {

typedef double vd __attribute__((vector_size(2 * kVectorBytes)));

FOVEA_INLINE vi bits_of(vf x) { return reinterpret_cast<vi>(x); }
FOVEA_INLINE vf from_bits(vi x) { return reinterpret_cast<vf>(x); }
FOVEA_INLINE vf abs(vf x) { return from_bits(bits_of(x) & 0x7fffffff); }
FOVEA_INLINE vf copy_sign(vf magnitude, vf sign) {
  return from_bits((bits_of(magnitude) & 0x7fffffff) | (bits_of(sign) & static_cast<int32_t>(0x80000000)));
}
FOVEA_INLINE vf infinity() { return set1(__builtin_inff()); }

FOVEA_INLINE bool any(vi mask) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask(reinterpret_cast<__m512i>(mask), reinterpret_cast<__m512i>(mask)) != 0;
#elif defined(__AVX__)
  return _mm256_movemask_ps(reinterpret_cast<__m256>(mask)) != 0;
#elif defined(__SSE2__)
  return _mm_movemask_ps(reinterpret_cast<__m128>(mask)) != 0;
#else
  int32_t sum = 0;
  for (int i = 0; i < kLanes; i++) sum |= mask[i];
  return sum != 0;
#endif
}

FOVEA_INLINE vf sqrt(vf x) {
#if defined(__AVX512F__)
  return _mm512_sqrt_ps(x);
#elif defined(__AVX__)
  return _mm256_sqrt_ps(x);
#elif defined(__SSE2__)
  return _mm_sqrt_ps(x);
#else
  return vsqrtq_f32(x);
#endif
}

FOVEA_INLINE vf floor(vf x) {
#if defined(__AVX512F__)
  return _mm512_roundscale_ps(x, 9);
#elif defined(__AVX__)
  return _mm256_round_ps(x, 9);
#else
  vi whole = abs(x) >= set1(0x1p23f);
  vf r = round_nearest(select(whole, zero(), x));
  r = r - select(r > x, set1(1.f), zero());
  return select(whole | (x != x), x, copy_sign(r, x));
#endif
}

// c[0] + c[1] x + ...
template <int n>
FOVEA_INLINE vf polynomial(vf x, const float (&c)[n]) {
  vf p = set1(c[n - 1]);
  FOVEA_UNROLL
  for (int i = n - 2; i >= 0; i--) p = fma(p, x, set1(c[i]));
  return p;
}

template <int n>
FOVEA_INLINE vd polynomial(vd x, const double (&c)[n]) {
  vd p = c[n - 1] - vd{};
  FOVEA_UNROLL
  for (int i = n - 2; i >= 0; i--) p = p * x + c[i];
  return p;
}

// The mantissa of x > 0 in [sqrt(1/2), sqrt(2)) and the exponent that goes with it.
FOVEA_INLINE vf split_exponent(vf x, vf* exponent) {
  vi tiny = x < set1(0x1p-126f);
  vi bits = bits_of(select(tiny, x * set1(0x1p24f), x));
  vi e = (bits - 0x3f3504f3) >> 23;
  *exponent = to_float(e - (tiny & 24));
  return from_bits(bits - (e << 23));
}

FOVEA_INLINE vf log(vf x) {
  constexpr float kP[] = {0.333333135f,  -0.250000089f, 0.200021192f,  -0.166679963f, 0.142195523f,
                          -0.124055892f, 0.11888162f,   -0.116756521f, 0.0674664006f};
  vf e;
  vf f = split_exponent(x, &e) - set1(1.f);
  vf square = f * f;
  vf tail = fma(e, set1(-2.12194440e-4f), fma(square * f, polynomial(f, kP), square * set1(-0.5f)));
  vf y = fma(e, set1(0.693359375f), f + tail);
  y = select(x == zero(), -infinity(), y);
  y = select((x == infinity()) | (x != x), x, y);
  return select(x < zero(), set1(__builtin_nanf("")), y);
}

// log(1 + x): the rounding error of 1 + x is divided out (Goldberg 1991, theorem 4).
FOVEA_INLINE vf log1p(vf x) {
  vf u = x + set1(1.f), difference = u - set1(1.f);
  vf y = log(u) * (x / difference);
  return select((difference == zero()) | (u == infinity()), x, y);
}

FOVEA_INLINE vf expm1(vf x) {
  constexpr float kP[] = {0.50000006f, 0.166666687f, 0.0416646898f, 0.00833295006f, 0.00140203023f, 0.000200251961f};
  vf near = fma(x * x, polynomial(x, kP), x);
  return select(abs(x) < set1(0.5f), copy_sign(near, x), exp(x) - set1(1.f));
}

FOVEA_INLINE vf tanh(vf x) {
  constexpr float kP[] = {-0.333332777f, 0.133313283f, -0.0537292287f, 0.0206020083f, -0.00566078909f};
  vf z = x * x, a = abs(x);
  vf near = fma(x * z, polynomial(z, kP), x);
  vf far = set1(1.f) - set1(2.f) / (exp(min(a, set1(20.f)) * set1(2.f)) + set1(1.f));
  return select(x != x, x, copy_sign(select(a < set1(0.625f), near, far), x));
}

FOVEA_INLINE vf sigmoid(vf x) {
  vf e = exp(-abs(x));
  return select(x < zero(), e, set1(1.f)) / (set1(1.f) + e);
}

FOVEA_INLINE vf softplus(vf x) { return select(x != x, x, max(x, zero()) + log1p(exp(-abs(x)))); }

// 1 - erf(z) for z >= 0, as exp(-z^2) t P(t) with t = 1 / (1 + 0.4 z). The square comes in two parts, because its rounding error grows
// with it.
FOVEA_INLINE vf erfc_positive(vf z, vf square, vf square_rest) {
  constexpr float kP[] = {0.225684628f, 0.225463524f,   0.209827557f,   0.15863423f,   0.167813987f,  -0.0357493013f,
                          0.149147958f, -0.0748518482f, -0.0894799754f, 0.0827608705f, -0.0192516185f};
  vf t = set1(1.f) / fma(z, set1(0.4f), set1(1.f));
  return exp(-square) * (set1(1.f) - square_rest) * (t * polynomial(t, kP));
}

FOVEA_INLINE vf erf(vf x) {
  constexpr float kP[] = {1.12837911f, -0.37612626f, 0.112835854f, -0.0268538129f, 0.00518832775f, -0.000801019371f, 7.85386146e-05f};
  vf a = abs(x), z = min(a, set1(5.f)), square = z * z;
  vf far = set1(1.f) - erfc_positive(z, square, fma(z, z, -square));
  return select(x != x, x, select(a < set1(1.f), x * polynomial(x * x, kP), copy_sign(far, x)));
}

// The normal distribution's cumulative probability, accurate also in the lower tail.
FOVEA_INLINE vf normal_cdf(vf x) {
  vf z = min(abs(x), set1(15.f)), half = z * set1(0.5f), square = z * half;
  vf tail = set1(0.5f) * erfc_positive(z * set1(0.707106781f), square, fma(z, half, -square));
  return select(x != x, x, select(x < zero(), tail, set1(1.f) - tail));
}

// The sine, or the cosine.
template <bool kCosine>
FOVEA_INLINE vf sine(vf x) {
  constexpr float kSin[] = {-0.166666672f, 0.00833332911f, -0.000198393187f, 2.7181627e-06f};
  constexpr float kCos[] = {0.0416666456f, -0.00138873549f, 2.44370076e-05f};
  vi far = ~(abs(x) <= set1(8192.f));
  vf inside = select(far, zero(), x);
  vf n = round_nearest(inside * set1(0.636619772f));
  // pi / 2 in parts of 11 bits: their products with n are exact.
  vf r = fma(n, set1(-0x1.920p+0f), inside);
  r = fma(n, set1(-0x1.fb4p-12f), r);
  r = fma(n, set1(-0x1.444p-24f), r);
  r = fma(n, set1(-0x1.68c234p-39f), r);
  vi quadrant = to_int(n) + (kCosine ? 1 : 0);
  vf z = r * r;
  vf s = fma(r * z, polynomial(z, kSin), r);
  vf c = fma(z * z, polynomial(z, kCos), fma(z, set1(-0.5f), set1(1.f)));
  vf y = select((quadrant & 1) != 0, c, s);
  y = from_bits(bits_of(y) ^ ((quadrant & 2) << 30));
  if (__builtin_expect(any(far), 0))
    for (int i = 0; i < kLanes; i++)
      if (far[i]) y[i] = kCosine ? __builtin_cosf(x[i]) : __builtin_sinf(x[i]);
  return kCosine ? y : select(x == zero(), x, y);
}

FOVEA_INLINE vf sin(vf x) { return sine<false>(x); }
FOVEA_INLINE vf cos(vf x) { return sine<true>(x); }

// |x|^y = 2^(y log2 |x|) in double precision, with the sign of an odd power.
FOVEA_INLINE vf pow(vf x, vf y) {
  constexpr double kLog[] = {2.8853900817899749, 0.96179667339742403, 0.57708357747230732, 0.41167309018640841, 0.34072402057206563};
  constexpr double kExp[] = {1.0000000005541667,    0.69314720573726041,   0.240226468906208,     0.05550328776975149,
                             0.0096184889585741399, 0.0013399931215555816, 0.00015345811609822588};
  vf a = abs(x), whole = floor(y);
  vi ordinary = (a > zero()) & (a < infinity()) & (abs(y) < set1(0x1p24f)) & ((x > zero()) | (whole == y));
  vf e, m = split_exponent(select(ordinary, a, set1(1.f)), &e);
  vf power = select(ordinary, y, zero());
  vd wide = __builtin_convertvector(m, vd);
  vd t = (wide - 1.0) / (wide + 1.0);
  vd product = (t * polynomial(t * t, kLog) + __builtin_convertvector(e, vd)) * __builtin_convertvector(power, vd);
  product = product > 300.0 ? 300.0 - vd{} : product;
  product = product < -300.0 ? -300.0 - vd{} : product;
  vd n = (product + 0x1.8p52) - 0x1.8p52;
  vf result = scale_by_power(__builtin_convertvector(polynomial(product - n, kExp), vf), __builtin_convertvector(n, vf));
  vi odd = (x < zero()) & ((to_int(power) & 1) != 0);
  result = select(odd, -result, result);
  if (__builtin_expect(any(~ordinary), 0))
    for (int i = 0; i < kLanes; i++)
      if (!ordinary[i]) result[i] = __builtin_powf(x[i], y[i]);
  return result;
}

}  // namespace
}  // namespace fovea::cpu
