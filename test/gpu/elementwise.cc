// Functions of elements, conversions, fills and random streams on a card against the CPU's kernels.
//   elementwise [--scale=1]   multiplies the sizes
#include "cpu/elementwise.h"
#include "cpu/convert.h"
#include "cpu/fill.h"
#include "cpu/random.h"
#include "cpu/triangle.h"
#include "cuda/convert.h"
#include "cuda/elementwise.h"
#include "cuda/fill.h"
#include "cuda/random.h"
#include "cuda/triangle.h"
#include "on_cpu.h"

using namespace fovea;
using namespace fovea::gpu;

namespace {

int64_t scale = 1;

// rows x columns, the second operand one row broadcast, the first with its axes swapped in memory.
ElementwiseParams elementwise(int op, DType compute, DType out, int inputs, int64_t rows, int64_t columns) {
  ElementwiseParams p{};
  p.op = op, p.compute = compute, p.out_dtype = out, p.inputs = static_cast<int8_t>(inputs), p.rank = 2;
  p.shape[0] = rows, p.shape[1] = columns;
  return p;
}

ElementwiseInput swapped(Twin& t, Side side, int64_t rows) { return {t.at(side), t.dtype(), {1, rows}}; }
ElementwiseInput dense(Twin& t, Side side, int64_t columns) { return {t.at(side), t.dtype(), {columns, 1}}; }
ElementwiseInput broadcast(Twin& t, Side side) { return {t.at(side), t.dtype(), {0, 1}}; }

void check_elementwise(Comparison& on) {
  const int64_t rows = 37 * scale, columns = 131;
  const auto n = static_cast<size_t>(rows * columns);
  for (DType dtype : kAllFloats) {
    const DType compute = arithmetic(dtype);
    Twin x = on.uniform(dtype, n, 0.05, 2), y = on.uniform(dtype, static_cast<size_t>(columns), 0.05, 2),
         grad = on.uniform(dtype, n, -1, 1);
    for (int op = 0; op < static_cast<int>(UnaryOp::Not); op++) {
      Twin out = on.blank(dtype, n);
      const auto params = [&](Side side) {
        ElementwiseParams p = elementwise(op, compute, dtype, 1, rows, columns);
        p.in[0] = swapped(x, side, rows), p.out = out.at(side);
        p.scalars[0] = 0.5, p.scalars[1] = 1.5;
        return p;
      };
      on.check(named("unary", dtype), {&out}, tolerance_of(dtype), params, FOVEA_ON_CPU(unary), cuda::unary);
    }
    // The second input is the argument of some and the result of others: in (0, 2) it will do as either.
    for (UnaryOp op : {UnaryOp::Square, UnaryOp::Exp, UnaryOp::Log, UnaryOp::Sqrt, UnaryOp::Tanh, UnaryOp::Gelu, UnaryOp::Silu}) {
      Twin out = on.blank(dtype, n);
      const auto params = [&](Side side) {
        ElementwiseParams p = elementwise(static_cast<int>(op), compute, dtype, 2, rows, columns);
        p.in[0] = dense(grad, side, columns), p.in[1] = dense(x, side, columns), p.out = out.at(side);
        return p;
      };
      on.check(named("unary backward", dtype), {&out}, tolerance_of(dtype), params, FOVEA_ON_CPU(unary_backward), cuda::unary_backward);
    }
    for (int op = 0; op < static_cast<int>(BinaryOp::And); op++) {
      const bool compares = op >= static_cast<int>(BinaryOp::Eq);
      const DType out_dtype = compares ? DType::Bool : dtype;
      Twin out = on.blank(out_dtype, n);
      const auto params = [&](Side side) {
        ElementwiseParams p = elementwise(op, compute, out_dtype, 2, rows, columns);
        p.in[0] = swapped(x, side, rows), p.in[1] = broadcast(y, side), p.out = out.at(side);
        return p;
      };
      on.check(named("binary", dtype), {&out}, tolerance_of(dtype), params, FOVEA_ON_CPU(binary), cuda::binary);
    }
    Twin condition = on.integers(DType::Bool, n, 0, 1), out = on.blank(dtype, n);
    const auto params = [&](Side side) {
      ElementwiseParams p = elementwise(0, compute, dtype, 3, rows, columns);
      p.in[0] = dense(condition, side, columns), p.in[1] = swapped(x, side, rows), p.in[2] = broadcast(y, side), p.out = out.at(side);
      return p;
    };
    on.check(named("where", dtype), {&out}, 0, params, FOVEA_ON_CPU(where), cuda::where);
  }
}

void check_integers(Comparison& on) {
  const int64_t rows = 37 * scale, columns = 131;
  const auto n = static_cast<size_t>(rows * columns);
  for (DType dtype : {DType::I32, DType::I64}) {
    Twin x = on.integers(dtype, n, -300, 300), y = on.integers(dtype, static_cast<size_t>(columns), 1, 90);
    for (UnaryOp op : {UnaryOp::Neg, UnaryOp::Abs, UnaryOp::Sign, UnaryOp::Square, UnaryOp::Relu, UnaryOp::Clamp}) {
      Twin out = on.blank(dtype, n);
      const auto params = [&](Side side) {
        ElementwiseParams p = elementwise(static_cast<int>(op), dtype, dtype, 1, rows, columns);
        p.in[0] = swapped(x, side, rows), p.out = out.at(side);
        p.scalars[0] = -20, p.scalars[1] = 150;
        return p;
      };
      on.check(named("unary", dtype), {&out}, 0, params, FOVEA_ON_CPU(unary), cuda::unary);
    }
    for (BinaryOp op :
         {BinaryOp::Add, BinaryOp::Sub, BinaryOp::Mul, BinaryOp::Maximum, BinaryOp::Minimum, BinaryOp::Remainder, BinaryOp::Lt}) {
      const DType out_dtype = op == BinaryOp::Lt ? DType::Bool : dtype;
      Twin out = on.blank(out_dtype, n);
      const auto params = [&](Side side) {
        ElementwiseParams p = elementwise(static_cast<int>(op), dtype, out_dtype, 2, rows, columns);
        p.in[0] = swapped(x, side, rows), p.in[1] = broadcast(y, side), p.out = out.at(side);
        return p;
      };
      on.check(named("binary", dtype), {&out}, 0, params, FOVEA_ON_CPU(binary), cuda::binary);
    }
    Twin condition = on.integers(DType::Bool, n, 0, 1), out = on.blank(dtype, n);
    const auto params = [&](Side side) {
      ElementwiseParams p = elementwise(0, dtype, dtype, 3, rows, columns);
      p.in[0] = dense(condition, side, columns), p.in[1] = swapped(x, side, rows), p.in[2] = broadcast(y, side), p.out = out.at(side);
      return p;
    };
    on.check(named("where", dtype), {&out}, 0, params, FOVEA_ON_CPU(where), cuda::where);
  }
  Twin x = on.integers(DType::Bool, n, 0, 1), y = on.integers(DType::Bool, static_cast<size_t>(columns), 0, 1);
  for (BinaryOp op : {BinaryOp::And, BinaryOp::Or, BinaryOp::Xor}) {
    Twin out = on.blank(DType::Bool, n);
    const auto params = [&](Side side) {
      ElementwiseParams p = elementwise(static_cast<int>(op), DType::I32, DType::Bool, 2, rows, columns);
      p.in[0] = swapped(x, side, rows), p.in[1] = broadcast(y, side), p.out = out.at(side);
      return p;
    };
    on.check("binary bool", {&out}, 0, params, FOVEA_ON_CPU(binary), cuda::binary);
  }
}

void check_copies(Comparison& on) {
  constexpr uint64_t kPattern = 0x0123456789abcdef;
  const int64_t rows = 33 * scale, columns = 70;
  const auto n = static_cast<size_t>(rows * columns);
  for (int from = 0; from < kDTypeCount; from++)
    for (int to = 0; to < kDTypeCount; to++) {
      const auto source = static_cast<DType>(from), target = static_cast<DType>(to);
      const bool small = source == DType::Bool || source == DType::U8;
      Twin x = is_floating(source) ? on.uniform(source, n, -300, 300)
                                   : on.integers(source, n, small ? 0 : -300, source == DType::Bool ? 1 : 200);
      Twin out = on.blank(target, n);
      on.check(
          "convert", {&out}, 0,
          [&](Side side) {
            return CopyParams{x.at(side), source, out.at(side), target, 2, {rows, columns}, {1, rows}, {columns, 1}};
          },
          FOVEA_ON_CPU(copy), cuda::convert);
    }
  for (int bytes : {1, 2, 4, 8}) {
    Twin out = on.blank(DType::U8, n * static_cast<size_t>(bytes));
    on.check(
        "fill", {&out}, 0, [&](Side side) { return out.at<uint8_t>(side); },
        [&](uint8_t* to) {
          for (size_t i = 0; i < n; i++) std::memcpy(to + i * static_cast<size_t>(bytes), &kPattern, static_cast<size_t>(bytes));
        },
        [&](uint8_t* to, cuda::Stream& stream) { stream.fill(to, kPattern, bytes, n); });
  }
  for (DType dtype : {DType::F32, DType::F64, DType::I32, DType::I64}) {
    Twin out = on.blank(dtype, n);
    const auto count = static_cast<int64_t>(n);
    on.check(
        "sequence", {&out}, 0,
        [&](Side side) {
          return cpu::SequenceParams{out.at(side), count, dtype, -3, 0.75};
        },
        FOVEA_ON_CPU(sequence),
        [](const cpu::SequenceParams& p, cuda::Stream& stream) {
          cuda::sequence({p.out, p.count, p.start, p.step}, p.dtype, stream);
        });
  }
  for (DType dtype : {DType::U8, DType::F16, DType::F32, DType::F64})
    for (bool upper : {false, true}) {
      Twin x = on.uniform(dtype, n, 0, 100), out = on.blank(dtype, n);
      const auto bytes = static_cast<int>(size_of(dtype));
      on.check(
          "triangle", {&out}, 0, [&](Side side) { return TriangleParams{x.at(side), out.at(side), bytes, 3, rows / 3, columns, 5, upper}; },
          FOVEA_ON_CPU(triangle), cuda::triangle);
    }
}

void check_random(Comparison& on) {
  const auto n = static_cast<size_t>(5001 * scale);
  for (DType dtype : kFloats)
    for (Distribution distribution : {Distribution::Uniform, Distribution::Normal}) {
      Twin out = on.blank(dtype, n);
      const auto params = [&](Side side) {
        RandomParams p{};
        p.distribution = distribution, p.out = out.at(side), p.dtype = dtype, p.count = static_cast<int64_t>(n);
        p.seed = 7, p.offset = 1234567, p.scale = 2, p.shift = -1;
        return p;
      };
      on.check(named("random", dtype), {&out}, tolerance_of(dtype), params, FOVEA_ON_CPU(random), cuda::random);
    }
  for (Distribution distribution : {Distribution::Integer, Distribution::Bernoulli}) {
    Twin out = on.blank(DType::I32, n);
    const auto params = [&](Side side) {
      RandomParams p{};
      p.distribution = distribution, p.out = out.at(side), p.dtype = DType::I32, p.count = static_cast<int64_t>(n);
      p.seed = 7, p.offset = 99, p.low = -5, p.range = 1000, p.threshold = uint64_t{1} << 30;
      return p;
    };
    on.check("random i32", {&out}, 0, params, FOVEA_ON_CPU(random), cuda::random);
  }
  Twin x = on.uniform(DType::BF16, n, -1, 1), out = on.blank(DType::BF16, n);
  const auto params = [&](Side side) {
    return DropoutParams{x.at(side), out.at(side), DType::BF16, static_cast<int64_t>(n), 3, 17, uint64_t{3} << 30, 4 / 3.f};
  };
  on.check("dropout bf16", {&out}, 0, params, FOVEA_ON_CPU(dropout), cuda::dropout);
}

}  // namespace

int main(int argc, char** argv) {
  return run_program([&] {
    Gpu gpu;
    Report report("elementwise");
    Comparison on(gpu, report);
    scale = static_cast<int64_t>(argument(argc, argv, "scale", 1));
    check_elementwise(on);
    check_integers(on);
    check_copies(on);
    check_random(on);
    return report.finish();
  });
}
