// Which entry points a program launches: gpu-check holds those of all programs against the list of what ships.
#pragma once

#include <cstdio>
#include <map>
#include <set>
#include <string>

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
    const char* separator = "";
    for (const std::string& entry : launched_) std::printf("%s\"%s\"", separator, entry.c_str()), separator = ", ";
    std::printf("]}\n");
  }

 private:
  Launches() : own_(cuda::driver()) {
    auto& table = const_cast<cuda::Driver&>(cuda::driver());
    table.cuModuleGetFunction = [](CUfunction* function, CUmodule module, const char* name) {
      Launches& all = watch();
      const CUresult result = all.own_.cuModuleGetFunction(function, module, name);
      if (result == CUDA_SUCCESS) all.names_[*function] = name;
      return result;
    };
    table.cuLaunchKernel = [](CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                              unsigned block_z, unsigned shared_bytes, CUstream stream, void** parameters, void** extra) {
      Launches& all = watch();
      all.launched_.insert(all.names_[function]);
      return all.own_.cuLaunchKernel(function, grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes, stream, parameters, extra);
    };
  }

  const cuda::Driver own_;
  std::map<CUfunction, std::string> names_;
  std::set<std::string> launched_;
};

}  // namespace fovea::gpu
