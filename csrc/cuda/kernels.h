// The kernels in this build: PTX text per file of cuda/, compressed, with the names of its entry points, and compiled code beside it for
// the architectures of FOVEA_CUBIN. Written by scripts/embed-ptx.mjs at build time; empty in a build without nvcc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace fovea::cuda {

// All entry points of a file, compiled for one architecture.
struct EmbeddedCubin {
  int capability;      // 10 x major + minor
  bool this_one_only;  // sm_90a and its like: no other device runs it
  const uint64_t* deflated;
  size_t deflated_bytes, bytes;
};

struct EmbeddedFile {
  const char* name;     // "attention"
  const char* entries;  // entry points, each followed by a newline
  const uint64_t* deflated;
  size_t deflated_bytes, text_bytes;
  const EmbeddedCubin* cubins;
  size_t cubin_count;
};

struct EmbeddedKernels {
  const EmbeddedFile* files;
  size_t count;
};

// False in a CPU addon: built with FOVEA_CUDA=OFF, or without nvcc.
bool built_with_kernels();
EmbeddedKernels embedded_kernels();

// The file that holds the entry point, or null.
const EmbeddedFile* find_kernel(const std::string& entry);
// Inflated; the caller keeps it.
std::string ptx_of(const EmbeddedFile& file);

// The cubin that a device of this capability runs best: of its own major version and no newer than it, the newest. Null without one.
const EmbeddedCubin* cubin_for(const EmbeddedFile& file, int capability);
std::string cubin_of(const EmbeddedFile& file, const EmbeddedCubin& cubin);

}  // namespace fovea::cuda
