// Gradients of attention.
//
//   attentionBackward(operands, block, tables, program, derivative, uniforms, integers, scale, softcap, saved, wanted)
//     saved    out, lse, dout, dlse (dlse may be absent)
//     wanted   flags for dq, dk, dv, dbias, then one per captured table
//   -> the same number of tensors, null where not wanted; dbias and table gradients in f32
#include "cpu/attention_backward.h"

#include <cstring>

#include "core/call_memory.h"
#include "core/error.h"
#include "core/stream.h"
#include "cpu/convert.h"
#include "cuda/attention_backward.h"
#include "ops/attention_call.h"
#include "ops/copy.h"
#include "ops/device.h"

namespace fovea {
namespace {

constexpr const char* kOp = "attentionBackward";
enum Saved { kOut, kLse, kDOut, kDLse, kSavedCount };

struct Job {
  std::shared_ptr<AttentionCall> call;
  std::unique_ptr<BoundProgram> derivative;
  AttentionGrads grads{};
  std::vector<float*> dtables;
  std::vector<std::pair<void*, size_t>> cleared;  // memory the kernel adds to
  bool no_pairs = false;                          // no query meets a key: every gradient is 0, and no kernel runs

  void run(const TaskContext& ctx) const {
    call->check_lists();
    for (auto [data, bytes] : cleared) std::memset(data, 0, bytes);
    if (no_pairs) return;
    const int threads = ctx.pool.threads();
    const CallMemory workspace(cpu::attention_backward_workspace(call->params, grads, threads));
    cpu::Programs programs{call->score ? call->score->plan.get() : nullptr, derivative ? derivative->plan.get() : nullptr};
    dispatch_isa(
        [&](auto isa) { cpu::attention_backward<isa()>(call->params, grads, programs, workspace.data, threads, ctx.pool, ctx.cancel); });
  }
};

// The only kernel family of a CUDA device; throws where it has none for the call.
void launch_cuda(const std::shared_ptr<Job>& job, const std::vector<Storage*>& reads, const std::vector<Storage*>& writes) {
  const fovea::Device device = job->call->device;
  const char* reason = job->no_pairs ? nullptr : cuda::attention_backward_refusal(job->call->params, job->grads);
  check(!reason, "ERR_UNSUPPORTED", kOp, " on ", name_of(device), ": ", reason ? reason : "", "; move the operands to the CPU for it");
  cuda::Device& target = cuda::Device::get(device.ordinal);
  target.stream().launch_spans(kOp, reads.data(), reads.size(), writes.data(), writes.size(), false, [job, &target](const TaskContext&) {
    cuda::Stream stream = target.launcher();
    for (auto [data, bytes] : job->cleared) stream.fill(data, 0, 1, bytes);
    if (!job->no_pairs) cuda::attention_backward(job->call->params, job->call->limits(), job->grads, stream);
  });
}

void check_saved(const Tensor& t, const char* what, const Dims& shape, DType dtype) {
  check(t.storage && t.shape == shape && t.dtype == dtype, "ERR_SHAPE", kOp, ": ", what, " has shape ", text_of(t.shape), " of ",
        name_of(t.dtype), ", expected ", text_of(shape), " of ", name_of(dtype));
}

std::vector<Tensor> attention_backward(const std::vector<Tensor>& operands, const std::vector<Tensor>& block,
                                       const std::vector<Tensor>& tables, const Bytes& program, const Bytes& derivative,
                                       const Bytes& uniforms, const std::vector<int64_t>& integers, double scale, double softcap,
                                       const std::vector<Tensor>& saved, const std::vector<int64_t>& wanted) {
  auto job = std::make_shared<Job>();
  job->call = AttentionCall::bind(kOp, {operands, block, tables, program, uniforms, integers, scale, softcap});
  AttentionParams& p = job->call->params;
  AttentionGrads& g = job->grads;
  check(!p.out_in_order, "ERR_UNSUPPORTED", kOp, ": query rows listed several times have no gradient; gather them");
  check(!p.page_table, "ERR_UNSUPPORTED", kOp, ": paged keys and values have no gradient; gather them, or use kvRows");
  check(saved.size() == kSavedCount && wanted.size() == 4 + tables.size(), "ERR_ARGUMENT", kOp, ": got ", saved.size(),
        " saved tensors and ", wanted.size(), " flags");
  check(!p.score || derivative.size, "ERR_ARGUMENT", kOp, ": a score program needs its derivative");
  const Tensor &q = operands[kQuery], &k = operands[kKey], &v = operands[kValue], &lse = saved[kLse];
  common_device(kOp, {&q, &saved[kOut], &lse, &saved[kDOut], &saved[kDLse]});
  const Dims out_shape = {q.shape[0], q.shape[1], q.shape[2], v.shape[3]}, lse_shape = {q.shape[0], q.shape[1], q.shape[2]};
  check_saved(saved[kOut], "out", out_shape, p.dtype);
  check_saved(saved[kDOut], "dout", out_shape, p.dtype);
  check_saved(lse, "lse", lse_shape, DType::F32);
  p.out = attention_tensor(saved[kOut]), g.dout = attention_tensor(saved[kDOut]);
  p.lse = lse.data<float>(), p.lse_sb = lse.strides[0], p.lse_sh = lse.strides[1], p.lse_sl = lse.strides[2];
  if (const Tensor& dlse = saved[kDLse]; dlse.storage) {
    check_saved(dlse, "dlse", lse_shape, DType::F32);
    for (int i = 0; i < 3; i++)
      check(dlse.strides[i] == lse.strides[i] || lse.shape[i] <= 1 || lse.count() == 0, "ERR_ARGUMENT", kOp,
            ": lse and its gradient have different strides");
    g.dlse = dlse.data<float>();
  }
  // Rows listed more than once are added up: in f32, whatever the dtype of the operands.
  g.dtype = p.kv_rows ? DType::F32 : p.dtype;
  const bool no_pairs = job->no_pairs = p.batch == 0 || p.heads_q == 0 || p.len_q == 0 || p.len_kv == 0;
  std::vector<Tensor> results(wanted.size());
  auto make = [&](size_t i, const Tensor& like, DType dtype, bool cleared) {
    if (!wanted[i]) return static_cast<void*>(nullptr);
    Tensor& t = results[i] = Tensor::empty(like.shape, dtype, job->call->device);
    if (cleared || no_pairs) job->cleared.push_back({t.data(), static_cast<size_t>(t.count()) * size_of(dtype)});
    return t.data();
  };
  auto gradient = [&](size_t i, const Tensor& like, bool cleared) {
    return make(i, like, g.dtype, cleared) ? attention_tensor(results[i]) : AttentionTensor{};
  };
  g.dq = gradient(0, q, p.q_rows != nullptr), g.dk = gradient(1, k, p.kv_rows != nullptr), g.dv = gradient(2, v, p.kv_rows != nullptr);
  if (p.bias.data && make(3, operands[kBias], DType::F32, true)) {
    Dims target = {p.batch, p.heads_q, p.cu_q ? 1 : p.len_q, p.cu_q ? 1 : p.len_kv};
    const Dims& shape = results[3].shape;
    for (int i = 0; p.cu_q && i < 2 && i < shape.rank; i++) target[3 - i] = shape[shape.rank - 1 - i];
    g.dbias = attention_grid(kOp, "bias", results[3], target);
  }
  if (p.score) {
    job->derivative = std::make_unique<BoundProgram>(kOp, ProgramPlan::Kind::Derivative, derivative, uniforms, tables);
    g.derivative = &job->derivative->program;
    for (size_t i = 0; i < tables.size(); i++) {
      check(!wanted[4 + i] || tables[i].dtype == DType::F32, "ERR_DTYPE", kOp, ": gradient of a table of ", name_of(tables[i].dtype));
      job->dtables.push_back(static_cast<float*>(make(4 + i, tables[i], DType::F32, true)));
    }
    g.dtables = job->dtables.data();
  }
  std::vector<Storage*> reads = job->call->reads, writes;
  for (const Tensor& t : saved)
    if (t.storage) reads.push_back(t.storage.get());
  for (const Tensor& t : results)
    if (t.storage) writes.push_back(t.storage.get());
  if (job->call->device.is_cpu())
    Stream::cpu().launch_spans(kOp, reads.data(), reads.size(), writes.data(), writes.size(), false,
                               [job](const TaskContext& ctx) { job->run(ctx); });
  else launch_cuda(job, reads, writes);
  for (size_t i = 0; i < 3; i++)
    if (results[i].storage && results[i].dtype != p.dtype) results[i] = copy_as(results[i], p.dtype);
  return results;
}

const RegisterOp<&attention_backward> registration{"attentionBackward"};

}  // namespace
}  // namespace fovea
