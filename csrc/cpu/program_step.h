// One instruction of a mask or score program over a strip: rows x cols registers, each operand with its own step per row and column.
#pragma once

#include <cstdint>

#include "core/isa.h"
#include "core/program_plan.h"

namespace fovea::cpu {

struct StripOperand {
  char* at;
  int64_t row, col;  // bytes
};

struct Strip {
  StripOperand a, b, c, out;
  int rows, cols;
};

// Any instruction but the inputs and constants. `exact`: transcendental functions as the double ones rounded. An output may be the very
// slot of an operand: every register is read before it is written.
template <Isa>
void program_step(const PlanInstr& instr, const Strip& strip, const MaskTable* tables, bool exact);

}  // namespace fovea::cpu
