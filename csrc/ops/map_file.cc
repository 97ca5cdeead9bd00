// Read-only memory-mapped files: the lazy loading under safetensors.
#include <cerrno>
#include <cstring>

#include "core/op.h"

#ifndef _WIN32
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace fovea {
namespace {

#ifndef _WIN32

struct Mapping {
  void* data;
  size_t bytes;
};

// The whole file as a u8 tensor over its mapping; pages are read when first touched. Writing to it is refused.
Tensor map_file(const std::string& path) {
  int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail("ERR_FILE_FORMAT", "cannot open ", path, ": ", std::strerror(errno));
  struct stat info;
  int status = ::fstat(fd, &info);
  int error = errno;
  if (status != 0 || !S_ISREG(info.st_mode)) {
    ::close(fd);
    fail("ERR_FILE_FORMAT", "cannot map ", path, ": ", status != 0 ? std::strerror(error) : "not a regular file");
  }
  size_t bytes = static_cast<size_t>(info.st_size);
  void* data = bytes ? ::mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, fd, 0) : nullptr;
  error = errno;
  ::close(fd);
  if (data == MAP_FAILED) fail("ERR_FILE_FORMAT", "cannot map ", path, ": ", std::strerror(error));
  Tensor t;
  t.dtype = DType::U8;
  t.shape = {static_cast<int64_t>(bytes)};
  t.strides = {1};
  auto unmap = [](void* ctx) {
    auto* mapping = static_cast<Mapping*>(ctx);
    if (mapping->data) ::munmap(mapping->data, mapping->bytes);
    delete mapping;
  };
  t.storage = StorageOwner(Storage::foreign(data, bytes, unmap, new Mapping{data, bytes}, Storage::Memory::Mapped));
  return t;
}

#else

Tensor map_file(const std::string&) {
  fail("ERR_UNSUPPORTED", "memory-mapped files are not available on Windows; pass the file's bytes instead");
}

#endif

// `count` elements of `dtype` that start `offset` bytes into the storage of `t`, as a view. Unaligned data is copied by the caller instead.
Tensor reinterpret(const Tensor& t, int64_t dtype, const Dims& shape, int64_t offset) {
  check(dtype >= 0 && dtype < kDTypeCount, "ERR_DTYPE", "reinterpret: unknown dtype code ", dtype);
  DType type = static_cast<DType>(dtype);
  int64_t size = static_cast<int64_t>(size_of(type)), bytes = shape.product() * size;
  check(offset >= 0 && offset % size == 0 && offset + bytes <= static_cast<int64_t>(t.storage->bytes()), "ERR_FILE_FORMAT",
        "reinterpret: bytes ", offset, " to ", offset + bytes, " as ", name_of(type), " are unaligned or outside the ", t.storage->bytes(),
        " bytes there");
  Tensor view = t;
  view.dtype = type;
  view.shape = shape;
  view.strides = contiguous_strides(shape);
  view.offset = offset / size;
  return view;
}

const RegisterOp<&map_file> map_file_registration{"mapFile"};
const RegisterOp<&reinterpret> reinterpret_registration{"reinterpret"};

}  // namespace
}  // namespace fovea
