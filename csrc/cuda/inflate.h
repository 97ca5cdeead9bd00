// Decompression of raw DEFLATE data (RFC 1951) of known length.
#pragma once

#include <cstddef>

namespace fovea::cuda {

// False when the data is damaged or does not give exactly `text_bytes`.
bool inflate(const void* data, size_t bytes, char* text, size_t text_bytes);

}  // namespace fovea::cuda
