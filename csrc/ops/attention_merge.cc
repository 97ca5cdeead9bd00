// Merging partial attention results.
//
//   mergeAttentions(outs, lses) -> [out, lse]   outs [..., dim] of one shape and dtype, lses [...] f32; any strides
#include "cpu/attention_merge.h"

#include "core/error.h"
#include "core/op.h"
#include "core/stream.h"
#include "ops/copy.h"

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
  std::vector<Tensor> outs, lses;  // contiguous; kept alive by the task
  std::vector<const void*> out_data;
  std::vector<const float*> lse_data;
  cpu::AttentionMergeParams params{};
};

std::vector<Tensor> merge(const std::vector<Tensor>& outs, const std::vector<Tensor>& lses) {
  check_parts(outs, lses);
  auto job = std::make_shared<Job>();
  std::vector<Storage*> reads;
  for (size_t i = 0; i < outs.size(); i++) {
    job->outs.push_back(contiguous(outs[i])), job->lses.push_back(contiguous(lses[i]));
    job->out_data.push_back(job->outs[i].data()), job->lse_data.push_back(job->lses[i].data<float>());
    reads.push_back(job->outs[i].storage.get()), reads.push_back(job->lses[i].storage.get());
  }
  const Tensor& first = outs[0];
  const int64_t dim = first.shape[first.rank() - 1];
  Tensor out = Tensor::empty(first.shape, first.dtype), lse = Tensor::empty(lses[0].shape, DType::F32);
  job->params = {first.dtype,
                 static_cast<int64_t>(outs.size()),
                 lse.count(),
                 dim,
                 job->out_data.data(),
                 job->lse_data.data(),
                 out.data(),
                 lse.data<float>(),
                 nullptr};
  Storage* writes[] = {out.storage.get(), lse.storage.get()};
  Stream::cpu().launch_spans(kOp, reads.data(), reads.size(), writes, 2, false, [job](const TaskContext& ctx) {
    dispatch_isa([&](auto isa) { cpu::attention_merge<isa()>(job->params, ctx.pool); });
  });
  return {out, lse};
}

const RegisterOp<&merge> registration{"mergeAttentions"};

}  // namespace
}  // namespace fovea
