// Tensors in memory of their own that ends with their last element, so that AddressSanitizer sees what a kernel touches beyond. What lies
// between elements is NaN in every float dtype, which a kernel must neither take nor change.
#pragma once

#include <vector>

#include "element.h"

namespace {

struct Layout {
  bool turned = false;  // the axis before the last lies second in memory
  int64_t padding = 0;  // elements behind a row, the last axis
  int64_t step = 1;     // from an element of a row to the next
};

class View {
 public:
  View() = default;
  View(DType dtype, std::vector<int64_t> shape, Layout layout = {}) : dtype_(dtype), shape_(std::move(shape)), strides_(shape_.size()) {
    std::vector<size_t> inwards;  // axes, from the last on
    for (size_t a = shape_.size(); a-- > 0;) inwards.push_back(a);
    if (layout.turned && shape_.size() > 2) {
      inwards.erase(inwards.begin() + 1);
      inwards.insert(inwards.end() - 1, shape_.size() - 2);
    }
    int64_t stride = layout.step, last = 0, count = 1;
    for (size_t a : inwards) {
      strides_[a] = stride;
      last += (shape_[a] - 1) * stride, count *= shape_[a];
      stride = a == shape_.size() - 1 ? stride * shape_[a] + layout.padding : stride * shape_[a];
    }
    bytes_.assign(count ? static_cast<size_t>(last + 1) * size_of(dtype) : 0, 0xff);
  }
  View(DType dtype, std::vector<int64_t> shape, const std::vector<double>& values, Layout layout = {})
      : View(dtype, std::move(shape), layout) {
    size_t i = 0;
    each([&](size_t at) { set_element(dtype_, bytes_.data(), at, values[i++]); });
  }

  template <class T = void>
  T* data() {
    return reinterpret_cast<T*>(bytes_.data());
  }
  int64_t stride(size_t axis) const { return strides_[axis]; }
  std::vector<double> values() const {
    std::vector<double> all;
    each([&](size_t at) { all.push_back(element(dtype_, bytes_.data(), at)); });
    return all;
  }
  // Whether what lies between elements is as it was.
  bool intact() const {
    std::vector<uint8_t> rest = bytes_;
    each([&](size_t at) { std::memset(rest.data() + at * size_of(dtype_), 0xff, size_of(dtype_)); });
    return rest == std::vector<uint8_t>(rest.size(), 0xff);
  }
  bool operator==(const View& other) const { return bytes_ == other.bytes_; }

 private:
  // Calls f(place of the element) in the order of rows.
  template <class F>
  void each(F&& f) const {
    std::vector<int64_t> index(shape_.size());
    int64_t count = bytes_.empty() ? 0 : 1;
    for (int64_t n : shape_) count *= n;
    for (int64_t i = 0; i < count; i++) {
      int64_t at = 0;
      for (size_t a = 0; a < index.size(); a++) at += index[a] * strides_[a];
      f(static_cast<size_t>(at));
      for (size_t a = index.size(); a-- > 0 && ++index[a] == shape_[a];) index[a] = 0;
    }
  }

  DType dtype_ = DType::F32;
  std::vector<int64_t> shape_, strides_;
  std::vector<uint8_t> bytes_;
};

}  // namespace
