// Files of the build that lie in the addon compressed.
#pragma once

#include <string>

namespace fovea::cuda {

// The contents of a gzip file of one member, made by cmake's file(ARCHIVE_CREATE). At least 8 bytes that don't matter follow it in memory.
std::string unpack(const char* gzip);

}  // namespace fovea::cuda
