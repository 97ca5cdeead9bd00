#include "cuda/module_cache.h"

#include <cstdio>
#include <cstdlib>
#include <functional>

#include "core/error.h"
#include "cuda/device.h"
#include "cuda/kernels.h"
#include "cuda/ptx_text.h"

namespace fovea::cuda {
namespace {

constexpr size_t kLogBytes = 16 << 10;

// FOVEA_CUDA_DUMP names a folder that gets what the driver is asked to compile, each entry with its splice in a file of its own.
void dump(const std::string& entry, const Splice* splice, const std::string& text) {
  static const char* const folder = std::getenv("FOVEA_CUDA_DUMP");
  if (!folder) return;
  std::string name = std::string(folder) + "/" + entry;
  if (splice) (name += '-') += std::to_string(std::hash<std::string>()(splice->key()));
  if (std::FILE* file = std::fopen((name + ".ptx").c_str(), "wb")) {
    std::fwrite(text.data(), 1, text.size(), file);
    std::fclose(file);
  }
}

}  // namespace

Kernel& ModuleCache::get(const char* entry, const Splice* splice) {
  key_ = entry;
  if (splice) (key_ += '\n') += splice->key();
  auto found = kernels_.find(key_);
  if (found == kernels_.end()) found = kernels_.emplace(key_, load(entry, splice)).first;
  return *found->second;
}

std::unique_ptr<Kernel> ModuleCache::load(const std::string& entry, const Splice* splice) {
  const EmbeddedFile* file = find_kernel(entry);
  check(file != nullptr, "ERR_INTERNAL", "no kernel ", entry, " in this build");
  CUmodule module = splice ? nullptr : precompiled(*file);
  if (!module) module = compile(*file, entry, splice);
  auto kernel = std::make_unique<Kernel>();
  kernel->name = entry;
  device_.expect(driver().cuModuleGetFunction(&kernel->function, module, entry.c_str()), "looking for the kernel " + entry);
  return kernel;
}

CUmodule ModuleCache::precompiled(const EmbeddedFile& file) {
  const EmbeddedCubin* cubin = cubin_for(file, device_.info().capability);
  if (!cubin) return nullptr;
  const auto [found, is_new] = precompiled_.try_emplace(&file, nullptr);
  if (is_new) {
    const std::string code = unpack(cubin->code);
    if (driver().cuModuleLoadDataEx(&found->second, code.data(), 0, nullptr, nullptr) != CUDA_SUCCESS) found->second = nullptr;
  }
  return found->second;
}

CUmodule ModuleCache::compile(const EmbeddedFile& file, const std::string& entry, const Splice* splice) {
  // Kept for the next one: entry points of a file are often first launched one after the other.
  if (unpacked_ != &file) ptx_ = unpack(file.ptx), unpacked_ = &file;
  std::string text = cut_entry(ptx_, entry);
  if (splice) text = spliced(text, *splice);
  dump(entry, splice, text);

  std::string log(kLogBytes, '\0');
  CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
  void* values[] = {log.data(), reinterpret_cast<void*>(kLogBytes)};
  CUmodule module = nullptr;
  const CUresult result = driver().cuModuleLoadDataEx(&module, text.c_str(), 2, options, values);
  if (result == CUDA_ERROR_UNSUPPORTED_PTX_VERSION)
    fail("ERR_DEVICE", "the driver (CUDA ", driver_state().version / 1000, ".", driver_state().version % 1000 / 10,
         ") is too old for the kernel ", entry, ", which needs ", text.substr(text.find(".version"), 12), "; install a newer one");
  if (result != CUDA_SUCCESS)
    device_.expect(result, "compiling the kernel " + entry + (splice ? " with a score program" : "") + ": " + log.c_str());
  return module;
}

}  // namespace fovea::cuda
