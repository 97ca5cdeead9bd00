// Optimizer steps and gradient clipping, in place, one task for all parameters of a group.
#include "cpu/optimizer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/op.h"
#include "core/stream.h"
#include "cuda/optimizer.h"
#include "ops/copy.h"
#include "ops/device.h"
#include "ops/dtypes.h"

namespace fovea {
namespace {

// The tensors that one task updates in place.
class Updates {
 public:
  explicit Updates(const char* op) : op_(op) {}

  void* add(const Tensor& t) {
    check(t.contiguous(), "ERR_SHAPE", op_, ": a tensor to be updated in place has gaps between its elements; make it with contiguous()");
    check(!t.storage->read_only(), "ERR_ARGUMENT", op_,
          ": a tensor to be updated in place is read-only memory (a mapped file); copy it first");
    const char* data = t.data<const char>();
    storages_.push_back(t.storage.get());
    if (t.count() > 0) ranges_.emplace_back(data, data + bytes_of(t.shape, t.dtype));
    return t.data();
  }

  // Once all are added: their storages, with new versions. Throws ERR_ARGUMENT where two share elements, which would be updated twice.
  const std::vector<Storage*>& begin() {
    std::sort(ranges_.begin(), ranges_.end());
    for (size_t i = 1; i < ranges_.size(); i++)
      check(ranges_[i - 1].second <= ranges_[i].first, "ERR_ARGUMENT", op_,
            ": two tensors to be updated share memory; give each parameter once, and no views of it");
    for (Storage* storage : storages_) storage->bump_version();
    return storages_;
  }

 private:
  const char* op_;
  std::vector<Storage*> storages_;
  std::vector<std::pair<const char*, const char*>> ranges_;
};

// The tensors of one step, and what the kernel needs of them.
struct Group {
  const char* op;
  Device device;
  std::vector<Tensor> grads;
  std::vector<cpu::OptimizerItem> items;
  std::vector<Storage*> reads;
  Updates updates;

  // Lists are parallel to params; entries of first, second and master may be null.
  Group(const char* name, const std::vector<Tensor>& params, const std::vector<Tensor>& gradients, const std::vector<Tensor>& first,
        const std::vector<Tensor>& second, const std::vector<Tensor>& master)
      : op(name), updates(name) {
    check(params.size() == gradients.size(), "ERR_INTERNAL", op, ": ", params.size(), " parameters and ", gradients.size(), " gradients");
    for (size_t i = 0; i < params.size(); i++) {
      const Tensor& param = params[i];
      check_float(op, param);
      check_float(op, gradients[i]);
      if (i == 0) device = param.device();
      common_device(op, {&params[0], &param, &gradients[i]});
      check(param.shape == gradients[i].shape, "ERR_SHAPE", op, ": parameter ", i, " has shape ", text_of(param.shape), ", its gradient ",
            text_of(gradients[i].shape));
      grads.push_back(contiguous(gradients[i]));
      cpu::OptimizerItem item{};
      item.param = updates.add(param);
      item.grad = grads[i].data();
      item.first = state(first, i, param);
      item.second = state(second, i, param);
      item.master = state(master, i, param);
      item.count = param.count();
      item.dtype = param.dtype;
      item.grad_dtype = grads[i].dtype;
      items.push_back(item);
      reads.push_back(grads[i].storage.get());
    }
  }

  template <class Cpu, class Cuda>
  void launch(Cpu&& cpu, Cuda&& cuda) {
    const std::vector<Storage*>& writes = updates.begin();
    launch_spans(op, device, reads.data(), reads.size(), writes.data(), writes.size(), true, std::forward<Cpu>(cpu),
                 std::forward<Cuda>(cuda));
  }

