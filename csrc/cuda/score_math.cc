// Each text follows core/mask_program.h where that says what the result is, and stays within a few units of the last place of 1 (or of
// itself) where it does not. Powers, remainders and the reduction of angles run in f64: they are rare in scores, and exact that way.
#include "cuda/score_math.h"

namespace fovea::cuda {
namespace {

// A zero divisor gives 0 and INT_MIN / -1 wraps, neither of which PTX promises.
constexpr char kDivI[] = R"({
.reg .pred %zero, %minus;
.reg .b32 %x, %y;
setp.eq.s32 %zero, $b, 0;
setp.eq.s32 %minus, $b, -1;
or.pred %zero, %zero, %minus;
selp.b32 %y, 1, $b, %zero;
div.s32 %x, $a, %y;
neg.s32 %y, $a;
selp.b32 %x, %y, %x, %minus;
setp.eq.s32 %zero, $b, 0;
selp.b32 $d, 0, %x, %zero;
})";

constexpr char kRemI[] = R"({
.reg .pred %zero, %minus;
.reg .b32 %x, %y;
setp.eq.s32 %zero, $b, 0;
setp.eq.s32 %minus, $b, -1;
or.pred %zero, %zero, %minus;
selp.b32 %y, 1, $b, %zero;
rem.s32 %x, $a, %y;
selp.b32 $d, 0, %x, %zero;
})";

constexpr char kShlI[] = "{\n.reg .b32 %x;\nand.b32 %x, $b, 31;\nshl.b32 $d, $a, %x;\n}";
constexpr char kShrI[] = "{\n.reg .b32 %x;\nand.b32 %x, $b, 31;\nshr.s32 $d, $a, %x;\n}";
constexpr char kShrU[] = "{\n.reg .b32 %x;\nand.b32 %x, $b, 31;\nshr.u32 $d, $a, %x;\n}";

constexpr char kSelectB[] = R"({
.reg .pred %x, %y;
and.pred %x, $c, $a;
not.pred %y, $c;
and.pred %y, %y, $b;
or.pred $d, %x, %y;
})";

constexpr char kRoundF[] = R"({
.reg .pred %up;
.reg .f32 %x, %y;
cvt.rmi.f32.f32 %x, $a;
sub.f32 %y, $a, %x;
setp.ge.f32 %up, %y, 0f3F000000;
add.f32 %y, %x, 0f3F800000;
selp.f32 $d, %y, %x, %up;
})";

constexpr char kSignF[] = R"({
.reg .pred %p;
.reg .f32 %x;
setp.gt.f32 %p, $a, 0f00000000;
selp.f32 %x, 0f3F800000, 0f00000000, %p;
setp.lt.f32 %p, $a, 0f00000000;
selp.f32 %x, 0fBF800000, %x, %p;
setp.nan.f32 %p, $a, $a;
selp.f32 $d, $a, %x, %p;
})";

// 2^n times 2^f, n whole, from the product with log2 e in two pieces.
constexpr char kExpF[] = R"({
.reg .f32 %n, %f;
.reg .b32 %i;
mul.f32 %n, $a, 0f3FB8AA3B;
cvt.rni.f32.f32 %n, %n;
min.f32 %n, %n, 0f42FE0000;
max.f32 %n, %n, 0fC2FC0000;
cvt.rzi.s32.f32 %i, %n;
neg.f32 %n, %n;
fma.rn.f32 %f, $a, 0f3FB8AA3B, %n;
fma.rn.f32 %f, $a, 0f32A57060, %f;
ex2.approx.f32 %f, %f;
add.s32 %i, %i, 127;
shl.b32 %i, %i, 23;
mov.b32 %n, %i;
mul.f32 $d, %f, %n;
})";

constexpr char kLogF[] = "{\n.reg .f32 %x;\nlg2.approx.f32 %x, $a;\nmul.f32 $d, %x, 0f3F317218;\n}";

