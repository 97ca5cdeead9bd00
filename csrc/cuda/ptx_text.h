// Working on PTX text before the driver compiles it.
#pragma once

#include <string>

#include "cuda/launch.h"

namespace fovea::cuda {

// The module with all its declarations and functions, and `entry` as its only entry point.
std::string cut_entry(const std::string& module, const std::string& entry);

// Each line that holds `//@name operand, ...` replaced by what the splice gives for it.
std::string spliced(const std::string& module, const Splice& splice);

}  // namespace fovea::cuda
