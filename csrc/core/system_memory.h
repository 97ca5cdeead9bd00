// Memory from the system, before any cache.
#pragma once

#include <cstddef>

namespace fovea {

// A 64-byte aligned block of `bytes`, to be given back by std::free; null where there is none. Large blocks ask for huge pages: first touch
// then costs one fault per 2 MiB instead of 512, and kernels that stride over them keep their translations.
void* system_allocate(size_t bytes);

}  // namespace fovea
