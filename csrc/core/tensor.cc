#include "core/tensor.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

namespace fovea {

Dims::Dims(std::initializer_list<int64_t> list) {
  for (int64_t x : list) push(x);
}

void Dims::push(int64_t x) {
  check(rank < kMaxRank, "ERR_SHAPE", "a tensor has at most ", kMaxRank, " dimensions");
  v[rank++] = x;
}

int64_t Dims::product() const {
  int64_t n = 1;
  bool fits = true;
  for (int i = 0; i < rank; i++) {
    if (v[i] == 0) return 0;
    fits &= !__builtin_mul_overflow(n, v[i], &n);
  }
  check(fits, "ERR_SHAPE", "shape ", text_of(*this), " has more than 2^63 elements");
  return n;
}

bool Dims::operator==(const Dims& o) const {
  if (rank != o.rank) return false;
  for (int i = 0; i < rank; i++)
    if (v[i] != o.v[i]) return false;
  return true;
}

DimsText::operator std::string() const {
  std::string s = "[";
  for (int i = 0; i < dims.rank; i++) s += (i ? ", " : "") + std::to_string(dims[i]);
  return s + "]";
}

Dims contiguous_strides(const Dims& shape) {
  Dims strides;
  strides.rank = shape.rank;
  int64_t step = 1;
  for (int i = shape.rank - 1; i >= 0; i--) {
    strides[i] = step;
    if (__builtin_mul_overflow(step, shape[i], &step)) step = 0;  // of a shape without elements, or too large for any tensor
  }
  return strides;
}

size_t bytes_of(const Dims& shape, DType dtype) {
  for (int64_t n : shape) check(n >= 0, "ERR_SHAPE", "shape ", text_of(shape), " has a negative size");
  int64_t bytes;
  check(!__builtin_mul_overflow(shape.product(), static_cast<int64_t>(size_of(dtype)), &bytes), "ERR_SHAPE", "shape ", text_of(shape),
        " of ", name_of(dtype), " has more than 2^63 bytes");
  return static_cast<size_t>(bytes);
}

Dims broadcast_shape(const char* op, const Dims& a, const Dims& b) {
  Dims out;
  out.rank = a.rank > b.rank ? a.rank : b.rank;
  for (int i = 0; i < out.rank; i++) {
    int ia = i - (out.rank - a.rank), ib = i - (out.rank - b.rank);
    int64_t x = ia < 0 ? 1 : a[ia], y = ib < 0 ? 1 : b[ib];
    check(x == y || x == 1 || y == 1, "ERR_SHAPE", op, ": shapes ", text_of(a), " and ", text_of(b), " do not broadcast: sizes ", x,
          " and ", y, " differ; each pair of trailing sizes must be equal or 1");
    out[i] = x == 1 ? y : x;
  }
  return out;
}

Tensor Tensor::empty(const Dims& shape, DType dtype, bool idle) {
  Tensor t;
  t.dtype = dtype;
  t.shape = shape;
  t.strides = contiguous_strides(shape);
  t.storage = StorageOwner(Storage::pooled(bytes_of(shape, dtype), idle));
  return t;
}

Tensor Tensor::empty(const Dims& shape, DType dtype, Device device) {
  if (device.is_cpu()) return empty(shape, dtype);
  Tensor t;
  t.dtype = dtype;
  t.shape = shape;
  t.strides = contiguous_strides(shape);
  t.storage = StorageOwner(Storage::on_device(device, bytes_of(shape, dtype)));
  return t;
}

bool Tensor::contiguous() const {
  int64_t step = 1;
  for (int i = shape.rank - 1; i >= 0; i--) {
    if (shape[i] == 0) return true;
    if (shape[i] != 1 && strides[i] != step) return false;
    step *= shape[i];
  }
  return true;
}

bool Tensor::elements_apart() const {
  std::vector<std::pair<int64_t, int64_t>> axes;  // step and size
  for (int i = 0; i < rank(); i++) {
    if (shape[i] == 0) return true;
    if (shape[i] > 1) axes.emplace_back(std::abs(strides[i]), shape[i]);
  }
  std::sort(axes.begin(), axes.end());
  int64_t span = 0;  // of the axes so far
  for (const auto& [step, size] : axes) {
    if (step <= span) return false;
    span += step * (size - 1);
  }
  return true;
}

Tensor Tensor::broadcast_to(const Dims& target) const {
  check(shape.rank <= target.rank, "ERR_SHAPE", "shape ", text_of(shape), " does not broadcast to ", text_of(target),
        ", which has fewer axes");
  Tensor t = *this;
  t.shape = target;
  t.strides.rank = target.rank;
  for (int i = 0; i < target.rank; i++) {
    int from = i - (target.rank - shape.rank);
    check(from < 0 || shape[from] == target[i] || shape[from] == 1, "ERR_SHAPE", "shape ", text_of(shape), " does not broadcast to ",
          text_of(target));
    t.strides[i] = from < 0 || (shape[from] == 1 && target[i] != 1) ? 0 : strides[from];
  }
  return t;
}

Tensor Tensor::view(const Dims& new_shape, const Dims& new_strides, int64_t new_offset) const {
  Tensor t = *this;
  t.shape = new_shape;
  t.strides = new_strides;
  t.offset = new_offset;
  return t;
}

int normalize_axis(const char* op, int64_t axis, int rank) {
  check(axis >= -rank && axis < rank, "ERR_ARGUMENT", op, ": axis ", axis, " is out of range for a tensor of rank ", rank);
  return static_cast<int>(axis < 0 ? axis + rank : axis);
}

}  // namespace fovea
