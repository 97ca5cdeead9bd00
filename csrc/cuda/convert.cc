#include "cuda/convert.h"

namespace fovea::cuda {
namespace {

constexpr int64_t kMaxCount = (int64_t{1} << 31) - 1;

// Dimensions of size 1 dropped, neighbours that both sides walk in one step merged.
CopyParams merged(const CopyParams& copy) {
  CopyParams p = copy;
  p.rank = 0;
  for (int d = 0; d < copy.rank; d++) {
    if (copy.shape[d] == 1) continue;
    const int last = p.rank - 1;
    const bool continues = last >= 0 && p.src_strides[last] == copy.src_strides[d] * copy.shape[d] &&
                           p.dst_strides[last] == copy.dst_strides[d] * copy.shape[d];
    const int at = continues ? last : p.rank++;
    p.shape[at] = continues ? p.shape[at] * copy.shape[d] : copy.shape[d];
    p.src_strides[at] = copy.src_strides[d];
    p.dst_strides[at] = copy.dst_strides[d];
  }
  if (p.rank == 0) p.rank = 1, p.shape[0] = p.src_strides[0] = p.dst_strides[0] = 1;
  return p;
}

int64_t count_of(const CopyParams& copy) {
  int64_t count = 1;
  for (int d = 0; d < copy.rank; d++) count *= copy.shape[d];
  return count;
}

void launch(const CopyParams& copy, int64_t count, Stream& stream) {
  ConvertParams p{copy.src, copy.dst, static_cast<uint32_t>(count), copy.rank, {}, {}, {}};
  for (int d = 0; d < copy.rank; d++) {
    p.shape[d] = static_cast<uint32_t>(copy.shape[d]);
    p.src_strides[d] = copy.src_strides[d];
    p.dst_strides[d] = copy.dst_strides[d];
  }
  constexpr unsigned per_block = kConvertThreads * kConvertPerThread;
  const std::string kernel = std::string("convert_") + name_of(copy.src_dtype) + "_" + name_of(copy.dst_dtype);
  stream.launch(kernel.c_str(), {(p.count + per_block - 1) / per_block}, {kConvertThreads}, 0, p);
}

// Parts of the outermost dimension of more than one, where the whole has too many elements for 32-bit indices.
void launch_parts(const CopyParams& copy, Stream& stream) {
  const int64_t count = count_of(copy);
  if (count <= kMaxCount) return launch(copy, count, stream);
  int axis = 0;
  while (copy.shape[axis] == 1) axis++;
  for (int64_t begin = 0, half = (copy.shape[axis] + 1) / 2; begin < copy.shape[axis]; begin += half) {
    CopyParams part = copy;
    part.shape[axis] = copy.shape[axis] - begin < half ? copy.shape[axis] - begin : half;
    part.src = static_cast<const char*>(copy.src) + begin * copy.src_strides[axis] * static_cast<int64_t>(size_of(copy.src_dtype));
    part.dst = static_cast<char*>(copy.dst) + begin * copy.dst_strides[axis] * static_cast<int64_t>(size_of(copy.dst_dtype));
    launch_parts(part, stream);
  }
}

}  // namespace

void convert(const CopyParams& copy, Stream& stream) {
  const int64_t count = count_of(copy);
  if (count == 0) return;
  const CopyParams p = merged(copy);
  if (p.src_dtype == p.dst_dtype && p.rank == 1 && p.src_strides[0] == 1 && p.dst_strides[0] == 1)
    return stream.copy(p.dst, p.src, static_cast<size_t>(count) * size_of(p.src_dtype));
  launch_parts(p, stream);
}

}  // namespace fovea::cuda
