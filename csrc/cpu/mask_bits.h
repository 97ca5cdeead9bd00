// Bit matrices of mask tiles by the vector interpreter.
#pragma once

#include <cstddef>

#include "core/isa.h"
#include "core/mask_bits_params.h"
#include "core/program_plan.h"

namespace fovea::cpu {

// Evaluates tiles [first, last) on the calling thread. Tiles next to each other with the same head or query block share that work.
// scratch: mask_bits_scratch bytes, 64-byte aligned.
template <Isa>
void mask_bits(const MaskBitsParams& params, int64_t first, int64_t last, void* scratch);

template <Isa>
size_t mask_bits_scratch(const MaskBitsParams& params);

}  // namespace fovea::cpu
