// How many values each instruction of a mask or score program takes.
#pragma once

#include "core/mask_program.h"

namespace fovea {

inline int operands_of(MaskOp op) {
  if (op <= MaskOp::UniformF) return 0;
  switch (op) {
    case MaskOp::NegI:
    case MaskOp::AbsI:
    case MaskOp::NotI:
    case MaskOp::NegF:
    case MaskOp::AbsF:
    case MaskOp::FloorF:
    case MaskOp::CeilF:
    case MaskOp::TruncF:
    case MaskOp::RoundF:
    case MaskOp::SqrtF:
    case MaskOp::ExpF:
    case MaskOp::LogF:
    case MaskOp::TanhF:
    case MaskOp::SinF:
    case MaskOp::CosF:
    case MaskOp::SignF:
    case MaskOp::NotB:
    case MaskOp::IntToFloat:
    case MaskOp::FloatToInt:
    case MaskOp::BoolToInt:
    case MaskOp::BoolToFloat:
    case MaskOp::LoadI:
    case MaskOp::LoadF: return 1;
    case MaskOp::SelectI:
    case MaskOp::SelectF:
    case MaskOp::SelectB: return 3;
    default: return 2;
  }
}

}  // namespace fovea
