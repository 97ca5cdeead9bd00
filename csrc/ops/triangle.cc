// tril and triu of the last two axes.
#include "cpu/triangle.h"

#include "core/op.h"
#include "core/stream.h"
#include "cuda/triangle.h"
#include "ops/copy.h"
#include "ops/device.h"

namespace fovea {
namespace {

Tensor triangle(const Tensor& input, int64_t diagonal, bool upper) {
  const char* op = upper ? "triu" : "tril";
  int rank = input.rank();
  check(rank >= 2, "ERR_SHAPE", op, ": shape ", text_of(input.shape), "; expected at least two axes");
  Tensor x = contiguous(input), out = Tensor::empty(x.shape, x.dtype, x.device());
  cpu::TriangleParams p{};
  p.x = x.data();
  p.out = out.data();
  p.element_bytes = static_cast<int>(size_of(x.dtype));
  p.rows = x.shape[rank - 2];
  p.columns = x.shape[rank - 1];
  p.matrices = out.count() > 0 ? out.count() / (p.rows * p.columns) : 0;
  p.diagonal = diagonal;
  p.upper = upper;
  launch(
      op, out.device(), {x.storage.get()}, {out.storage.get()},
      [p](const TaskContext& ctx) { dispatch_isa([&](auto isa) { cpu::triangle<isa()>(p, ctx.pool); }); },
      [p](cuda::Stream& stream) { cuda::triangle(p, stream); });
  return out;
}

const RegisterOp<&triangle> registration{"triangle"};

}  // namespace
}  // namespace fovea
