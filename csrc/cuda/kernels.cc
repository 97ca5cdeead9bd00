#include "cuda/kernels.h"

#include <cstring>

#include "core/error.h"
#include "cuda/inflate.h"

#ifdef FOVEA_KERNELS
#include "embedded_kernels.inc"
#endif

namespace fovea::cuda {

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

std::string ptx_of(const EmbeddedFile& file) {
  std::string text(file.text_bytes, '\0');
  check(inflate(file.deflated, file.deflated_bytes, text.data(), text.size()), "ERR_INTERNAL", "the embedded kernels of cuda/", file.name,
        ".cu are damaged");
  return text;
}

}  // namespace fovea::cuda
