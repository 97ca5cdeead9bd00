// selectTop(x [..., n], k) -> indices of the k largest along the last axis, rising: i32 [..., k].
#include "cpu/select_top.h"

#include "core/error.h"
#include "core/op.h"
#include "core/stream.h"
#include "cuda/select_top.h"
#include "ops/copy.h"
#include "ops/device.h"

namespace fovea {
namespace {

constexpr const char* kOp = "selectTop";

Tensor select_top(const Tensor& t, int64_t k) {
  check(t.dtype == DType::F32 || t.dtype == DType::BF16 || t.dtype == DType::F16, "ERR_DTYPE", kOp, ": got ", name_of(t.dtype),
        ", expected f32, bf16 or f16");
  check(t.rank() >= 1, "ERR_SHAPE", kOp, ": got a scalar, expected an axis to select from");
  const int64_t n = t.shape[t.rank() - 1];
  check(k >= 0 && k <= n && n <= INT32_MAX, "ERR_ARGUMENT", kOp, ": k is ", k, ", the last axis of ", text_of(t.shape), " has ", n,
        " elements");
  Tensor x = contiguous(t);
  Dims shape = t.shape;
  shape[t.rank() - 1] = k;
  Tensor out = Tensor::empty(shape, DType::I32, x.device());
  if (out.count() == 0) return out;
  SelectTopParams p{x.data(), x.dtype, x.count() / n, n, k, out.data<int32_t>()};
  launch(
      kOp, x.device(), {x.storage.get()}, {out.storage.get()},
      [p](const TaskContext& ctx) { dispatch_isa([&](auto isa) { cpu::select_top<isa()>(p, ctx.pool); }); },
      [p](cuda::Stream& stream) { cuda::select_top(p, stream); });
  return out;
}

const RegisterOp<&select_top> registration{"selectTop"};

}  // namespace
}  // namespace fovea
