// Files of the build that lie in the addon compressed.
#pragma once

#include <string>

namespace fovea::cuda {

// A gzip file of one member, made by cmake's file(ARCHIVE_CREATE). At least 8 bytes that don't matter follow it in memory.
struct Packed {
  const char* gzip;
};

std::string unpack(Packed file);

}  // namespace fovea::cuda
