// Driver API: modules, functions, launches.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>

#include "decoder.h"
#include "device.h"

using namespace fovea::emulator;

struct CUfunc_st {
  CUmod_st* module;
  const PtxFunction* function;
  std::shared_ptr<const Program> program;
  int64_t max_dynamic_shared = 48 * 1024;
  std::vector<std::pair<uint32_t, uint32_t>> params;  // offset, bytes
  std::atomic<uint64_t> launches{0};
};

struct CUmod_st {
  Device* device;
  LoadedModule loaded;
  std::map<std::string, std::unique_ptr<CUfunc_st>, std::less<>> functions;
};

namespace {

class JitLog {
 public:
  JitLog(unsigned options, const CUjit_option* names, void** values) {
    for (unsigned k = 0; k < options; ++k) {
      if (names[k] == CU_JIT_ERROR_LOG_BUFFER) buffer_ = static_cast<char*>(values[k]);
      if (names[k] == CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES) bytes_ = reinterpret_cast<size_t>(values[k]), size_slot_ = &values[k];
      if (names[k] == CU_JIT_INFO_LOG_BUFFER && values[k]) *static_cast<char*>(values[k]) = '\0';
    }
    write("");
  }
  void write(const std::string& text) {
    if (!buffer_ || bytes_ == 0) return;
    std::snprintf(buffer_, bytes_, "%s", text.c_str());
    *size_slot_ = reinterpret_cast<void*>(std::min(text.size() + 1, bytes_));
  }

 private:
  char* buffer_ = nullptr;
  size_t bytes_ = 0;
  void** size_slot_ = nullptr;
};

// .target sm_80 runs on 8.0 and everything later; sm_90a on 9.0 only.
bool target_fits(std::string_view target) {
  const size_t at = target.find("sm_");
  if (at == std::string_view::npos) return false;
  const int wanted = std::atoi(std::string(target.substr(at + 3)).c_str());
  return target.back() == 'a' ? wanted == capability() : wanted <= capability();
}

// The newest PTX that a driver of some CUDA version reads.
bool version_fits(const std::string& version) {
  int driver = 0, major = 0, minor = 0;
  cuDriverGetVersion(&driver);
  std::sscanf(version.c_str(), "%d.%d", &major, &minor);
  const int cuda_major = driver / 1000, cuda_minor = driver % 1000 / 10;
  const int newest = cuda_major >= 13 ? 90 + cuda_minor : cuda_major == 12 ? 80 + cuda_minor : 70 + cuda_minor;
  return 10 * major + minor <= newest;
}

void place_variables(CUmod_st& m) {
  const auto& variables = m.loaded.ptx->variables;
  m.loaded.addresses.assign(variables.size(), 0);
  for (size_t k = 0; k < variables.size(); ++k) {
    const PtxVariable& v = variables[k];
    if ((v.space != Space::Global && v.space != Space::Const) || v.external) continue;
    const uint64_t at = m.device->memory.allocate(static_cast<uint64_t>(std::max<int64_t>(v.bytes, 1)));
    if (!at) throw std::bad_alloc();
    {
      const std::lock_guard lock(m.device->mutex);
      m.device->of_modules.insert(at);
    }
    m.loaded.addresses[k] = at;
    std::memset(reinterpret_cast<void*>(at), 0, static_cast<size_t>(v.bytes));
    if (!v.init.empty()) std::memcpy(reinterpret_cast<void*>(at), v.init.data(), v.init.size());
    m.device->memory.mark_written(at, static_cast<uint64_t>(v.bytes));
  }
  for (size_t k = 0; k < variables.size(); ++k) {
    for (const auto& a : variables[k].addresses) {
      const auto found = m.loaded.ptx->variable_index.find(a.symbol);
      if (found == m.loaded.ptx->variable_index.end()) throw PtxError(0, "unknown variable '" + a.symbol + "'");
      const uint64_t value = m.loaded.addresses[found->second] + static_cast<uint64_t>(a.offset);
      std::memcpy(reinterpret_cast<void*>(m.loaded.addresses[k] + static_cast<uint64_t>(a.at)), &value, sizeof(value));
    }
  }
}

void add_functions(CUmod_st& m) {
  for (const PtxFunction& f : m.loaded.ptx->functions) {
    if (!f.entry || f.external) continue;
    auto function = std::make_unique<CUfunc_st>();
    function->module = &m;
    function->function = &f;
    function->program = decode(m.loaded, f);
    uint32_t top = 0;
    for (const PtxVariable& p : f.params) {
      const uint32_t align = static_cast<uint32_t>(p.align);
      top = (top + align - 1) / align * align;
      function->params.emplace_back(top, static_cast<uint32_t>(p.bytes));
      top += static_cast<uint32_t>(p.bytes);
    }
    m.functions[f.name] = std::move(function);
  }
}

void release_variables(CUmod_st& m) {
  for (uint64_t at : m.loaded.addresses) {
    if (!at) continue;
    m.device->memory.release(at);
    const std::lock_guard lock(m.device->mutex);
    m.device->of_modules.erase(at);
  }
}

// Whether a fault setting (FOVEA_EMULATOR_LOSE and so on) names this kernel.
bool chosen(const char* setting, const std::string& kernel) {
  const std::string text = environment(setting, "");
  return !text.empty() && kernel.find(text) != std::string::npos;
}

int shared_limit() { return (capability() >= 90 ? 227 : 99) * 1024; }

}  // namespace

