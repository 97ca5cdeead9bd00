// Memory that is used again and again, as AddressSanitizer should see it: bytes that belong to nobody for now must not be touched. Nothing
// in other builds.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace fovea {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kRedZoneBytes = 64;  // between neighbours in a block
inline void forbid(void* data, size_t bytes) { __asan_poison_memory_region(data, bytes); }
inline void allow(void* data, size_t bytes) { __asan_unpoison_memory_region(data, bytes); }
#else
constexpr size_t kRedZoneBytes = 0;
inline void forbid(void*, size_t) {}
inline void allow(void*, size_t) {}
#endif

}  // namespace
}  // namespace fovea