 private:
  float* state(const std::vector<Tensor>& list, size_t i, const Tensor& param) {
    if (i >= list.size() || !list[i].storage) return nullptr;
    check(list[i].dtype == DType::F32 && list[i].shape == param.shape, "ERR_SHAPE", op, ": state of parameter ", i, " is ",
          name_of(list[i].dtype), " ", text_of(list[i].shape), "; expected f32 ", text_of(param.shape));
    return static_cast<float*>(updates.add(list[i]));
  }
};

void adamw_step(const std::vector<Tensor>& params, const std::vector<Tensor>& grads, const std::vector<Tensor>& first,
                const std::vector<Tensor>& second, const std::vector<Tensor>& master, double lr, double beta1, double beta2, double eps,
                double decay, double step) {
  Group group("AdamW", params, grads, first, second, master);
  cpu::AdamWParams p{};
  p.kept = static_cast<float>(1 - lr * decay);
  p.beta1 = static_cast<float>(beta1);
  p.rest1 = static_cast<float>(1 - beta1);
  p.beta2 = static_cast<float>(beta2);
  p.rest2 = static_cast<float>(1 - beta2);
  p.step = static_cast<float>(lr / (1 - std::pow(beta1, step)));
  p.inverse_root = static_cast<float>(1 / std::sqrt(1 - std::pow(beta2, step)));
  p.eps = static_cast<float>(eps);
  group.launch(
      [p, items = group.items](const TaskContext& ctx) mutable {
        p.items = items.data();
        p.count = static_cast<int64_t>(items.size());
        dispatch_isa([&](auto isa) { cpu::adamw<isa()>(p, ctx.pool); });
      },
      [p, items = group.items](cuda::Stream& stream) mutable {
        p.items = items.data();
        p.count = static_cast<int64_t>(items.size());
        cuda::adamw(p, stream);
      });
}

void sgd_step(const std::vector<Tensor>& params, const std::vector<Tensor>& grads, const std::vector<Tensor>& momenta,
              const std::vector<Tensor>& master, double lr, double momentum, double decay, bool nesterov) {
  Group group("SGD", params, grads, momenta, {}, master);
  cpu::SgdParams p{};
  p.lr = static_cast<float>(lr);
  p.momentum = static_cast<float>(momentum);
  p.decay = static_cast<float>(decay);
  p.nesterov = nesterov;
  group.launch(
      [p, items = group.items](const TaskContext& ctx) mutable {
        p.items = items.data();
        p.count = static_cast<int64_t>(items.size());
        dispatch_isa([&](auto isa) { cpu::sgd<isa()>(p, ctx.pool); });
      },
      [p, items = group.items](cuda::Stream& stream) mutable {
        p.items = items.data();
        p.count = static_cast<int64_t>(items.size());
        cuda::sgd(p, stream);
      });
}

// The norm of all gradients as one vector, f32 []; gradients are scaled in place to at most max_norm (PyTorch's clip_grad_norm_).
Tensor clip_grad_norm(const std::vector<Tensor>& grads, double max_norm) {
  constexpr const char* op = "clipGradNorm";
  const Device device = grads.empty() ? Device::cpu() : grads[0].device();
  Tensor norm = Tensor::empty({}, DType::F32, device);
  std::vector<void*> data;
  std::vector<int64_t> counts;
  std::vector<DType> dtypes;
  Updates updates(op);
  int64_t tiles = 0;
  for (const Tensor& t : grads) {
    check_float(op, t);
    common_device(op, {&grads[0], &t});
    data.push_back(updates.add(t));
    counts.push_back(t.count());
    dtypes.push_back(t.dtype);
    tiles += cpu::optimizer_tiles(t.count());
  }
  Tensor partial = Tensor::empty({device.is_cpu() ? tiles : 0}, DType::F64, device);
  const std::vector<Storage*>& storages = updates.begin();
  std::vector<Storage*> writes = storages;
  writes.push_back(norm.storage.get());
  writes.push_back(partial.storage.get());
  launch_spans(
      op, device, storages.data(), storages.size(), writes.data(), writes.size(), false,
      [=, out = norm.data<float>(), sums = partial.data<double>()](const TaskContext& ctx) {
        cpu::GradList list{data.data(), counts.data(), dtypes.data(), static_cast<int64_t>(data.size())};
        dispatch_isa([&](auto isa) {
          double length = std::sqrt(cpu::sum_squares<isa()>(list, sums, ctx.pool));
          *out = static_cast<float>(length);
          double factor = max_norm / (length + 1e-6);
          if (!(factor >= 1)) cpu::scale_all<isa()>(list, static_cast<float>(factor), ctx.pool);
        });
      },
      [=, out = norm.data<float>()](cuda::Stream& stream) {
        cuda::clip_norm({data.data(), counts.data(), dtypes.data(), static_cast<int64_t>(data.size())}, max_norm, out, stream);
      });
  return norm;
}

const RegisterOp<&adamw_step> adamw_registration{"adamwStep"};
const RegisterOp<&sgd_step> sgd_registration{"sgdStep"};
const RegisterOp<&clip_grad_norm> clip_registration{"clipGradNorm"};

}  // namespace
}  // namespace fovea