// 1 - 2 / (1 + e^2x), and the Taylor series below 1/4.
constexpr char kTanhF[] = R"({
.reg .pred %small;
.reg .f32 %x, %y, %z;
mul.f32 %x, $a, 0f4038AA3B;
ex2.approx.f32 %x, %x;
add.f32 %x, %x, 0f3F800000;
rcp.approx.f32 %x, %x;
fma.rn.f32 %x, %x, 0fC0000000, 0f3F800000;
mul.f32 %z, $a, $a;
fma.rn.f32 %y, %z, 0f3CB327A4, 0fBD5D0DD1;
fma.rn.f32 %y, %y, %z, 0f3E088889;
fma.rn.f32 %y, %y, %z, 0fBEAAAAAB;
mul.f32 %z, %z, $a;
fma.rn.f32 %y, %y, %z, $a;
abs.f32 %z, $a;
setp.lt.f32 %small, %z, 0f3E800000;
selp.f32 $d, %y, %x, %small;
})";

constexpr char kSinF[] = R"({
.reg .f64 %x, %n;
.reg .f32 %r;
cvt.f64.f32 %x, $a;
mul.f64 %n, %x, 0d3FC45F306DC9C883;
cvt.rni.f64.f64 %n, %n;
fma.rn.f64 %x, %n, 0dC01921FB54442D18, %x;
cvt.rn.f32.f64 %r, %x;
sin.approx.f32 $d, %r;
})";

constexpr char kCosF[] = R"({
.reg .f64 %x, %n;
.reg .f32 %r;
cvt.f64.f32 %x, $a;
mul.f64 %n, %x, 0d3FC45F306DC9C883;
cvt.rni.f64.f64 %n, %n;
fma.rn.f64 %x, %n, 0dC01921FB54442D18, %x;
cvt.rn.f32.f64 %r, %x;
cos.approx.f32 $d, %r;
})";

// log2 |a| = exponent + 2 / ln 2 atanh((m - 1) / (m + 1)), m in [sqrt 1/2, sqrt 2); then 2^(b log2 |a|); then JavaScript's special cases.
constexpr char kPowF[] = R"({
.reg .pred %p, %q, %whole, %odd;
.reg .f32 %x, %y, %r;
.reg .f64 %m, %s, %z, %l, %t;
.reg .b32 %lo, %hi, %e, %one, %bias;
abs.f32 %x, $a;
cvt.f64.f32 %m, %x;
mov.b64 {%lo, %hi}, %m;
shr.u32 %e, %hi, 20;
and.b32 %hi, %hi, 1048575;
setp.ge.u32 %p, %hi, 434334;
selp.b32 %one, 1022, 1023, %p;
shl.b32 %bias, %one, 20;
or.b32 %hi, %hi, %bias;
sub.s32 %e, %e, %one;
mov.b64 %m, {%lo, %hi};
add.f64 %s, %m, 0dBFF0000000000000;
add.f64 %z, %m, 0d3FF0000000000000;
div.rn.f64 %s, %s, %z;
mul.f64 %z, %s, %s;
fma.rn.f64 %l, %z, 0d3FB3B13B13B13B14, 0d3FB745D1745D1746;
fma.rn.f64 %l, %l, %z, 0d3FBC71C71C71C71C;
fma.rn.f64 %l, %l, %z, 0d3FC2492492492492;
fma.rn.f64 %l, %l, %z, 0d3FC999999999999A;
fma.rn.f64 %l, %l, %z, 0d3FD5555555555555;
fma.rn.f64 %l, %l, %z, 0d3FF0000000000000;
mul.f64 %l, %l, %s;
cvt.rn.f64.s32 %t, %e;
fma.rn.f64 %l, %l, 0d40071547652B82FE, %t;
setp.eq.f32 %p, %x, 0f00000000;
selp.f64 %l, 0dFFF0000000000000, %l, %p;
setp.eq.f32 %p, %x, 0f7F800000;
selp.f64 %l, 0d7FF0000000000000, %l, %p;
cvt.f64.f32 %t, $b;
mul.f64 %t, %t, %l;
min.f64 %t, %t, 0d408F400000000000;
max.f64 %t, %t, 0dC08F400000000000;
cvt.rni.f64.f64 %z, %t;
sub.f64 %t, %t, %z;
cvt.rn.f32.f64 %r, %t;
ex2.approx.f32 %r, %r;
cvt.f64.f32 %m, %r;
cvt.rzi.s32.f64 %e, %z;
add.s32 %e, %e, 1023;
shl.b32 %hi, %e, 20;
mov.b32 %lo, 0;
mov.b64 %z, {%lo, %hi};
mul.f64 %m, %m, %z;
cvt.rn.f32.f64 %r, %m;
cvt.rzi.f32.f32 %y, $b;
setp.eq.f32 %whole, %y, $b;
mul.f32 %x, $b, 0f3F000000;
cvt.rzi.f32.f32 %y, %x;
setp.neu.and.f32 %odd, %y, %x, %whole;
mov.b32 %e, $a;
setp.lt.and.s32 %odd, %e, 0, %odd;
neg.f32 %y, %r;
selp.f32 %r, %y, %r, %odd;
not.pred %p, %whole;
setp.lt.and.f32 %p, $a, 0f00000000, %p;
setp.gt.and.f32 %p, $a, 0fFF800000, %p;
abs.f32 %x, $a;
abs.f32 %y, $b;
setp.eq.f32 %q, %x, 0f3F800000;
setp.eq.and.f32 %q, %y, 0f7F800000, %q;
or.pred %p, %p, %q;
setp.nan.f32 %q, $a, $b;
or.pred %p, %p, %q;
selp.f32 %r, 0f7FC00000, %r, %p;
setp.eq.f32 %p, $b, 0f00000000;
selp.f32 $d, 0f3F800000, %r, %p;
})";

