#include "cuda/kernels.h"

#include <cstring>

#include "core/error.h"
#include "cuda/inflate.h"

#ifdef FOVEA_KERNELS
#include "embedded_kernels.inc"
#endif

namespace fovea::cuda {

namespace {

std::string inflated(const EmbeddedFile& file, const uint64_t* deflated, size_t deflated_bytes, size_t bytes) {
  std::string out(bytes, '\0');
  check(inflate(deflated, deflated_bytes, out.data(), out.size()), "ERR_INTERNAL", "the embedded kernels of cuda/", file.name,
        ".cu are damaged");
  return out;
}

}  // namespace

#ifdef FOVEA_KERNELS
bool built_with_kernels() { return true; }
EmbeddedKernels embedded_kernels() { return {kEmbeddedFiles, kEmbeddedFileCount}; }
#else
bool built_with_kernels() { return false; }
EmbeddedKernels embedded_kernels() { return {nullptr, 0}; }
#endif

const EmbeddedFile* find_kernel(const std::string& entry) {
  const std::string line = entry + "\n";
  const EmbeddedKernels all = embedded_kernels();
  for (size_t i = 0; i < all.count; i++)
    for (const char* at = all.files[i].entries; (at = std::strstr(at, line.c_str())); at++)
      if (at == all.files[i].entries || at[-1] == '\n') return &all.files[i];
  return nullptr;
}

std::string ptx_of(const EmbeddedFile& file) { return inflated(file, file.deflated, file.deflated_bytes, file.text_bytes); }

const EmbeddedCubin* cubin_for(const EmbeddedFile& file, int capability) {
  const EmbeddedCubin* best = nullptr;
  for (size_t i = 0; i < file.cubin_count; i++) {
    const EmbeddedCubin& cubin = file.cubins[i];
    const bool runs =
        cubin.this_one_only ? cubin.capability == capability : cubin.capability / 10 == capability / 10 && cubin.capability <= capability;
    if (runs && (!best || cubin.capability >= best->capability)) best = &cubin;
  }
  return best;
}

std::string cubin_of(const EmbeddedFile& file, const EmbeddedCubin& cubin) {
  return inflated(file, cubin.deflated, cubin.deflated_bytes, cubin.bytes);
}

}  // namespace fovea::cuda
