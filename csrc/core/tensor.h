// A tensor: a view (dtype, shape, strides in elements, offset) over reference-counted storage. A value; copying it copies the view.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/dtype.h"
#include "core/storage.h"

namespace fovea {

constexpr int kMaxRank = 8;

// Up to kMaxRank extents, without a heap allocation.
struct Dims {
  int rank = 0;
  int64_t v[kMaxRank] = {};

  Dims() = default;
  Dims(std::initializer_list<int64_t> list);
  int64_t& operator[](int i) { return v[i]; }
  int64_t operator[](int i) const { return v[i]; }
  const int64_t* begin() const { return v; }
  const int64_t* end() const { return v + rank; }
  void push(int64_t x);
  // Throws ERR_SHAPE beyond 2^63.
  int64_t product() const;
  bool operator==(const Dims& o) const;
};

// "[2, 3]"
// "[2, 3]", written where it becomes a string: the arguments of a check that holds cost nothing.
struct DimsText {
  const Dims& dims;
  operator std::string() const;
};
inline DimsText text_of(const Dims& dims) { return {dims}; }
Dims contiguous_strides(const Dims& shape);
// What the elements take; throws ERR_SHAPE for a negative size and for more bytes than can be counted.
size_t bytes_of(const Dims& shape, DType dtype);
// The shape both broadcast to; throws ERR_SHAPE naming `op` and both shapes.
Dims broadcast_shape(const char* op, const Dims& a, const Dims& b);

class Tensor {
 public:
  Tensor() = default;
  // Uninitialised contiguous memory from the pool. `idle`: the calling thread writes it at once (see allocator.h).
  static Tensor empty(const Dims& shape, DType dtype, bool idle = false);
  static Tensor empty(const Dims& shape, DType dtype, Device device);

  DType dtype = DType::F32;
  Dims shape, strides;
  int64_t offset = 0;  // elements
  StorageOwner storage;

  int rank() const { return shape.rank; }
  int64_t count() const { return shape.product(); }
  Device device() const { return storage->device(); }
  bool contiguous() const;
  // False when two indices may lie at one element, as where a view is expanded.
  bool elements_apart() const;
  template <class T = void>
  T* data() const {
    return reinterpret_cast<T*>(static_cast<char*>(storage->data()) + offset * static_cast<int64_t>(size_of(dtype)));
  }
  // This tensor as a view of `target` (same rank rules as NumPy): stride 0 where broadcast. The shape must be compatible.
  Tensor broadcast_to(const Dims& target) const;
  // A view with other shape and strides over the same storage.
  Tensor view(const Dims& shape, const Dims& strides, int64_t offset) const;
};

// A negative axis counts from the end; throws ERR_ARGUMENT when out of range.
int normalize_axis(const char* op, int64_t axis, int rank);

}  // namespace fovea
