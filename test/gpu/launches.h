// Which entry points a program launches: gpu-check holds those of all programs against the list of what ships.
#pragma once

#include <cstdio>
#include <set>
#include <string>
#include <unordered_map>

#include "cuda/driver.h"

namespace fovea::gpu {

// Two functions in the table of the driver give way to ones that note names and go on to the driver's own.
class Launches {
 public:
  static Launches& watch() {
    static auto* const all = new Launches;
    return *all;
  }

  void print(const char* program, int capability) const {
    std::printf("{\"suite\": \"launches\", \"program\": \"%s\", \"capability\": %d, \"entries\": [", program, capability);
    std::set<std::string> launched;  // entries with splices are several functions
    for (const auto& [function, entry] : entries_)
      if (entry.launched) launched.insert(entry.name);
    const char* separator = "";
    for (const std::string& name : launched) std::printf("%s\"%s\"", separator, name.c_str()), separator = ", ";
    std::printf("]}\n");
  }

 private:
  Launches() : own_(cuda::driver()) {
    auto& table = const_cast<cuda::Driver&>(cuda::driver());
    table.cuModuleGetFunction = [](CUfunction* function, CUmodule module, const char* name) {
      Launches& all = watch();
      const CUresult result = all.own_.cuModuleGetFunction(function, module, name);
      if (result == CUDA_SUCCESS) all.entries_[*function].name = name;
      return result;
    };
    table.cuLaunchKernel = [](CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                              unsigned block_z, unsigned shared_bytes, CUstream stream, void** parameters, void** extra) {
      Launches& all = watch();
      all.entries_[function].launched = true;
      return all.own_.cuLaunchKernel(function, grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes, stream, parameters, extra);
    };
  }

  struct Entry {
    std::string name;
    bool launched = false;
  };

  const cuda::Driver own_;
  std::unordered_map<CUfunction, Entry> entries_;
};

}  // namespace fovea::gpu
