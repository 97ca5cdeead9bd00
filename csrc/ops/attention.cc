// Attention forward: the ordered table of kernels, the op, and explain as a map over the table.
//
//   attention(operands, block, tables, program, uniforms, integers, scale, softcap) -> [out, lse]
//   attentionExplain(the same) -> JSON text: kernel, refused kernels with reasons, tiles, FLOPs, bytes. Waits for the stream.
#include "cpu/attention.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "core/stream.h"
#include "cpu/attention_amx.h"
#include "cpu/attention_bf16_dot.h"
#include "cpu/attention_decode.h"
#include "cpu/attention_decode_amx.h"
#include "cpu/attention_decode_bf16_dot.h"
#include "cuda/attention_kernels.h"
#include "ops/attention_call.h"
#include "ops/attention_plan.h"
#include "ops/device.h"
#include "ops/transfer.h"

namespace fovea {
namespace {

constexpr const char* kOp = "attention";

struct Kernel {
  const char* name;
  const char* (*refusal)(const AttentionParams&);  // null: it takes the call
  void (*run)(const AttentionCall&, const TaskContext&);
};

const ProgramPlan* score_of(const AttentionCall& call) { return call.score ? call.score->plan.get() : nullptr; }

void run_decode(const AttentionCall& call, const TaskContext& ctx) {
  dispatch_isa([&](auto isa) { cpu::attention_decode<isa()>(call.params, ctx.pool, ctx.cancel); });
}

#if defined(__x86_64__)
void run_decode_amx(const AttentionCall& call, const TaskContext& ctx) { cpu::attention_decode_amx(call.params, ctx.pool, ctx.cancel); }

void run_decode_bf16_dot(const AttentionCall& call, const TaskContext& ctx) {
  cpu::attention_decode_bf16_dot(call.params, ctx.pool, ctx.cancel);
}

void run_amx(const AttentionCall& call, const TaskContext& ctx) { cpu::attention_amx(call.params, score_of(call), ctx.pool, ctx.cancel); }

void run_bf16_dot(const AttentionCall& call, const TaskContext& ctx) {
  cpu::attention_bf16_dot(call.params, score_of(call), ctx.pool, ctx.cancel);
}
#endif

void run_forward(const AttentionCall& call, const TaskContext& ctx) {
  dispatch_isa([&](auto isa) { cpu::attention_forward<isa()>(call.params, score_of(call), ctx.pool, ctx.cancel); });
}

// In order of preference; the first that takes a call runs it. The last takes every call.
const Kernel kKernels[] = {
#if defined(__x86_64__)
    {"cpu.amx-decode", cpu::attention_decode_amx_refusal, run_decode_amx},
    {"cpu.bf16-dot-decode", cpu::attention_decode_bf16_dot_refusal, run_decode_bf16_dot},
#endif
    {"cpu.decode", [](const AttentionParams& p) { return cpu::attention_decode_refusal(p); }, run_decode},
#if defined(__x86_64__)
    {"cpu.amx", cpu::attention_amx_refusal, run_amx},
    {"cpu.bf16-dot", cpu::attention_bf16_dot_refusal, run_bf16_dot},
#endif
    {"cpu.tiles-split-keys",
     [](const AttentionParams& p) -> const char* {
       return cpu::attention_splits_keys(p) ? nullptr : "enough query tiles to keep threads busy, or too few keys to split";
     },
     run_forward},
    {"cpu.tiles", [](const AttentionParams&) -> const char* { return nullptr; }, run_forward},
};

void run(const AttentionCall& call, const TaskContext& ctx) {
  for (const Kernel& kernel : kKernels)
    if (!kernel.refusal(call.params)) return kernel.run(call, ctx);
}

// Rows of out [.., rows, dim_v] and lse that no list names: 0 and -inf. The engine writes the others.
void clear_unlisted(const AttentionParams& p, int64_t rows, ThreadPool& pool) {
  const size_t row_bytes = static_cast<size_t>(p.dim_v) * size_of(p.dtype);
  pool.run(p.batch * p.heads_q, [&](int64_t item, int thread) {
    const int64_t b = item / p.heads_q, h = item % p.heads_q;
    const int32_t* list = p.q_rows + b * p.q_rows_sb + h * p.q_rows_sh;
    auto* listed = static_cast<uint8_t*>(pool.scratch(thread, static_cast<size_t>(rows)));
    std::memset(listed, 0, static_cast<size_t>(rows));
    for (int64_t i = 0; i < p.len_q; i++)
      if (list[i] >= 0) listed[list[i]] = 1;
    auto* out = static_cast<char*>(p.out.data) + (b * p.out.sb + h * p.out.sh) * static_cast<int64_t>(size_of(p.dtype));
    float* lse = p.lse + b * p.lse_sb + h * p.lse_sh;
    for (int64_t r = 0; r < rows; r++) {
      if (listed[r]) continue;
      std::memset(out + r * p.out.sl * static_cast<int64_t>(size_of(p.dtype)), 0, row_bytes);
      lse[r * p.lse_sl] = -std::numeric_limits<float>::infinity();
    }
  });
}

const cuda::AttentionKernel& cuda_kernel(const AttentionCall& call) {
  std::string reasons;
  for (const cuda::AttentionKernel& kernel : cuda::kAttentionKernels) {
    const char* reason = kernel.refusal(call.params);
    if (!reason) return kernel;
    reasons += (reasons.empty() ? "" : "; ") + std::string(kernel.name) + ": " + reason;
  }
  fail("ERR_UNSUPPORTED", kOp, " on ", name_of(call.device), ": ", reasons, "; move the operands to the CPU for it");
}

void launch_cuda(const std::shared_ptr<AttentionCall>& call, const Tensor& out, const Tensor& lse) {
  const cuda::AttentionKernel& kernel = cuda_kernel(*call);
  Storage* writes[] = {out.storage.get(), lse.storage.get()};
  cuda::Device& device = cuda::Device::get(call->device.ordinal);
  const auto elements = static_cast<size_t>(out.count()), rows = static_cast<size_t>(lse.count());
  device.stream().launch_spans(kOp, call->reads.data(), call->reads.size(), writes, 2, false,
                               [call, &kernel, &device, elements, rows](const TaskContext&) {
                                 cuda::Stream stream = device.launcher();
                                 const AttentionParams& p = call->params;
                                 if (p.q_rows) {  // rows that no list names
                                   stream.fill(p.out.data, 0, static_cast<int>(size_of(p.dtype)), elements);
                                   stream.fill(p.lse, std::bit_cast<uint32_t>(-std::numeric_limits<float>::infinity()), 4, rows);
                                 }
                                 kernel.run(p, call->limits(), stream);
                               });
}

// [batch, heads, rows, dim of v] in the memory order of q: where the heads of a row lie side by side in q, they do in out, so that a model
// joins them without a copy.
Tensor empty_out(const Tensor& q, int64_t rows, int64_t dim_v) {
  const Dims& s = q.shape;
  if (q.strides[1] >= q.strides[2]) return Tensor::empty({s[0], s[1], rows, dim_v}, q.dtype, q.device());
  const Tensor turned = Tensor::empty({s[0], rows, s[1], dim_v}, q.dtype, q.device());
  return turned.view({s[0], s[1], rows, dim_v}, {turned.strides[0], turned.strides[2], turned.strides[1], 1}, 0);
}

std::vector<Tensor> attention(const std::vector<Tensor>& operands, const std::vector<Tensor>& block, const std::vector<Tensor>& tables,
                              const Bytes& program, const Bytes& uniforms, const std::vector<int64_t>& integers, double scale,
                              double softcap) {
  auto call = AttentionCall::bind(kOp, {operands, block, tables, program, uniforms, integers, scale, softcap});
  AttentionParams& p = call->params;
  const Tensor &q = operands[kQuery], &v = operands[kValue];
  const int64_t rows = p.out_in_order ? p.len_q : q.shape[2];
  Tensor out = empty_out(q, rows, v.shape[3]);
  Tensor lse = Tensor::empty({q.shape[0], q.shape[1], rows}, DType::F32, call->device);
  p.out = attention_tensor(out);
  p.lse = lse.data<float>(), p.lse_sb = lse.strides[0], p.lse_sh = lse.strides[1], p.lse_sl = lse.strides[2];
  if (!call->device.is_cpu()) {
    check(!p.out_in_order, "ERR_UNSUPPORTED", kOp, " on ", name_of(call->device), ": query rows listed several times; gather them");
    launch_cuda(call, out, lse);
    return {out, lse};
  }
  Storage* writes[] = {out.storage.get(), lse.storage.get()};
  Stream::cpu().launch_spans(kOp, call->reads.data(), call->reads.size(), writes, 2, false, [call, rows](const TaskContext& ctx) {
    call->check_lists();
    if (call->params.q_rows && !call->params.out_in_order) clear_unlisted(call->params, rows, ctx.pool);
    run(*call, ctx);
  });
  return {out, lse};
}

std::string quoted(const char* text) { return '"' + std::string(text) + '"'; }

// Whole numbers as JSON readers expect them.
std::string number(double x) { return std::to_string(static_cast<int64_t>(x)); }

std::string explain(const std::vector<Tensor>& operands, const std::vector<Tensor>& block, const std::vector<Tensor>& tables,
                    const Bytes& program, const Bytes& uniforms, const std::vector<int64_t>& integers, double scale, double softcap) {
  // The plan follows lists and block masks, so they are read on the host.
  std::vector<Tensor> host_operands = operands, host_block = block;
  for (size_t i = kKvLengths; i < host_operands.size(); i++)
    if (host_operands[i].storage) host_operands[i] = to_device(host_operands[i], Device::cpu());
  for (Tensor& t : host_block) t = to_device(t, Device::cpu());
  AttentionCall::bind(kOp, {operands, block, tables, program, uniforms, integers, scale, softcap});
  auto call = AttentionCall::bind(kOp, {host_operands, host_block, tables, program, uniforms, integers, scale, softcap}, true);
  Stream::cpu().synchronize();
  call->check_lists();
  std::string refused, chosen;
  auto choose = [&](const auto& kernels) {
    for (const auto& kernel : kernels) {
      const char* reason = kernel.refusal(call->params);
      if (!reason) {
        chosen = kernel.name;
        return;
      }
      refused += std::string(refused.empty() ? "" : ",") + "{\"kernel\":" + quoted(kernel.name) + ",\"reason\":" + quoted(reason) + "}";
    }
  };
  if (call->device.is_cpu()) choose(kKernels);
  else if (choose(cuda::kAttentionKernels); chosen.empty()) cuda_kernel(*call);
  AttentionPlan plan = plan_attention(call->params);
  return std::string("{\"kernel\":") + quoted(chosen.c_str()) +
         ",\"isa\":" + quoted(call->device.is_cpu() ? name_of(current_isa()) : "cuda") + ",\"refused\":[" + refused + "],\"tile\":[" +
         std::to_string(plan.tile_q) + "," + std::to_string(plan.tile_kv) + "],\"full\":" + std::to_string(plan.full) +
         ",\"partial\":" + std::to_string(plan.partial) + ",\"skipped\":" + std::to_string(plan.skipped) +
         ",\"flops\":" + number(plan.flops) + ",\"denseFlops\":" + number(plan.dense_flops) + ",\"bytes\":" + number(plan.bytes) + "}";
}

const RegisterOp<&attention> registration{"attention"};
const RegisterOp<&explain> explain_registration{"attentionExplain"};

}  // namespace
}  // namespace fovea
