#include "cuda/kernels.h"

#include <cstring>
#include <string>

namespace fovea::cuda {

#ifdef FOVEA_KERNELS
namespace {
#include "embedded_kernels.inc"
}  // namespace
bool built_with_kernels() { return true; }
#else
namespace {
constexpr EmbeddedFile kEmbeddedFiles[] = {{}};
}  // namespace
bool built_with_kernels() { return false; }
#endif

const EmbeddedFile* find_kernel(std::string_view entry) {
  const std::string line = std::string(entry) + "\n";
  for (const EmbeddedFile* file = kEmbeddedFiles; file->name; file++)
    for (const char* at = file->entries; (at = std::strstr(at, line.c_str())); at++)
      if (at == file->entries || at[-1] == '\n') return file;
  return nullptr;
}

}  // namespace fovea::cuda
