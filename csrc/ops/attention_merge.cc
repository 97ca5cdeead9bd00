// Merging partial attention results.
//
//   mergeAttentions(outs, lses) -> [out, lse]   outs [..., dim] of one shape and dtype, lses [...] f32; any strides
//   mergeAttentionsBackward(outs, lses, [out, lse], [dout, dlse]) -> gradients of the outs, then of the lses; either gradient may be absent
#include "cpu/attention_merge.h"

#include "core/error.h"
#include "core/op.h"
#include "core/stream.h"
#include "cuda/attention_merge.h"
#include "ops/copy.h"
#include "ops/device.h"

namespace fovea {
namespace {

constexpr const char* kOp = "mergeAttentions";

void check_parts(const std::vector<Tensor>& outs, const std::vector<Tensor>& lses) {
  check(!outs.empty() && outs.size() == lses.size(), "ERR_ARGUMENT", kOp, ": got ", outs.size(), " outs and ", lses.size(), " lses");
  const Tensor& first = outs[0];
  check(first.dtype == DType::F32 || first.dtype == DType::BF16 || first.dtype == DType::F16, "ERR_DTYPE", kOp, ": out is ",
        name_of(first.dtype), ", expected f32, bf16 or f16");
  check(first.rank() >= 1, "ERR_SHAPE", kOp, ": out has no axis");
  Dims rows;
  for (int i = 0; i + 1 < first.rank(); i++) rows.push(first.shape[i]);
  for (size_t i = 0; i < outs.size(); i++) {
    check(outs[i].shape == first.shape && outs[i].dtype == first.dtype, "ERR_SHAPE", kOp, ": part ", i, " has out ", text_of(outs[i].shape),
          " of ", name_of(outs[i].dtype), ", part 0 has ", text_of(first.shape), " of ", name_of(first.dtype));
    check(lses[i].shape == rows && lses[i].dtype == DType::F32, "ERR_SHAPE", kOp, ": part ", i, " has lse ", text_of(lses[i].shape), " of ",
          name_of(lses[i].dtype), ", expected ", text_of(rows), " of f32");
  }
}

struct Job {
  std::vector<Tensor> held;  // contiguous
  std::vector<const void*> outs;
  std::vector<const float*> lses;
  std::vector<void*> douts;
  std::vector<float*> dlses;
  std::vector<Storage*> reads;
  AttentionMergeParams params{};
  AttentionMergeGrads grads{};
  Device device;

  const Tensor& hold(const Tensor& t) {
    check(t.device() == device, "ERR_DEVICE", kOp, ": parts are on ", name_of(device), " and ", name_of(t.device()),
          "; move them to one device with to()");
    held.push_back(fovea::contiguous(t));
    reads.push_back(held.back().storage.get());
    return held.back();
  }
  void bind(const std::vector<Tensor>& out_parts, const std::vector<Tensor>& lse_parts) {
    check_parts(out_parts, lse_parts);
    device = out_parts[0].device();
    for (const Tensor& t : out_parts) outs.push_back(hold(t).data());
    for (const Tensor& t : lse_parts) lses.push_back(hold(t).data<float>());
    const Tensor& first = out_parts[0];
    params.dtype = first.dtype;
    params.count = static_cast<int64_t>(out_parts.size());
    params.rows = lse_parts[0].count();
    params.dim = first.shape[first.rank() - 1];
    params.outs = outs.data();
    params.lses = lses.data();
  }
};

std::vector<Tensor> merge(const std::vector<Tensor>& outs, const std::vector<Tensor>& lses) {
  auto job = std::make_shared<Job>();
  job->bind(outs, lses);
  Tensor out = Tensor::empty(outs[0].shape, outs[0].dtype, job->device), lse = Tensor::empty(lses[0].shape, DType::F32, job->device);
  job->params.out = out.data(), job->params.lse = lse.data<float>();
  Storage* writes[] = {out.storage.get(), lse.storage.get()};
  launch_spans(
      kOp, job->device, job->reads.data(), job->reads.size(), writes, 2, false,
      [job](const TaskContext& ctx) { dispatch_isa([&](auto isa) { cpu::attention_merge<isa()>(job->params, ctx.pool); }); },
      [job](cuda::Stream& stream) { cuda::attention_merge(job->params, stream); });
  return {out, lse};
}

std::vector<Tensor> merge_backward(const std::vector<Tensor>& outs, const std::vector<Tensor>& lses, const std::vector<Tensor>& merged,
                                   const std::vector<Tensor>& upstream) {
  check(merged.size() == 2 && upstream.size() == 2, "ERR_ARGUMENT", kOp, ": backward takes out, lse and their gradients");
  auto job = std::make_shared<Job>();
  job->bind(outs, lses);
  job->params.out = job->hold(merged[0]).data(), job->params.lse = job->hold(merged[1]).data<float>();
  AttentionMergeGrads& g = job->grads;
  if (upstream[0].storage) g.dout = job->hold(upstream[0]).data();
  if (upstream[1].storage) g.dlse = job->hold(upstream[1]).data<float>();
  std::vector<Tensor> results;
  std::vector<Storage*> writes;
  auto make = [&](const Tensor& like) {
    results.push_back(Tensor::empty(like.shape, like.dtype, job->device));
    writes.push_back(results.back().storage.get());
    return results.back().data();
  };
  for (const Tensor& t : outs) job->douts.push_back(make(t));
  for (const Tensor& t : lses) job->dlses.push_back(static_cast<float*>(make(t)));
  g.forward = job->params, g.douts = job->douts.data(), g.dlses = job->dlses.data();
  launch_spans(
      "mergeAttentionsBackward", job->device, job->reads.data(), job->reads.size(), writes.data(), writes.size(), false,
      [job](const TaskContext& ctx) { dispatch_isa([&](auto isa) { cpu::attention_merge_backward<isa()>(job->grads, ctx.pool); }); },
      [job](cuda::Stream& stream) { cuda::attention_merge_backward(job->grads, stream); });
  return results;
}

const RegisterOp<&merge> registration{"mergeAttentions"};
const RegisterOp<&merge_backward> backward_registration{"mergeAttentionsBackward"};

}  // namespace
}  // namespace fovea
