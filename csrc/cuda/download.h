// Copies to the host for host code that needs what a kernel found.
#pragma once

#include <cstddef>

#include "cuda/launch.h"

namespace fovea::cuda {

// Waits for the device. Callers of ops go on, the queue of the device waits.
void download(Stream& stream, void* to, const void* from, size_t bytes);

}  // namespace fovea::cuda
