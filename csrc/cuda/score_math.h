// Arithmetic of score programs that takes more than one PTX instruction.
#pragma once

#include "core/mask_program.h"

namespace fovea::cuda {

// Instructions, in a scope of their own, with $d for the result, $a, $b and $c for the operands and $n for a number that is unique to the
// place (labels). `exact` asks for correct rounding where that costs: what decides a branch or an index must not be off by one. Null where
// one instruction does (score_program.cc has those).
const char* score_math(MaskOp op, bool exact);

}  // namespace fovea::cuda
