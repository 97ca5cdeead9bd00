// The parts of the handler table, each in ops_<part>.cc, compiled once per instruction set of the host into its own namespace.
#pragma once

#include "registry.h"

#ifndef FOVEA_EMULATOR_ISA
#define FOVEA_EMULATOR_ISA isa_baseline
#endif

namespace fovea::emulator {

namespace FOVEA_EMULATOR_ISA {
void register_integer(Registry& r);
void register_float(Registry& r);
void register_half(Registry& r);
void register_convert(Registry& r);
void register_compare(Registry& r);
void register_move(Registry& r);
void register_control(Registry& r);
void register_memory(Registry& r);
void register_atomic(Registry& r);
void register_async(Registry& r);
void register_collective(Registry& r);
void register_matrix(Registry& r);
}  // namespace FOVEA_EMULATOR_ISA

}  // namespace fovea::emulator
