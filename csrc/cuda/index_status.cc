#include "cuda/index_status.h"

#include "cuda/download.h"

namespace fovea::cuda {

IndexStatus::IndexStatus(Stream& stream) : stream_(stream), memory_(stream.scratch(sizeof(int64_t))) {
  stream.fill(memory_.data(), ~uint64_t{0}, 8, 1);
}

int64_t IndexStatus::position() const {
  int64_t position = -1;
  read(&position, bad(), sizeof position);
  return position;
}

int64_t IndexStatus::index_at(const Indices& ids, int64_t position) const {
  const size_t bytes = size_of(ids.dtype);
  const char* from = static_cast<const char*>(ids.data) + position * static_cast<int64_t>(bytes);
  int64_t wide = 0;
  int32_t narrow = 0;
  uint8_t byte = 0;
  if (ids.dtype == DType::I64) return read(&wide, from, bytes), wide;
  if (ids.dtype == DType::I32) return read(&narrow, from, bytes), narrow;
  return read(&byte, from, bytes), byte;
}

void IndexStatus::read(void* to, const void* from, size_t bytes) const { download(stream_, to, from, bytes); }

}  // namespace fovea::cuda