// |a| loses multiples of |b| whose quotients have 24 bits, so that no step rounds.
constexpr char kRemF[] = R"({
.reg .pred %p, %q;
.reg .f32 %u, %v;
.reg .f64 %x, %y, %k;
.reg .b32 %lo, %hi;
abs.f32 %u, $a;
abs.f32 %v, $b;
cvt.f64.f32 %x, %u;
cvt.f64.f32 %y, %v;
setp.eq.f32 %p, %v, 0f00000000;
setp.eq.f32 %q, %u, 0f7F800000;
or.pred %p, %p, %q;
setp.nan.f32 %q, %u, %v;
or.pred %p, %p, %q;
selp.f64 %x, 0d7FF8000000000000, %x, %p;
remainder_$n:
setp.ge.f64 %p, %x, %y;
@!%p bra remainder_end_$n;
div.rn.f64 %k, %x, %y;
mov.b64 {%lo, %hi}, %k;
and.b32 %lo, %lo, -536870912;
mov.b64 %k, {%lo, %hi};
cvt.rzi.f64.f64 %k, %k;
neg.f64 %k, %k;
fma.rn.f64 %x, %k, %y, %x;
setp.lt.f64 %q, %x, 0d0000000000000000;
add.f64 %k, %x, %y;
selp.f64 %x, %k, %x, %q;
bra remainder_$n;
remainder_end_$n:
cvt.rn.f32.f64 %u, %x;
copysign.f32 $d, $a, %u;
})";

}  // namespace

const char* score_math(MaskOp op, bool exact) {
  switch (op) {
    case MaskOp::DivI: return kDivI;
    case MaskOp::RemI: return kRemI;
    case MaskOp::ShlI: return kShlI;
    case MaskOp::ShrI: return kShrI;
    case MaskOp::ShrU: return kShrU;
    case MaskOp::SelectB: return kSelectB;
    case MaskOp::DivF: return exact ? "div.rn.f32 $d, $a, $b;" : "div.full.f32 $d, $a, $b;";
    case MaskOp::SqrtF: return exact ? "sqrt.rn.f32 $d, $a;" : "sqrt.approx.f32 $d, $a;";
    case MaskOp::RemF: return kRemF;
    case MaskOp::RoundF: return kRoundF;
    case MaskOp::SignF: return kSignF;
    case MaskOp::ExpF: return kExpF;
    case MaskOp::LogF: return kLogF;
    case MaskOp::TanhF: return kTanhF;
    case MaskOp::SinF: return kSinF;
    case MaskOp::CosF: return kCosF;
    case MaskOp::PowF: return kPowF;
    case MaskOp::BoolToInt: return "selp.b32 $d, 1, 0, $a;";
    case MaskOp::BoolToFloat: return "selp.f32 $d, 0f3F800000, 0f00000000, $a;";
    default: return nullptr;
  }
}

}  // namespace fovea::cuda
