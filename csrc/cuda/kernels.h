// The kernels in this build: PTX text per file of cuda/ with the names of its entry points, and compiled code beside it for the
// architectures of FOVEA_CUBIN, both compressed (unpack.h). CMakeLists.txt makes the table from build/ptx; it is empty in a build without
// nvcc.
#pragma once

#include <string_view>

#include "cuda/unpack.h"

namespace fovea::cuda {

// All entry points of a file, compiled for one architecture.
struct EmbeddedCubin {
  int capability;      // 10 x major + minor
  bool this_one_only;  // sm_90a and its like: no other device runs it
  Packed code;         // an ELF file, which has its own length
};

struct EmbeddedFile {
  const char* name;     // "attention"
  const char* entries;  // entry points, each followed by a newline
  Packed ptx;
  const EmbeddedCubin* cubins;  // up to one without code
};

// False in a CPU addon: built with FOVEA_CUDA=OFF, or without nvcc.
bool built_with_kernels();

// The file that holds the entry point, or null.
const EmbeddedFile* find_kernel(std::string_view entry);

// The cubin that a device of this capability runs best: of its own major version and no newer than it, the newest. Null without one.
const EmbeddedCubin* cubin_for(const EmbeddedFile& file, int capability);

}  // namespace fovea::cuda
