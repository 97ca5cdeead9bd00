// Bit matrices of mask tiles on a CUDA device. See cuda/mask_bits.cu for how.
#pragma once

#include "core/mask_bits_params.h"
#include "core/program_plan.h"
#include "cuda/launch.h"

namespace fovea::cuda {

// Null when the device gives the bits that the CPU gives, else why not.
const char* mask_bits_refusal(const ProgramPlan& plan);

// Evaluates `count` tiles; pointers in `p` and the plan's tables are the host's. ids: -1 full, -2 empty, else which of the distinct
// matrices, numbered in order of appearance; p.bits has these one after the other. Returns how many, or -1 when p.bits, p.classes and
// p.hashes have all tiles and the caller is to find equal ones. Waits for the device, on the thread of its stream. The caller has asked the
// refusal.
int64_t mask_bits(const MaskBitsParams& p, int64_t count, int32_t* ids, Stream& stream);

}  // namespace fovea::cuda
