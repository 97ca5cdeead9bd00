// A mask or score program made ready to run over tiles: what cpu/program_vm.h executes.
//
// Planning drops dead values, resolves uniforms, finds what every value depends on, sorts instructions into the groups (batch and head),
// query, key, both, fuses the patterns score programs are made of, and gives each value a slot. Values of the last group share slots
// by lifetime, so that a strip of a tile stays in the first-level cache.
// A score program that only adds to the score, s + f(b, h, q, k), also gets a plan of f, which kernels may run before they have scores; and
// where f reads positions only as their distance q - k, one row of values stands for a whole tile.
// Arrays are plain pointers: kernels compiled for one instruction set read them without instantiating any container.
#pragma once

#include <cstdint>

#include "core/mask_program.h"

namespace fovea {

// Where a value lives. KeyWide is a Key value spread over lanes for the Both group; Out is the caller's result buffer.
enum class Space : int32_t { BatchHead, Query, Key, KeyWide, Both, Score, Upstream, Out };
constexpr int kSpaces = 8;

struct PlanRef {
  Space space = Space::BatchHead;
  int32_t slot = 0;
};

// Opcodes beyond MaskOp: float(a - b), a * b + c, a * b - c, c - a * b. Only in plans that need not round each step.
enum class FusedOp : int32_t { DiffToFloat = static_cast<int32_t>(MaskOp::Count), MulAdd, MulSub, NegMulAdd };

struct PlanInstr {
  int32_t op;  // MaskOp or FusedOp
  PlanRef a, b, c, out;
  int32_t immediate = 0;  // bits of a constant, or the number of a table
};

struct PlanSpread {
  int32_t key_slot, wide_slot;
};

struct PlanScatter {
  int32_t table;
  PlanRef index, grad;
};

class ProgramPlan {
 public:
  // Mask: bool result; every operation rounds as lib/mask does, transcendental ones included. Score, Derivative: f32 result.
  enum class Kind : int32_t { Mask, Score, Derivative };

  // heads_in_lanes: each lane has a head of its own (begin_queries of the VM gets them), so head-only values move to the query group.
  // Throws ERR_INTERNAL for a malformed program. The tables must outlive the plan; code and uniforms need not.
  ProgramPlan(const MaskProgram& program, Kind kind, bool heads_in_lanes = false);
  ~ProgramPlan();
  ProgramPlan(const ProgramPlan&) = delete;
  ProgramPlan& operator=(const ProgramPlan&) = delete;

  Kind kind;
  const PlanInstr* code = nullptr;
  int32_t begin[5] = {};        // groups BatchHead, Query, Key, Both are code[begin[g], begin[g + 1])
  int32_t slots[kSpaces] = {};  // number of slots of each space
  const PlanSpread* spreads = nullptr;
  int32_t spread_count = 0;
  const PlanScatter* scatters = nullptr;
  int32_t scatter_count = 0;
  const MaskTable* tables = nullptr;
  PlanRef result;  // Out when the last instruction writes it there itself
  bool reads_score = false;
  bool depends_batch = false, depends_head = false;
  const ProgramPlan* addend = nullptr;  // of a score program s + f: the plan of f, as a score program that doesn't read s
  bool by_distance = false;             // the result is the same wherever q - k, batch and head are

 private:
  void plan_addend(const MaskProgram& program, bool heads_in_lanes);

  struct Storage;
  Storage* storage_;
};

}  // namespace fovea
