// What models are made of, on a card against the CPU's kernels: indexing, rotary positions, losses, convolutions, optimizer steps.
//   model_parts [--scale=1]   multiplies the sizes
#include "cpu/cross_entropy.h"
#include "cpu/depthwise_conv.h"
#include "cpu/linear.h"
#include "cpu/optimizer.h"
#include "cpu/rotary.h"
#include "cpu/rows.h"
#include "cpu/scatter.h"
#include "cuda/cross_entropy.h"
#include "cuda/depthwise_conv.h"
#include "cuda/linear.h"
#include "cuda/optimizer.h"
#include "cuda/rotary.h"
#include "cuda/rows.h"
#include "cuda/scatter.h"
#include "on_cpu.h"

using namespace fovea;
using namespace fovea::gpu;

namespace {

int64_t scale = 1;

void check_indices(Comparison& on) {
  const int64_t outer = 3 * scale, size = 50, count = 70, inner = 9;
  const auto table = static_cast<size_t>(outer * size * inner), picked = static_cast<size_t>(outer * count * inner);
  for (DType dtype : {DType::U8, DType::F16, DType::F32, DType::F64}) {  // elements of 1, 2, 4 and 8 bytes
    const auto bytes = static_cast<int>(size_of(dtype));
    const auto ids_count = static_cast<size_t>(outer * count);
    Twin x = on.uniform(dtype, table, 0, 100), src = on.uniform(dtype, picked, 0, 100);
    Twin ids = on.integers(DType::I32, ids_count, 0, size - 1), out = on.blank(dtype, picked), scattered = on.filled(dtype, table, 1);
    const auto shape = [&](Side side) { return IndexedShape{outer, size, count, inner, 1, {ids.at(side), DType::I32}}; };
    on.check(
        "gather", {&out}, 0,
        [&](Side side) {
          return GatherParams{shape(side), x.at(side), out.at(side), bytes};
        },
        FOVEA_ON_CPU(gather), FOVEA_INDEXED(gather));
    on.check(
        "scatter", {&scattered}, 0,
        [&](Side side) {
          return ScatterParams{shape(side), src.at(side), scattered.at(side), bytes};
        },
        FOVEA_ON_CPU(scatter), FOVEA_INDEXED(scatter));
    for (int64_t width : {int64_t{9}, int64_t{16}}) {  // rows that may be moved in 16-byte pieces, and others
      Twin rows = on.blank(dtype, static_cast<size_t>(count * width)), from = on.uniform(dtype, static_cast<size_t>(size * width), 0, 100);
      on.check(
          "gather rows", {&rows}, 0,
          [&](Side side) {
            return GatherRowsParams{from.at(side), rows.at(side), 1, size, count, width * bytes, {ids.at(side), DType::I32}};
          },
          FOVEA_ON_CPU(gather_rows), FOVEA_INDEXED(gather_rows));
    }
  }
  for (DType index_dtype : {DType::I32, DType::I64}) {
    Twin src = on.uniform(DType::F32, picked, -1, 1), sums = on.filled(DType::F32, table, 0);
    Twin ids = on.integers(index_dtype, static_cast<size_t>(outer * count), 0, size - 1);
    Twin counts = on.filled(DType::F32, static_cast<size_t>(outer * size), 0);
    const auto shape = [&](Side side) { return IndexedShape{outer, size, count, inner, 1, {ids.at(side), index_dtype}}; };
    on.check(
        "scatter add", {&sums, &counts}, 2e-5,
        [&](Side side) {
          return ScatterAddParams{shape(side), src.at(side), DType::F32, sums.at<float>(side), counts.at<float>(side)};
        },
        FOVEA_ON_CPU(scatter_add), FOVEA_INDEXED(scatter_add));
    on.check(
        "means of scattered", {&sums, &counts}, 2e-5,
        [&](Side side) {
          return DivideCountsParams{outer * size, inner, 1, sums.at<float>(side), counts.at<float>(side)};
        },
        FOVEA_ON_CPU(divide_counts), cuda::divide_counts);
    Twin row_ids = on.integers(index_dtype, static_cast<size_t>(count), 0, size - 1);
    Twin added = on.blank(DType::F32, table), work = on.blank(DType::I64, static_cast<size_t>(size + 1 + count));
    on.check(
        "add rows", {&added}, 2e-5,
        [&](Side side) {
          return AddRowsParams{
              src.at(side), added.at(side), DType::F32, outer, size, count, inner, {row_ids.at(side), index_dtype}, work.at<int64_t>(side)};
        },
        FOVEA_ON_CPU(add_rows), FOVEA_INDEXED(add_rows));
  }
}

void check_model_parts(Comparison& on) {
  const int64_t batch = 2 * scale, heads = 3, length = 19, width = 32, dims = 24;
  const auto n = static_cast<size_t>(batch * heads * length * width), angles = static_cast<size_t>(64 * dims / 2);
  for (DType dtype : kFloats)
    for (bool interleaved : {false, true}) {
      Twin x = on.uniform(dtype, n, -1, 1), out = on.blank(dtype, n), cosines = on.uniform(DType::F32, angles, -1, 1);
      Twin sines = on.uniform(DType::F32, angles, -1, 1), positions = on.integers(DType::I32, static_cast<size_t>(length), 0, 40);
      const auto params = [&](Side side) {
        const int64_t row = width, head = length * width, whole = heads * head;
        return RotaryParams{batch,
                            heads,
                            length,
                            width,
                            dims,
                            dtype,
                            x.at(side),
                            out.at(side),
                            whole,
                            head,
                            row,
                            whole,
                            head,
                            row,
                            cosines.at<float>(side),
                            sines.at<float>(side),
                            64,
                            {positions.at(side), DType::I32},
                            0,
                            5,
                            interleaved,
                            false};
      };
      on.check(named("rotary", dtype), {&out}, tolerance_of(dtype), params, FOVEA_ON_CPU(rotary), FOVEA_INDEXED(rotary));
    }
  for (DType dtype : kAllFloats)
    for (Activation kind : {Activation::Relu, Activation::Gelu, Activation::GeluTanh, Activation::Silu}) {
      Twin x = on.uniform(dtype, n, -1, 1), grad = on.uniform(dtype, n, -1, 1), back = on.blank(dtype, n);
      const auto params = [&](Side side) {
        return ActivationGradParams{dtype, kind, static_cast<int64_t>(n), grad.at(side), x.at(side), back.at(side)};
      };
      on.check(named("activation gradient", dtype), {&back}, tolerance_of(dtype), params, FOVEA_ON_CPU(activation_grad),
               cuda::activation_grad);
    }
  Twin table_cos = on.blank(DType::F32, angles), table_sin = on.blank(DType::F32, angles);
  on.check(
      "rotary table", {&table_cos, &table_sin}, 2e-5,
      [&](Side side) { return RotaryTableParams{table_cos.at<float>(side), table_sin.at<float>(side), 64, dims / 2, dims, 1e4}; },
      [](const RotaryTableParams& p) {
        for (int64_t i = 0; i < p.length * p.half; i++) {
          const double angle =
              static_cast<double>(i / p.half) * std::pow(p.base, -2.0 * static_cast<double>(i % p.half) / static_cast<double>(p.dims));
          p.cos[i] = static_cast<float>(std::cos(angle)), p.sin[i] = static_cast<float>(std::sin(angle));
        }
      },
      cuda::rotary_table);
  const int64_t rows = 23 * scale, classes = 301;
  const auto r = static_cast<size_t>(rows), logits_count = static_cast<size_t>(rows * classes);
  for (DType dtype : kFloats) {
    Twin logits = on.uniform(dtype, logits_count, -4, 4), targets = on.integers(DType::I64, r, -1, classes - 1);
    Twin lse = on.blank(DType::F32, r), losses = on.blank(DType::F32, r), grads = on.blank(dtype, logits_count),
         one = on.filled(DType::F32, 1, 1);
    const auto labelled = [&](Side side) {
      return CrossEntropyRows{rows, classes, dtype, logits.at(side), {targets.at(side), DType::I64}, -1, 0.1f};
    };
    on.check(
        named("cross entropy", dtype), {&lse, &losses}, 2e-5,
        [&](Side side) {
          return CrossEntropyParams{labelled(side), lse.at<float>(side), losses.at<float>(side)};
        },
        FOVEA_ON_CPU(cross_entropy), FOVEA_INDEXED(cross_entropy));
    Twin total = on.blank(DType::F32, 1), counted = on.blank(DType::F32, 1);
    on.check(
        "cross entropy total", {&total, &counted}, 2e-5,
        [&](Side side) {
          return cuda::CrossEntropyTotal{
              rows, -1, {targets.at(side), DType::I64}, losses.at<float>(side), total.at<float>(side), counted.at<float>(side), true};
        },
        [](const cuda::CrossEntropyTotal& p) {
          double sum = 0, count = 0;
          for (int64_t r = 0; r < p.rows; r++) sum += p.losses[r], count += static_cast<const int64_t*>(p.targets.data)[r] != p.ignore;
          *p.total = static_cast<float>(sum / count), *p.count = static_cast<float>(count);
        },
        cuda::cross_entropy_total);
    on.check(
        named("cross entropy backward", dtype), {&grads}, tolerance_of(dtype),
        [&](Side side) {
          return CrossEntropyBackwardParams{labelled(side), lse.at<float>(side), one.at<float>(side), 0, nullptr, grads.at(side)};
        },
        FOVEA_ON_CPU(cross_entropy_backward), cuda::cross_entropy_backward);
  }
}

void check_convolutions(Comparison& on) {
  const int64_t batch = 2 * scale, height = 9, width = 37, channels = 70, rows = 5, columns = 7;
  const auto n = static_cast<size_t>(batch * height * width * channels), taps = static_cast<size_t>(channels * rows * columns);
  for (DType dtype : kFloats) {
    Twin x = on.uniform(dtype, n, -1, 1), weight = on.uniform(dtype, taps, -1, 1), y = on.blank(dtype, n),
         grad = on.blank(DType::F32, taps);
    Twin bias = on.uniform(dtype, static_cast<size_t>(channels), -1, 1), grad_y = on.uniform(dtype, n, -1, 1);
    const auto shape = [&](Side side) {
      return DepthwiseConvShape{
          dtype, batch, height, width, channels, rows, columns, x.at(side), height * width * channels, width * channels, channels};
    };
    for (bool flipped : {false, true})
      on.check(
          named("depthwise convolution", dtype), {&y}, tolerance_of(dtype),
          [&](Side side) {
            return DepthwiseConvParams{shape(side), weight.at(side), flipped ? nullptr : bias.at(side), flipped, y.at(side)};
          },
          FOVEA_ON_CPU(depthwise_conv), cuda::depthwise_conv);
    on.check(
        named("depthwise convolution, weights", dtype), {&grad}, tolerance_of(dtype),
        [&](Side side) {
          return DepthwiseConvWeightParams{shape(side), grad_y.at(side), grad.at<float>(side)};
        },
        FOVEA_ON_CPU(depthwise_conv_weight), cuda::depthwise_conv_weight);
  }
}

void check_optimizers(Comparison& on) {
  constexpr double kMostLength = 0.5;
  const auto n = static_cast<size_t>(kOptimizerTile * scale + 77);
  for (DType dtype : kFloats) {
    Twin param = on.uniform(dtype, n, -1, 1), grad = on.uniform(dtype, n, -1, 1), first = on.uniform(DType::F32, n, -1, 1);
    Twin second = on.uniform(DType::F32, n, 0, 1), master = on.uniform(DType::F32, n, -1, 1);
    OptimizerItem item;
    const auto at = [&](Side side) {
      item = {param.at(side),
              grad.at(side),
              first.at<float>(side),
              second.at<float>(side),
              dtype == DType::F32 ? nullptr : master.at<float>(side),
              static_cast<int64_t>(n),
              dtype,
              dtype};
      return &item;
    };
    on.check(
        named("adamw", dtype), {&param, &first, &second, &master}, tolerance_of(dtype),
        [&](Side side) { return AdamWParams{at(side), 1, 0.999f, 0.9f, 0.1f, 0.999f, 0.001f, 0.01f, 3, 1e-8f}; }, FOVEA_ON_CPU(adamw),
        cuda::adamw);
    on.check(
        named("sgd", dtype), {&param, &first, &master}, tolerance_of(dtype),
        [&](Side side) { return SgdParams{at(side), 1, 0.1f, 0.9f, 0.01f, true}; }, FOVEA_ON_CPU(sgd), cuda::sgd);
    Twin norm = on.blank(DType::F32, 1);
    void* data;
    const auto count = static_cast<int64_t>(n);
    on.check(
        named("clip norm", dtype), {&grad, &norm}, tolerance_of(dtype),
        [&](Side side) {
          data = grad.at(side);
          return std::pair(GradList{&data, &count, &dtype, 1}, norm.at<float>(side));
        },
        [](const auto& p) {
          std::vector<double> partial(static_cast<size_t>(optimizer_tiles(p.first.counts[0])));
          const double length = std::sqrt(cpu::sum_squares<Isa::Baseline>(p.first, partial.data(), pool()));
          *p.second = static_cast<float>(length);
          cpu::scale_all<Isa::Baseline>(p.first, static_cast<float>(kMostLength / length), pool());
        },
        [](const auto& p, cuda::Stream& stream) { cuda::clip_norm(p.first, kMostLength, p.second, stream); });
  }
}

}  // namespace

int main(int argc, char** argv) {
  return run_program([&] {
    Gpu gpu;
    Report report("model_parts");
    Comparison on(gpu, report);
    scale = static_cast<int64_t>(argument(argc, argv, "scale", 1));
    check_indices(on);
    check_model_parts(on);
    check_convolutions(on);
    check_optimizers(on);
    return report.finish();
  });
}
