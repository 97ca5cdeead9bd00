#include "ops/elementwise.h"

#include "ops/copy.h"

namespace fovea {

DType promote(DType a, DType b) {
  if (a == b) return a;
  if (is_floating(a) != is_floating(b)) return is_floating(a) ? a : b;
  if (is_floating(a)) return a == DType::F64 || b == DType::F64 ? DType::F64 : DType::F32;
  auto rank = [](DType d) { return d == DType::Bool ? 0 : d == DType::U8 ? 1 : d == DType::I32 ? 2 : 3; };
  return rank(a) > rank(b) ? a : b;
}

DType promote_number(DType t, double number) {
  if (is_floating(t)) return t;
  const bool whole = number == static_cast<double>(static_cast<int64_t>(number >= -0x1p62 && number <= 0x1p62 ? number : 0.5));
  if (!whole) return DType::F32;
  return t == DType::Bool ? DType::I64 : t;
}

DType arithmetic_type(DType dtype) {
  switch (dtype) {
    case DType::F64:
    case DType::I64:
    case DType::I32: return dtype;
    case DType::U8:
    case DType::Bool: return DType::I32;
    default: return DType::F32;
  }
}

Tensor readable(const Tensor& t) {
  constexpr int64_t kLargeElements = 16384;
  if (t.rank() < 2 || t.count() < kLargeElements) return t;
  bool across = false, packed = false;
  for (int i = t.rank() - 1; i >= 0; i--) {
    if (t.shape[i] == 1) continue;
    if (t.strides[i] == 0) return t;  // a broadcast copy would be larger than its source
    if (!across && !packed) {
      if (t.strides[i] == 1) return t;
      across = true;
    } else {
      packed |= t.strides[i] == 1;
    }
  }
  return across && packed ? copy_as(t, t.dtype) : t;
}

cpu::ElementwiseParams elementwise_params(int op, DType compute, std::initializer_list<const Tensor*> inputs, const Tensor& out) {
  cpu::ElementwiseParams p;
  p.op = op;
  p.compute = compute;
  p.out_dtype = out.dtype;
  p.inputs = 0;
  p.rank = static_cast<int8_t>(out.rank());
  p.out = out.data();
  for (int i = 0; i < out.rank(); i++) p.shape[i] = out.shape[i];
  for (const Tensor* t : inputs) {
    cpu::ElementwiseInput& in = p.in[p.inputs++];
    in.dtype = t->dtype;
    in.data = t->storage ? t->data() : nullptr;
    if (!t->storage) continue;
    const int lead = out.rank() - t->rank();
    for (int i = 0; i < out.rank(); i++) in.strides[i] = i < lead || t->shape[i - lead] == 1 ? 0 : t->strides[i - lead];
  }
  return p;
}

}  // namespace fovea
