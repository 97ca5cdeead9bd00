// Operations with an index tensor as their kernels take them.
#pragma once

#include <cstdint>

namespace fovea::cuda {

// `bad` receives the first position that is out of range (its elements are skipped); it starts as -1.
template <class Params>
struct IndexedLaunch {
  Params params;
  int64_t* bad;
};

}  // namespace fovea::cuda
