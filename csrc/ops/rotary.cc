// Rotary position embedding, and its table of cosines and sines.
#include "cpu/rotary.h"

#include <cmath>

#include "core/op.h"
#include "core/stream.h"
#include "cuda/rotary.h"
#include "ops/copy.h"
#include "ops/device.h"
#include "ops/dtypes.h"
#include "ops/index_error.h"

namespace fovea {
namespace {

constexpr const char* kName = "rotary";

// [cos, sin], each f32 [length, dims / 2]: the angle of position l and pair i is l base^(-2i / dims), in double precision.
std::vector<Tensor> rotary_table(int64_t length, int64_t dims, double base, int64_t device) {
  int64_t half = dims / 2;
  const Device place = Device::from_code(device);
  Tensor cos = Tensor::empty({length, half}, DType::F32, place), sin = Tensor::empty({length, half}, DType::F32, place);
  const RotaryTableParams p{cos.data<float>(), sin.data<float>(), length, half, dims, base};
  launch(
      "rotaryTable", place, {}, {cos.storage.get(), sin.storage.get()},
      [p](const TaskContext& ctx) {
        ctx.pool.run((p.length + 31) / 32, [&](int64_t tile, int) {
          for (int64_t i = 0; i < p.half; i++) {
            double rate = std::pow(p.base, -2.0 * static_cast<double>(i) / static_cast<double>(p.dims));
            for (int64_t l = tile * 32; l < p.length && l < tile * 32 + 32; l++) {
              p.cos[l * p.half + i] = static_cast<float>(std::cos(static_cast<double>(l) * rate));
              p.sin[l * p.half + i] = static_cast<float>(std::sin(static_cast<double>(l) * rate));
            }
          }
        });
      },
      [p](cuda::Stream& stream) { cuda::rotary_table(p, stream); });
  return {cos, sin};
}

// Where in the positions that of row `at` = b * length + l lies.
int64_t place_of(const cpu::RotaryParams& p, int64_t at) { return at / p.length * p.position_stride + at % p.length; }

[[noreturn]] void fail_position(const cpu::RotaryParams& p, int64_t at, int64_t position) {
  fail("ERR_INDEX", kName, ": position ", p.offset + position, " of row ", at % p.length, " in batch ", at / p.length,
       " is outside the tables of ", p.table_rows, " rows");
}

// x [..., L, D] of rank 2 to 4, or [B, L, H, D] with heads_last. positions null, [L] or [B, L].
Tensor rotary(const Tensor& input, const Tensor& cos_in, const Tensor& sin_in, const std::optional<Tensor>& positions_in, int64_t offset,
              bool interleaved, bool heads_last, bool inverse) {
  check_float(kName, input);
  int rank = input.rank();
  check(heads_last ? rank == 4 : rank >= 2 && rank <= 4, "ERR_SHAPE", kName, ": shape ", text_of(input.shape), "; expected ",
        heads_last ? "[B, L, H, D]" : "[L, D], [B, L, D] or [B, H, L, D]");
  check(cos_in.rank() == 2 && cos_in.shape == sin_in.shape && cos_in.dtype == DType::F32 && sin_in.dtype == DType::F32, "ERR_SHAPE", kName,
        ": cos ", text_of(cos_in.shape), " and sin ", text_of(sin_in.shape), "; expected f32 tables of one shape [positions, dims / 2]");
  const Tensor absent;
  const Device device = common_device(kName, {&input, &cos_in, &sin_in, positions_in ? &*positions_in : &absent});
  Tensor x = input.shape[rank - 1] <= 1 || input.strides[rank - 1] == 1 ? input : contiguous(input);
  Tensor cos = contiguous(cos_in), sin = contiguous(sin_in), out = Tensor::empty(x.shape, x.dtype, device);

  cpu::RotaryParams p{};
  int row = heads_last ? 1 : rank - 2, head = heads_last ? 2 : rank == 4 ? 1 : -1, batch = rank > 2 ? 0 : -1;
  auto extent = [&](int axis) { return axis < 0 ? 1 : x.shape[axis]; };
  auto stride = [&](const Tensor& t, int axis) { return axis < 0 ? 0 : t.strides[axis]; };
  p.batch = extent(batch);
  p.heads = extent(head);
  p.length = extent(row);
  p.width = x.shape[rank - 1];
  p.dims = cos.shape[1] * 2;
  check(p.dims <= p.width, "ERR_SHAPE", kName, ": tables turn ", p.dims, " dimensions, the rows of ", text_of(x.shape), " have ", p.width);
  p.dtype = x.dtype;
  p.x = x.data();
  p.out = out.data();
  p.x_batch = stride(x, batch);
  p.x_head = stride(x, head);
  p.x_row = stride(x, row);
  p.out_batch = stride(out, batch);
  p.out_head = stride(out, head);
  p.out_row = stride(out, row);
  p.cos = cos.data<float>();
  p.sin = sin.data<float>();
  p.table_rows = cos.shape[0];
  p.offset = offset;
  p.interleaved = interleaved;
  p.inverse = inverse;
  Tensor positions;
  if (positions_in) {
    check_index_dtype(kName, *positions_in);
    Dims one{p.length}, each{p.batch, p.length};
    check(positions_in->shape == one || positions_in->shape == each, "ERR_SHAPE", kName, ": positions have shape ",
          text_of(positions_in->shape), "; expected ", text_of(one), " or ", text_of(each));
    positions = contiguous(*positions_in);
    p.positions = indices_of(positions);
    p.position_stride = positions.rank() == 2 ? p.length : 0;
  }
  launch(
      kName, device, {x.storage.get(), cos.storage.get(), sin.storage.get(), (positions_in ? positions : x).storage.get()},
      {out.storage.get()},
      [p](const TaskContext& ctx) {
        const int64_t bad = dispatch_isa([&](auto isa) { return cpu::rotary<isa()>(p, ctx.pool); });
        if (bad >= 0) fail_position(p, bad, p.positions.data ? cpu::index_at(p.positions, place_of(p, bad)) : bad % p.length);
      },
      [p](cuda::Stream& stream) {
        cuda::IndexStatus status(stream);
        cuda::rotary(p, status.bad(), stream);
        const int64_t bad = status.position();
        if (bad >= 0) fail_position(p, bad, p.positions.data ? status.index_at(p.positions, place_of(p, bad)) : bad % p.length);
      });
  return out;
}

const RegisterOp<&rotary_table> table_registration{"rotaryTable"};
const RegisterOp<&rotary> registration{"rotary"};

}  // namespace
}  // namespace fovea
