// The loop under every elementwise kernel: it presents any broadcast, strided, mixed-dtype inputs to a kernel as dense blocks.
//
// Axes are merged where all inputs allow. The output is walked in row-major order in tiles of a fixed size (the unit of parallel work).
// Inside a tile, an input that already lies densely in the arithmetic type is passed by pointer; any other is converted or repeated into
// a block of scratch first. Long rows are handled a piece at a time, short ones are gathered, several to a block. A repeated value stays
// in its scratch block for as long as the same element is wanted.
#pragma once

#include "cpu/blocks.h"
#include "cpu/elementwise.h"

namespace fovea::cpu {
namespace {

constexpr int64_t kTileElements = 32768;
constexpr int64_t kLongRow = 128;

using BlockKernel = void (*)(const void* const* in, void* out, int64_t n, const double* scalars);

// The element type a kernel wants for one input: the arithmetic type, or bytes for a condition.
using BlockLoader = void (*)(DType dtype, const void* src, int64_t stride, void* dst, int64_t n);

template <class C>
void load_erased(DType dtype, const void* src, int64_t stride, void* dst, int64_t n) {
  load_block<C>(dtype, src, stride, static_cast<C*>(dst), n);
}

FOVEA_INLINE BlockLoader loader_of(DType compute) {
  switch (compute) {
    case DType::F32: return load_erased<float>;
    case DType::F64: return load_erased<double>;
    case DType::I32: return load_erased<int32_t>;
    case DType::I64: return load_erased<int64_t>;
    default: return load_erased<uint8_t>;
  }
}

class Elementwise {
 public:
  // `in_types`: what the kernel reads; `result`: what it writes, converted to p.out_dtype afterwards when they differ.
  Elementwise(const ElementwiseParams& p, BlockKernel kernel, const DType* in_types, DType result)
      : p_(p), kernel_(kernel), result_(result) {
    merge_axes();
    direct_ = result == p.out_dtype;
    for (int k = 0; k < p.inputs; k++) {
      types_[k] = in_types[k];
      same_type_[k] = p.in[k].data && p.in[k].dtype == in_types[k];
      dense_[k] = p.in[k].data && is_dense(k);
      constant_[k] = true;
      for (int i = 0; i < rank_; i++) constant_[k] &= strides_[k][i] == 0;
      direct_ &= same_type_[k] && !constant_[k] && inner_stride(k) == 1;
    }
  }

  void run(ThreadPool& pool) const {
    const int64_t tiles = (count_ + kTileElements - 1) / kTileElements;
    if (tiles == 1) return run_range(0, count_);
    pool.run(tiles, [this](int64_t tile, int) {
      const int64_t end = (tile + 1) * kTileElements;
      run_range(tile * kTileElements, end < count_ ? end : count_);
    });
  }

 private:
  struct Scratch {
    alignas(64) char in[3][kBlock * 8];
    alignas(64) char out[kBlock * 8];
    const void* repeated[3] = {};  // the element that fills in[k]
    int64_t repeated_count[3] = {};
  };

  void merge_axes() {
    count_ = 1;
    for (int i = 0; i < p_.rank; i++) {
      const int64_t size = p_.shape[i];
      count_ *= size;
      if (size == 1) continue;
      bool merge = rank_ > 0;
      for (int k = 0; k < p_.inputs && merge; k++) merge = strides_[k][rank_ - 1] == stride(k, i) * size;
      if (!merge) rank_++;
      shape_[rank_ - 1] = merge ? shape_[rank_ - 1] * size : size;
      for (int k = 0; k < p_.inputs; k++) strides_[k][rank_ - 1] = stride(k, i);
    }
    if (rank_ == 0) rank_ = 1, shape_[0] = count_;
  }

  int64_t stride(int k, int axis) const { return p_.in[k].data ? p_.in[k].strides[axis] : 0; }
  int64_t inner_stride(int k) const { return strides_[k][rank_ - 1]; }

  bool is_dense(int k) const {
    int64_t step = 1;
    for (int i = rank_ - 1; i >= 0; i--) {
      if (strides_[k][i] != step) return false;
      step *= shape_[i];
    }
    return true;
  }

  static const char* at(const ElementwiseInput& in, int64_t offset) {
    return static_cast<const char*>(in.data) + offset * static_cast<int64_t>(size_of(in.dtype));
  }

