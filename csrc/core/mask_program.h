// The mask and score program: what lib/mask compiles a TypeScript function to, and what every back end reads.
//
// A program is straight-line typed SSA. Instruction i defines value i; operands a, b, c are indices of earlier values. Both arms
// of a conditional are evaluated and joined by Select, so a program has no control flow and vectorises over any lane set.
// The non-obvious choice: instructions are ordered by what they depend on (nothing of the tile, then the query, then the key, then both),
// so that an interpreter hoists the first three groups out of its element loop by position alone.
//
// Keep in step with lib/mask/program.ts, which writes this encoding (a test compares the two lists).
#pragma once

#include <cstdint>

namespace fovea {

enum class MaskOp : int32_t {
  // Inputs. Coordinates are i32; Score is the scaled logit s; Upstream is dL/d(result), only in derivative programs.
  Batch,
  Head,
  Query,
  Key,
  Score,
  Upstream,
  // Constants: `a` holds the bits. Uniform: captured number number `a` (i32 or f32 by the opcode).
  ConstI,
  ConstF,
  UniformI,
  UniformF,
  // Element `b` (an i32 value, flat index) of captured table `a`. LoadI reads i32 or u8 tables, LoadF reads f32. An index out of range is
  // clamped into the table (an empty table reads 0): loads run in both arms of a conditional, so an unselected one may be anywhere.
  LoadI,
  LoadF,
  // i32. DivI truncates as (x / y) | 0, RemI has the sign of the dividend; a zero divisor gives 0. Arithmetic wraps (INT_MIN / -1 and
  // |INT_MIN| are INT_MIN). Shifts use the low five bits of the count; ShrU gives its bits as i32.
  AddI,
  SubI,
  MulI,
  DivI,
  RemI,
  NegI,
  AbsI,
  MinI,
  MaxI,
  AndI,
  OrI,
  XorI,
  NotI,
  ShlI,
  ShrI,
  ShrU,
  // i32 comparisons to bool.
  EqI,
  NeI,
  LtI,
  LeI,
  // f32, each rounded to f32. RemF has the sign of the dividend (fmod); RoundF rounds halves up as Math.round does (floor(x), plus 1 if
  // x - floor(x) >= 0.5); SignF(0) is 0; MinF and MaxF give NaN where an operand is NaN. NeF is true for NaN, the others false.
  AddF,
  SubF,
  MulF,
  DivF,
  RemF,
  NegF,
  AbsF,
  MinF,
  MaxF,
  FloorF,
  CeilF,
  TruncF,
  RoundF,
  SqrtF,
  ExpF,
  LogF,
  TanhF,
  SinF,
  CosF,
  PowF,
  SignF,
  EqF,
  NeF,
  LtF,
  LeF,
  // bool.
  AndB,
  OrB,
  NotB,
  // c = condition, a = value if true, b = value if false; one opcode per type.
  SelectI,
  SelectF,
  SelectB,
  // Conversions. FloatToInt truncates, out of range saturates, NaN gives 0.
  IntToFloat,
  FloatToInt,
  BoolToInt,
  BoolToFloat,
  Count
};

struct MaskInstr {
  MaskOp op;
  int32_t a, b, c;
};

// Bits saying what a value depends on.
enum MaskDeps : int32_t { DependsBatchHead = 1, DependsQuery = 2, DependsKey = 4, DependsScore = 8 };

// A captured table as bound for one call: contiguous, on the device that runs the program. dtype 0 = f32, 1 = i32, 2 = u8.
struct MaskTable {
  const void* data;
  int64_t length;
  int32_t dtype;
};

// A gradient a derivative program adds into a captured table: grad_tables[table][value(index)] += value(grad).
struct MaskScatter {
  int32_t table, index, grad;
};

struct MaskProgram {
  const MaskInstr* code;
  int32_t size;
  // code[0, batch_head_end) depends on neither query nor key; then the query-only group up to query_end; then the key-only group up to
  // key_end; the rest on both or on the score.
  int32_t batch_head_end, query_end, key_end;
  int32_t result;  // value index: bool for a mask, f32 for a score or a derivative with respect to the score
  const MaskScatter* scatters;
  int32_t scatter_count;
  const MaskTable* tables;
  int32_t table_count;
  const int32_t* uniforms;  // bits of i32 or f32
  int32_t uniform_count;
};

constexpr int32_t kMaskProgramMaxSize = 4096;

}  // namespace fovea