CUresult cuModuleLoadDataEx(CUmodule* module, const void* image, unsigned options, CUjit_option* names, void** values) {
  FOVEA_CURRENT_DEVICE(d);
  if (!module || !image) return CUDA_ERROR_INVALID_VALUE;
  JitLog log(options, names, values);
  const auto refuse = [&](CUresult code, const std::string& message) {
    log.write(message);
    set_last_error(code, message);
    return code;
  };
  const char* text = static_cast<const char*>(image);
  if (std::memcmp(text,
                  "\x7f"
                  "ELF",
                  4) == 0)
    return refuse(CUDA_ERROR_NO_BINARY_FOR_GPU, "the emulator executes PTX text, not cubins");
  auto m = std::make_unique<CUmod_st>();
  m->device = d;
  try {
    m->loaded.ptx = parse_ptx(text);
    if (!version_fits(m->loaded.ptx->version))
      return refuse(CUDA_ERROR_UNSUPPORTED_PTX_VERSION, "PTX version " + m->loaded.ptx->version + " is newer than this driver");
    for (const PtxFunction& f : m->loaded.ptx->functions)
      if (chosen("FOVEA_EMULATOR_REFUSE", f.name))
        return refuse(CUDA_ERROR_INVALID_PTX, f.name + ": refused, as FOVEA_EMULATOR_REFUSE says");
    if (!target_fits(m->loaded.ptx->target))
      return refuse(CUDA_ERROR_NO_BINARY_FOR_GPU, "PTX for " + m->loaded.ptx->target + " does not run on this device");
    place_variables(*m);
    add_functions(*m);
  } catch (const std::bad_alloc&) {
    release_variables(*m);
    return CUDA_ERROR_OUT_OF_MEMORY;
  } catch (const std::exception& e) {
    release_variables(*m);
    return refuse(CUDA_ERROR_INVALID_PTX, e.what());
  }
  *module = m.release();
  return CUDA_SUCCESS;
}

CUresult cuModuleUnload(CUmodule module) {
  if (!module) return CUDA_ERROR_INVALID_HANDLE;
  module->device->synchronize();
  release_variables(*module);
  delete module;
  return CUDA_SUCCESS;
}

CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
  if (!function || !name) return CUDA_ERROR_INVALID_VALUE;
  if (!module) return CUDA_ERROR_INVALID_HANDLE;
  const auto found = module->functions.find(std::string_view(name));
  if (found == module->functions.end()) return CUDA_ERROR_NOT_FOUND;
  *function = found->second.get();
  return CUDA_SUCCESS;
}

CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) {
  if (!function) return CUDA_ERROR_INVALID_HANDLE;
  if (attribute == CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT) return CUDA_SUCCESS;
  if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES || value < 0) return CUDA_ERROR_INVALID_VALUE;
  if (value + static_cast<int>(function->program->static_shared_bytes) > shared_limit()) return CUDA_ERROR_INVALID_VALUE;
  function->max_dynamic_shared = value;
  return CUDA_SUCCESS;
}

CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                        unsigned block_z, unsigned dynamic_shared_bytes, CUstream stream, void** parameters, void** extra) {
  FOVEA_CURRENT_DEVICE(d);
  if (!function) return CUDA_ERROR_INVALID_HANDLE;
  if (function->module->device != d) return CUDA_ERROR_INVALID_CONTEXT;
  CUstream_st* s = d->stream(stream);
  if (s->device != d) return CUDA_ERROR_INVALID_HANDLE;
  const Program& p = *function->program;
  const uint64_t threads = uint64_t{block_x} * block_y * block_z;
  if (!grid_x || !grid_y || !grid_z || grid_y > 65535 || grid_z > 65535 || threads == 0 || block_z > 64 || extra)
    return CUDA_ERROR_INVALID_VALUE;
  if (threads > static_cast<uint64_t>(std::min(1024, p.max_threads))) return CUDA_ERROR_INVALID_VALUE;
  if (dynamic_shared_bytes > function->max_dynamic_shared ||
      static_cast<int>(p.static_shared_bytes + dynamic_shared_bytes) > shared_limit()) {
    set_last_error(CUDA_ERROR_INVALID_VALUE, p.name + ": " + std::to_string(dynamic_shared_bytes) +
                                                 " bytes of dynamic shared memory, allowed are " +
                                                 std::to_string(function->max_dynamic_shared) + " (cuFuncSetAttribute)");
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (!function->params.empty() && !parameters) return CUDA_ERROR_INVALID_VALUE;

  Launch launch;
  launch.program = function->program.get();
  launch.memory = &d->memory;
  launch.grid[0] = grid_x, launch.grid[1] = grid_y, launch.grid[2] = grid_z;
  launch.block[0] = block_x, launch.block[1] = block_y, launch.block[2] = block_z;
  launch.dynamic_shared = dynamic_shared_bytes;
  launch.params.assign(p.param_bytes, 0);
  for (size_t k = 0; k < function->params.size(); ++k)
    std::memcpy(launch.params.data() + function->params[k].first, parameters[k], function->params[k].second);
  launch.options = launch_options(function->launches++);
  launch.counters = counters_of(p.name);
  launch.device_id = static_cast<u32>(d->ordinal);
  launch.multiprocessors = 4;
  static std::atomic<u64> launches{0};
  launch.launch_id = launches++;
  static DeviceMemory nothing{1 << 20};
  if (chosen("FOVEA_EMULATOR_STRAY", p.name)) launch.memory = &nothing;
  const bool lost = chosen("FOVEA_EMULATOR_LOSE", p.name);
  s->submit([d, launch, lost, program = function->program] {
    run_guarded(*d, [&] {
      if (lost) throw Fault(FaultKind::Lost, program->name + ": device " + std::to_string(d->ordinal) + " was lost while it ran");
      run_grid(launch);
    });
  });
  return CUDA_SUCCESS;
}
