// Neighborhood attention: the ordered table of kernels, the op, its gradients, and explain as a map over the table.
//
//   neighborhoodAttention(operands, axes, scale) -> [out, lse]
//   neighborhoodAttentionBackward(operands, axes, scale, [out, lse, dout, dlse]) -> [dq, dk, dv, dextraK, dextraV, drpb], null where the
//     operand is absent; dlse may be absent
//   neighborhoodExplain(operands, axes, scale) -> JSON text: kernel, refused kernels with reasons, tile
#include "cpu/neighborhood.h"

#include "core/error.h"
#include "core/stream.h"
#include "cuda/neighborhood_backward.h"
#include "ops/copy.h"
#include "ops/device.h"
#include "ops/neighborhood_call.h"

namespace fovea {

const char* cpu::neighborhood_shift_refusal(const NeighborhoodParams& p) {
  constexpr int64_t kLongest = 13, kMostKeys = 1024, kLanesOfLine = 16;
  constexpr int64_t kMostBytesOfPlanes = 1900 << 10, kMostBytesOfRows = 10 << 20, kRowsOfTile = 8;
  const NeighborhoodAxis &z = p.axis[0], &y = p.axis[1], &x = p.axis[2];
  if (p.extra) return "extra keys";
  if (x.stride != 1) return "a stride along the last axis";
  if (y.kernel == 1) return "no window across rows of a plane, so nothing shares a load";
  if (x.kernel > kLongest || z.kernel * y.kernel * x.kernel > kMostKeys) return "a large window";
  const int64_t n = (x.length + x.dilation - 1) / x.dilation, lanes = (n + kLanesOfLine - 1) / kLanesOfLine * kLanesOfLine;
  if (5 * n < 3 * lanes) return "rows that fill few lanes";
  const int64_t row_bytes = (lanes + kLanesOfLine) * (p.dim + p.dim_v) * 4, rows = (y.length + y.dilation - 1) / y.dilation;
  if (z.length > 1 && z.kernel * rows * row_bytes > kMostBytesOfPlanes) return "planes that outgrow the second cache";
  if (z.length == 1 && (y.kernel + kRowsOfTile - 1) * row_bytes > kMostBytesOfRows) return "rows that outgrow the third cache";
  return nullptr;
}

namespace {

constexpr const char* kOp = "neighborhoodAttention";

struct Kernel {
  const char* name;
  const char* (*refusal)(const NeighborhoodParams&);  // null: it takes the call
  void (*forward)(const NeighborhoodParams&, const TaskContext&);
  void (*backward)(const NeighborhoodParams&, const NeighborhoodGrads&, const TaskContext&);
};

// In order of preference; the first that takes a call runs it, and its gradients. The last takes every call.
const Kernel kKernels[] = {
    {"cpu.shift", cpu::neighborhood_shift_refusal,
     [](const NeighborhoodParams& p, const TaskContext& ctx) {
       dispatch_isa([&](auto isa) { cpu::neighborhood_shift<isa()>(p, ctx.pool, ctx.cancel); });
     },
     [](const NeighborhoodParams& p, const NeighborhoodGrads& g, const TaskContext& ctx) {
       dispatch_isa([&](auto isa) { cpu::neighborhood_shift_backward<isa()>(p, g, ctx.pool, ctx.cancel); });
     }},
    {"cpu.tiles", [](const NeighborhoodParams&) -> const char* { return nullptr; },
     [](const NeighborhoodParams& p, const TaskContext& ctx) {
       dispatch_isa([&](auto isa) { cpu::neighborhood_tiles<isa()>(p, ctx.pool, ctx.cancel); });
     },
     [](const NeighborhoodParams& p, const NeighborhoodGrads& g, const TaskContext& ctx) {
       dispatch_isa([&](auto isa) { cpu::neighborhood_tiles_backward<isa()>(p, g, ctx.pool, ctx.cancel); });
     }},
};

Device device_of(const char* op, const std::vector<Tensor>& t) {
  return common_device(op, {&t[kNaQuery], &t[kNaKey], &t[kNaValue], &t[kNaExtraKey], &t[kNaExtraValue], &t[kNaBias]});
}

// CUDA devices have one kernel, so what it refuses is refused.
void check_cuda(const char* op, Device device, const char* refusal) {
  check(!refusal, "ERR_UNSUPPORTED", op, " on ", name_of(device), ": ", refusal ? refusal : "");
}

std::vector<Storage*> storages_of(const std::vector<Tensor>& tensors) {
  std::vector<Storage*> list;
  for (const Tensor& t : tensors)
    if (t.storage) list.push_back(t.storage.get());
  return list;
}

std::vector<Tensor> forward(const std::vector<Tensor>& operands, const std::vector<int64_t>& axes, double scale) {
  NeighborhoodParams p = bind_neighborhood(kOp, operands, axes, scale);
  const Device device = device_of(kOp, operands);
  if (!device.is_cpu()) check_cuda(kOp, device, cuda::neighborhood_refusal(p));
  Dims shape = neighborhood_rows(operands[kNaQuery]);
  Tensor lse = Tensor::empty(shape, DType::F32, device);
  shape.push(p.dim_v);
  Tensor out = Tensor::empty(shape, p.dtype, device);
  p.out = neighborhood_tensor(out), p.lse = lse.data<float>();
  std::vector<Storage*> reads = storages_of(operands);
  Storage* writes[] = {out.storage.get(), lse.storage.get()};
  launch_spans(
      kOp, device, reads.data(), reads.size(), writes, 2, false,
      [p](const TaskContext& ctx) {
        for (const Kernel& kernel : kKernels)
          if (!kernel.refusal(p)) return kernel.forward(p, ctx);
      },
      [p](cuda::Stream& stream) { cuda::neighborhood(p, stream); });
  return {out, lse};
}

void check_saved(const char* op, const char* what, const Tensor& t, const Dims& shape, DType dtype) {
  check(t.storage && t.shape == shape && t.dtype == dtype, "ERR_SHAPE", op, ": ", what, " has shape ", text_of(t.shape), " of ",
        name_of(t.dtype), ", expected ", text_of(shape), " of ", name_of(dtype));
}

std::vector<Tensor> backward(std::vector<Tensor> operands, const std::vector<int64_t>& axes, double scale, std::vector<Tensor> saved) {
  constexpr const char* op = "neighborhoodAttentionBackward";
  check(saved.size() == 4, "ERR_ARGUMENT", op, ": got ", saved.size(), " saved tensors, expected out, lse and their gradients");
  bind_neighborhood(op, operands, axes, scale);
  const Device device = device_of(op, operands);
  common_device(op, {&operands[kNaQuery], &saved[0], &saved[1], &saved[2], &saved[3]});
  if (!device.is_cpu() && operands[kNaExtraKey].storage)  // their gradients take tokens as one axis
    for (Tensor* t : {&operands[kNaQuery], &saved[0], &saved[2]})
      if (t->storage) *t = contiguous(*t);
  NeighborhoodParams p = bind_neighborhood(op, operands, axes, scale);
  const Tensor &out = saved[0], &lse = saved[1], &dout = saved[2], &dlse = saved[3];
  Dims rows = neighborhood_rows(operands[kNaQuery]), shape = rows;
  shape.push(p.dim_v);
  check_saved(op, "out", out, shape, p.dtype);
  check_saved(op, "dout", dout, shape, p.dtype);
  check_saved(op, "lse", lse, rows, DType::F32);
  check(lse.contiguous() && (!dlse.storage || dlse.contiguous()), "ERR_ARGUMENT", op, ": lse and its gradient must be contiguous");
  p.out = neighborhood_tensor(out), p.lse = lse.data<float>();
  NeighborhoodGrads g{};
  g.dout = neighborhood_tensor(dout);
  if (dlse.storage) {
    check_saved(op, "dlse", dlse, rows, DType::F32);
    g.dlse = dlse.data<float>();
  }
  if (!device.is_cpu()) check_cuda(op, device, cuda::neighborhood_backward_refusal(p, g));
  std::vector<Tensor> results(kNaOperands);
  NeighborhoodTensor* const targets[] = {&g.dq, &g.dk, &g.dv, &g.dextra_k, &g.dextra_v};
  for (int i = 0; i < kNaOperands; i++) {
    if (!operands[i].storage) continue;
    results[i] = Tensor::empty(operands[i].shape, operands[i].dtype, device);
    if (i < kNaBias) *targets[i] = neighborhood_tensor(results[i]);
    else g.drpb = results[i].data<float>();
  }
  std::vector<Storage*> reads = storages_of(operands), writes = storages_of(results);
  for (Storage* s : storages_of(saved)) reads.push_back(s);
  launch_spans(
      op, device, reads.data(), reads.size(), writes.data(), writes.size(), false,
      [p, g](const TaskContext& ctx) {
        if (p.batch == 0) return;
        for (const Kernel& kernel : kKernels)
          if (!kernel.refusal(p)) return kernel.backward(p, g, ctx);
      },
      [p, g](cuda::Stream& stream) { cuda::neighborhood_backward(p, g, stream); });
  return results;
}

std::string explain(const std::vector<Tensor>& operands, const std::vector<int64_t>& axes, double scale) {
  const NeighborhoodParams p = bind_neighborhood(kOp, operands, axes, scale);
  auto quoted = [](const char* text) { return '"' + std::string(text) + '"'; };
  const Device device = device_of(kOp, operands);
  if (!device.is_cpu()) check_cuda(kOp, device, cuda::neighborhood_refusal(p));
  std::string refused, chosen = device.is_cpu() ? "" : "cuda.boxes";
  for (const Kernel& kernel : kKernels) {
    if (!chosen.empty()) break;
    const char* reason = kernel.refusal(p);
    if (!reason) chosen = kernel.name;
    else refused += std::string(refused.empty() ? "" : ",") + "{\"kernel\":" + quoted(kernel.name) + ",\"reason\":" + quoted(reason) + "}";
  }
  int64_t tile[kNeighborhoodAxes];
  if (device.is_cpu()) dispatch_isa([&](auto isa) { cpu::neighborhood_tile_shape<isa()>(p, tile); });
  else cuda::neighborhood_tile_shape(p, tile);
  std::string shape;
  for (int a = kNeighborhoodAxes - (operands[kNaQuery].rank() - 3); a < kNeighborhoodAxes; a++)
    shape += std::string(shape.empty() ? "" : ",") + std::to_string(tile[a]);
  return std::string("{\"kernel\":") + quoted(chosen.c_str()) + ",\"isa\":" + quoted(device.is_cpu() ? name_of(current_isa()) : "cuda") +
         ",\"refused\":[" + refused + "],\"tile\":[" + shape + "]}";
}

const RegisterOp<&forward> registration{"neighborhoodAttention"};
const RegisterOp<&backward> backward_registration{"neighborhoodAttentionBackward"};
const RegisterOp<&explain> explain_registration{"neighborhoodExplain"};

}  // namespace
}  // namespace fovea
