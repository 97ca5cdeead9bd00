// Matrix products on a card against plain double-precision loops: each dtype with each operand as it is and transposed, in sizes that fill
// the card with tiles of several sizes and with an inner axis long enough to be cut; then random sizes, layouts, batches, biases and
// activations.
//   matmul [--cases=60] [--seed=1]
#include "cuda/matmul.h"

#include "../native/random.h"
#include "twin.h"

using namespace fovea;
using namespace fovea::gpu;

namespace {

struct Layout {
  bool transposed = false, shared = false;  // shared: one for all batches
  int64_t pad = 0;                          // elements behind each row
};

Layout random_layout() {
  const int64_t pad = chance(0.3) ? uniform(1, 9) : 0;
  const bool transposed = chance(0.4), shared = chance(0.3);
  return {transposed, shared, pad};
}

// An operand [batch, rows, columns]; filled unless it is to be written.
struct Matrix {
  DType dtype;
  std::vector<uint8_t> bytes;
  MatmulOperand view;

  Matrix(DType type, int64_t batch, int64_t rows, int64_t columns, Layout layout, bool filled = true) : dtype(type) {
    if (layout.transposed) view.row = 1, view.column = rows + layout.pad;
    else view.row = columns + layout.pad, view.column = 1;
    const int64_t one = std::max(rows * view.row, columns * view.column), matrices = layout.shared ? 1 : batch;
    view.batch[0] = layout.shared ? 0 : one;
    bytes.assign(static_cast<size_t>(one * matrices) * size_of(type), 0xff);
    std::normal_distribution<double> normal;
    for (int64_t b = 0; filled && b < matrices; b++)
      for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++) set_element(dtype, bytes.data(), at(b, i, j), normal(engine));
  }
  size_t at(int64_t b, int64_t i, int64_t j) const { return static_cast<size_t>(b * view.batch[0] + i * view.row + j * view.column); }
  double get(int64_t b, int64_t i, int64_t j) const { return element(dtype, bytes.data(), at(b, i, j)); }
};

double activated(Activation activation, double x) {
  switch (activation) {
    case Activation::Relu: return x > 0 ? x : 0;
    case Activation::Gelu: return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case Activation::GeluTanh: return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case Activation::Silu: return x / (1 + std::exp(-x));
    default: return x;
  }
}

struct Call {
  DType dtype, out_dtype;
  MatmulPrecision precision;
  int64_t batch, m, n, k;
  Layout a, b, bias;
  bool biased;
  Activation activation;
};

// Of many batches the first and the last are looked at.
void check_call(Gpu& gpu, const Call& c, const std::string& what, Report& report) {
  MatmulParams p{};
  p.dtype = c.dtype, p.out_dtype = c.out_dtype, p.precision = c.precision, p.m = c.m, p.n = c.n, p.k = c.k, p.activation = c.activation;
  p.batch_rank = 1, p.batch_shape[0] = c.batch;
  const Matrix a(c.dtype, c.batch, c.m, c.k, c.a), b(c.dtype, c.batch, c.k, c.n, c.b), bias(c.dtype, 1, 1, c.n, c.bias);
  Matrix out(c.out_dtype, c.batch, c.m, c.n, {}, false);
  DeviceArrays arrays(gpu);
  p.a = a.view, p.b = b.view, p.out = out.view;
  p.a.data = arrays.copy(a.bytes), p.b.data = arrays.copy(b.bytes);
  if (c.biased) p.bias = bias.view, p.bias.row = 0, p.bias.batch[0] = 0, p.bias.data = arrays.copy(bias.bytes);
  const DeviceArray result(gpu, out.bytes.data(), out.bytes.size());
  p.out.data = result.data();
  gpu.run([&](cuda::Stream& stream) { cuda::matmul(p, stream); });
  result.download(out.bytes.data());

  double worst = 0, scale = 0;
  for (int64_t s = 0; s<c.batch; s += c.batch> 8 ? c.batch - 1 : 1)
    for (int64_t i = 0; i < c.m; i++)
      for (int64_t j = 0; j < c.n; j++) {
        double sum = c.biased ? bias.get(0, 0, j) : 0;
        for (int64_t l = 0; l < c.k; l++) sum += a.get(s, i, l) * b.get(s, l, j);
        const double want = activated(c.activation, sum), difference = std::fabs(out.get(s, i, j) - want);
        scale = std::max(scale, std::fabs(want));
        worst = std::max(worst, std::isfinite(difference) ? difference : INFINITY);
      }
  char text[160];
  std::snprintf(text, sizeof text, ": batch %ld, %ld x %ld x %ld, strides a %ld %ld, b %ld %ld%s", c.batch, c.m, c.n, c.k, p.a.row,
                p.a.column, p.b.row, p.b.column, c.biased ? ", bias" : "");
  const bool tf32 = c.dtype == DType::F32 && c.precision == MatmulPrecision::High;  // digits of f16
  report.add(std::string(tf32 ? "tf32" : name_of(c.dtype)) + " to " + name_of(c.out_dtype), worst == 0 ? 0 : worst / scale,
             tolerance_of(tf32 ? DType::F16 : c.dtype), what + text);
}

void check_random(Gpu& gpu, uint64_t seed, Report& report) {
  engine.seed(seed);
  constexpr DType dtypes[] = {DType::F32, DType::BF16, DType::F16};
  Call c{};
  c.dtype = dtypes[seed % 3], c.out_dtype = chance(0.3) ? DType::F32 : c.dtype;
  c.precision = chance(0.5) ? MatmulPrecision::High : MatmulPrecision::Highest, c.batch = uniform(1, 3);
  const bool aligned = chance(0.5);  // the shapes of the fast path
  c.m = aligned ? 64 * uniform(1, 4) : uniform(1, 200), c.n = aligned ? 64 * uniform(1, 4) : uniform(1, 200);
  c.k = aligned ? 32 * uniform(1, 8) : uniform(1, 300);
  c.a = random_layout(), c.b = random_layout(), c.bias = random_layout();
  c.biased = chance(0.5), c.activation = static_cast<Activation>(uniform(0, 4));
  check_call(gpu, c, "seed " + std::to_string(seed), report);
}

}  // namespace

int main(int argc, char** argv) {
  return run_program([&] {
    Gpu gpu;
    Report report("matmul");
    const int cases = static_cast<int>(argument(argc, argv, "cases", 60));
    const auto seed = static_cast<uint64_t>(argument(argc, argv, "seed", 1));
    const int64_t each = gpu.device().info().multiprocessors;  // a tile for each, whatever its size
    using enum MatmulPrecision;
    for (const auto& [dtype, precision] :
         {std::pair(DType::F32, Highest), {DType::F32, High}, {DType::F64, Highest}, {DType::BF16, Highest}, {DType::F16, Highest}})
      for (bool a : {false, true})
        for (bool b : {false, true}) {
          const auto check = [&](int64_t batch, int64_t m, int64_t n, int64_t k) {
            const Call call = {dtype, dtype, precision, batch, m, n, k, {.transposed = a}, {.transposed = b}, {}, true, Activation::None};
            check_call(gpu, call, "each kernel", report);
          };
          check(2, 40, 72, 56);
          for (const auto& [m, n] : {std::pair(16, 32), {64, 64}, {128, 128}, {128, 256}}) check(each, m, n, 40);
          check(1, 16, 32, 4200);
        }
    for (int i = 0; i < cases; i++) check_random(gpu, seed + static_cast<uint64_t>(i), report);
    return report.finish();
  });
}
