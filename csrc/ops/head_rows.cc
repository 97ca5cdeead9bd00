// headRows(active bool [batch, tokens, heads]) -> i32 [batch, heads, tokens]: the tokens that take each head, rising, then -1.
#include "cpu/head_rows.h"

#include "core/error.h"
#include "core/op.h"
#include "core/stream.h"
#include "cuda/head_rows.h"
#include "ops/copy.h"
#include "ops/device.h"

namespace fovea {
namespace {

constexpr const char* kOp = "headRows";

Tensor head_rows(const Tensor& active_in) {
  const Dims& s = active_in.shape;
  check(active_in.dtype == DType::Bool, "ERR_DTYPE", kOp, ": got ", name_of(active_in.dtype), ", expected bool");
  check(active_in.rank() == 3 && s[1] <= INT32_MAX, "ERR_SHAPE", kOp, ": got shape ", text_of(s), ", expected [batch, tokens, heads]");
  Tensor active = contiguous(active_in), out = Tensor::empty({s[0], s[2], s[1]}, DType::I32, active.device());
  if (out.count() == 0) return out;
  HeadRowsParams p{active.data<uint8_t>(), s[0], s[1], s[2], out.data<int32_t>()};
  launch(
      kOp, active.device(), {active.storage.get()}, {out.storage.get()},
      [p](const TaskContext& ctx) { dispatch_isa([&](auto isa) { cpu::head_rows<isa()>(p, ctx.pool); }); },
      [p](cuda::Stream& stream) { cuda::head_rows(p, stream); });
  return out;
}

const RegisterOp<&head_rows> registration{"headRows"};

}  // namespace
}  // namespace fovea