  // One element, repeated n times in the scratch of input k.
  const void* repeat(Scratch& s, int k, const void* element, int64_t n) const {
    if (s.repeated[k] != element || s.repeated_count[k] < n) {
      const bool number = element == &p_.scalars[k];
      loader_of(types_[k])(number ? DType::F64 : p_.in[k].dtype, element, 0, s.in[k], n);
      if (number && types_[k] == DType::I32) fill(reinterpret_cast<int32_t*>(s.in[k]), static_cast<int32_t>(p_.scalars[k]), n);
      if (number && types_[k] == DType::I64) fill(reinterpret_cast<int64_t*>(s.in[k]), static_cast<int64_t>(p_.scalars[k]), n);
      s.repeated[k] = element;
      s.repeated_count[k] = n;
    }
    return s.in[k];
  }

  template <class T>
  static void fill(T* dst, T x, int64_t n) {
    for (int64_t i = 0; i < n; i++) dst[i] = x;
  }

  // n elements of input k from linear position `position`, all in one row that starts at element `offset` of the input.
  const void* piece(Scratch& s, int k, int64_t offset, int64_t n) const {
    if (!p_.in[k].data) return repeat(s, k, &p_.scalars[k], n);
    const char* element = at(p_.in[k], offset);
    if (inner_stride(k) == 0) return repeat(s, k, element, n);
    if (same_type_[k] && inner_stride(k) == 1) return element;
    loader_of(types_[k])(p_.in[k].dtype, element, inner_stride(k), s.in[k], n);
    return s.in[k];
  }

  // n elements of input k that lie in several short rows, from row `row` (its index vector) and `column` on.
  const void* gathered(Scratch& s, int k, const int64_t* first, int64_t column, int64_t n) const {
    const int64_t inner = shape_[rank_ - 1], element_bytes = static_cast<int64_t>(size_of(types_[k]));
    int64_t index[8];
    for (int i = 0; i < rank_; i++) index[i] = first[i];
    BlockLoader loader = loader_of(types_[k]);
    for (int64_t done = 0; done < n;) {
      int64_t offset = column * inner_stride(k);
      for (int i = 0; i + 1 < rank_; i++) offset += index[i] * strides_[k][i];
      int64_t run = inner - column;
      if (run > n - done) run = n - done;
      loader(p_.in[k].dtype, at(p_.in[k], offset), inner_stride(k), s.in[k] + done * element_bytes, run);
      done += run;
      column = 0;
      advance(index);
    }
    return s.in[k];
  }

  // The next row.
  void advance(int64_t* index) const {
    for (int i = rank_ - 2; i >= 0; i--) {
      if (++index[i] < shape_[i]) return;
      index[i] = 0;
    }
  }

  void run_range(int64_t begin, int64_t end) const {
    Scratch s;
    const int64_t inner = shape_[rank_ - 1], out_bytes = static_cast<int64_t>(size_of(p_.out_dtype));
    const bool long_rows = rank_ == 1 || inner >= kLongRow;
    int64_t index[8], column = begin % inner, rest = begin / inner;
    for (int i = rank_ - 2; i >= 0; i--) {
      index[i] = rest % shape_[i];
      rest /= shape_[i];
    }
    for (int64_t position = begin; position < end;) {
      int64_t n = end - position;
      if (n > kBlock && !(direct_ && long_rows)) n = kBlock;
      if (long_rows && n > inner - column) n = inner - column;
      const void* in[3];
      for (int k = 0; k < p_.inputs; k++) {
        if (dense_[k] && same_type_[k]) {
          in[k] = at(p_.in[k], position);
        } else if (constant_[k]) {
          in[k] = repeat(s, k, p_.in[k].data ? p_.in[k].data : &p_.scalars[k], n);
        } else if (long_rows) {
          int64_t offset = column * inner_stride(k);
          for (int i = 0; i + 1 < rank_; i++) offset += index[i] * strides_[k][i];
          in[k] = piece(s, k, offset, n);
        } else {
          in[k] = gathered(s, k, index, column, n);
        }
      }
      char* target = static_cast<char*>(p_.out) + position * out_bytes;
      if (result_ == p_.out_dtype) {
        kernel_(in, target, n, p_.scalars);
      } else {
        kernel_(in, s.out, n, p_.scalars);
        if (result_ == DType::F32) store_block(p_.out_dtype, reinterpret_cast<const float*>(s.out), target, n);
        else store_block(p_.out_dtype, reinterpret_cast<const int32_t*>(s.out), target, n);
      }
      position += n;
      if (position == end) break;
      for (column += n; column >= inner; column -= inner) advance(index);
    }
  }

  const ElementwiseParams& p_;
  BlockKernel kernel_;
  DType result_;
  DType types_[3];
  int rank_ = 0;
  int64_t count_ = 1, shape_[8] = {}, strides_[3][8] = {};
  bool same_type_[3] = {}, dense_[3] = {}, constant_[3] = {};
  bool direct_;  // no input or output needs a block of scratch, when rows are long
};

}  // namespace
}  // namespace fovea::cpu
