// meanRows(src [groups, n, width], ids i32 [groups, n], size, epsilon) -> [out [groups, size, width], inverse f32 [groups, size]]: sums of
// the rows of each id over their number plus epsilon.
#include "cpu/mean_rows.h"

#include "core/error.h"
#include "core/op.h"
#include "core/stream.h"
#include "cuda/mean_rows.h"
#include "ops/copy.h"
#include "ops/device.h"
#include "ops/dtypes.h"
#include "ops/index_error.h"

namespace fovea {
namespace {

constexpr const char* kOp = "meanRows";

std::vector<Tensor> mean_rows(const Tensor& src_in, const Tensor& ids_in, int64_t size, double epsilon) {
  const Dims &s = src_in.shape, &n = ids_in.shape;
  check_float(kOp, src_in);
  check(ids_in.dtype == DType::I32, "ERR_DTYPE", kOp, ": ids are ", name_of(ids_in.dtype), ", expected i32");
  check(src_in.rank() == 3 && ids_in.rank() == 2 && s[0] == n[0] && s[1] == n[1] && s[1] <= INT32_MAX, "ERR_SHAPE", kOp, ": rows ",
        text_of(s), " and ids ", text_of(n), " do not fit: [groups, n, width] and [groups, n]");
  check(epsilon > 0, "ERR_ARGUMENT", kOp, ": epsilon is ", epsilon, ", expected a positive number");
  check(size >= 0 && size <= INT32_MAX, "ERR_ARGUMENT", kOp, ": size is ", size, ", expected 0 to 2^31 - 1");
  Tensor src = contiguous(src_in), ids = contiguous(ids_in);
  const Device device = common_device(kOp, {&src, &ids});
  Tensor out = Tensor::empty({s[0], size, s[2]}, src.dtype, device), inverse = Tensor::empty({s[0], size}, DType::F32, device);
  Tensor workspace = Tensor::empty({device.is_cpu() ? s[0] * (size + 1 + s[1]) : 0}, DType::I32, device);
  MeanRowsParams p{};
  p.src = src.data();
  p.out = out.data();
  p.dtype = src.dtype;
  p.groups = s[0], p.count = s[1], p.size = size, p.width = s[2];
  p.ids = ids.data<int32_t>();
  p.epsilon = static_cast<float>(epsilon);
  p.inverse = inverse.data<float>();
  p.workspace = workspace.data<int32_t>();
  const Indices listed = indices_of(ids);
  launch(
      kOp, device, {src.storage.get(), ids.storage.get()}, {out.storage.get(), inverse.storage.get(), workspace.storage.get()},
      [p, listed, shape = ids.shape](const TaskContext& ctx) {
        const int64_t bad = dispatch_isa([&](auto isa) { return cpu::mean_rows<isa()>(p, ctx.pool); });
        check_indices(kOp, bad, listed, shape, p.size);
      },
      [p, listed, shape = ids.shape](cuda::Stream& stream) {
        cuda::IndexStatus status(stream);
        cuda::mean_rows(p, status.bad(), stream);
        check_indices(kOp, status, listed, shape, p.size);
      });
  return {out, inverse};
}

const RegisterOp<&mean_rows> registration{"meanRows"};

}  // namespace
}  // namespace fovea
