// Attention forward.
//
//   attention(operands, block, tables, program, uniforms, integers, scale, softcap) -> [out, lse]
#include "cpu/attention.h"

#include "core/stream.h"
#include "ops/attention_call.h"

namespace fovea {
namespace {

std::vector<Tensor> attention(const std::vector<Tensor>& operands, const std::vector<Tensor>& block, const std::vector<Tensor>& tables,
                              const Bytes& program, const Bytes& uniforms, const std::vector<int64_t>& integers, double scale,
                              double softcap) {
  auto call = AttentionCall::bind("attention", {operands, block, tables, program, uniforms, integers, scale, softcap});
  AttentionParams& p = call->params;
  const Tensor &q = operands[kQuery], &v = operands[kValue];
  Tensor out = Tensor::empty({q.shape[0], q.shape[1], q.shape[2], v.shape[3]}, q.dtype);
  Tensor lse = Tensor::empty({q.shape[0], q.shape[1], q.shape[2]}, DType::F32);
  p.out = attention_tensor(out);
  p.lse = lse.data<float>(), p.lse_sb = lse.strides[0], p.lse_sh = lse.strides[1], p.lse_sl = lse.strides[2];
  Storage* writes[] = {out.storage.get(), lse.storage.get()};
  Stream::cpu().launch_spans("attention", call->reads.data(), call->reads.size(), writes, 2, false, [call](const TaskContext& ctx) {
    call->check_lists();
    dispatch_isa([&](auto isa) { cpu::attention_forward<isa()>(call->params, ctx.pool, ctx.cancel); });
  });
  return {out, lse};
}

const RegisterOp<&attention> registration{"attention"};

}  // namespace
}  // namespace fovea
