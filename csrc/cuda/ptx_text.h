// Working on PTX text before the driver compiles it.
#pragma once

#include <string>
#include <string_view>

#include "cuda/launch.h"

namespace fovea::cuda {

// The module with all its declarations and functions, and `entry` as its only entry point.
std::string cut_entry(std::string_view module, const std::string& entry);

// Each line that holds `//@name operand, ...` replaced by what the splice gives for it.
std::string spliced(const std::string& module, const Splice& splice);

}  // namespace fovea::cuda
