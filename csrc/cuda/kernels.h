// The kernels in this build: PTX text per file of cuda/, compressed, with the names of its entry points. Written by
// scripts/embed-ptx.mjs at build time; empty in a build without nvcc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace fovea::cuda {

struct EmbeddedFile {
  const char* name;     // "attention"
  const char* entries;  // entry points, each followed by a newline
  const uint64_t* deflated;
  size_t deflated_bytes, text_bytes;
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

}  // namespace fovea::cuda
