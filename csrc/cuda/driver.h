// The CUDA driver, opened at run time: libcuda.so.1, or the file in FOVEA_CUDA_DRIVER. Nothing is linked.
#pragma once

#include <string>

#include "cuda/driver_api.h"

namespace fovea::cuda {

struct Driver {
#define FOVEA_MEMBER(name) decltype(&::name) name = nullptr;
  FOVEA_DRIVER_FUNCTIONS(FOVEA_MEMBER)
#undef FOVEA_MEMBER
};

struct DriverState {
  std::string path;
  std::string problem;  // why there is no CUDA, and what to do; empty when there is
  int version = 0;      // 1000 x major + 10 x minor
  int devices = 0;
};

// Opens the driver on first call; never throws.
const DriverState& driver_state();
// Throws ERR_DEVICE with the problem.
const Driver& driver();
// "CUDA_ERROR_LAUNCH_FAILED (719): unspecified launch failure"
std::string text_of(CUresult result);

}  // namespace fovea::cuda
