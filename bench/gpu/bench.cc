// Times the CUDA backend on the cases of a file (cases.txt), by CUDA events around groups of launches; one JSON line each, the median of
// the groups. Inputs are random and larger than a cache where the case's own are.
//   bench CASES [--warmup=0.3] [--seconds=1] [--shrink=1] [--block-mask=block_mask]
// Seconds are those of one case; shrink divides lengths, to try the program where there is no card. --block-mask names the folder that
// scripts/gpu-goldens.ts wrote.
#include <algorithm>
#include <fstream>
#include <functional>
#include <sstream>

#include "../../test/gpu/goldens.h"
#include "../../test/gpu/mask_call.h"
#include "../../test/gpu/mask_golden.h"
#include "../../test/gpu/neighborhood_call.h"
#include "cuda/attention_backward.h"
#include "cuda/attention_kernels.h"
#include "cuda/matmul.h"
#include "cuda/random.h"

using namespace fovea;
using namespace fovea::gpu;

namespace {

constexpr int64_t kWindow = 1024;
constexpr double kGroupMilliseconds = 10;

struct Timing {
  double median_ms, least_ms;
  size_t groups;
};

class Timer {
 public:
  Timer(Gpu& gpu, double warmup_seconds, double seconds) : gpu_(gpu), warmup_ms_(1e3 * warmup_seconds), ms_(1e3 * seconds) {
    gpu.run([&](cuda::Stream&) {
      for (CUevent& event : events_) gpu_.device().expect(cuda::driver().cuEventCreate(&event, 0), "an event");
    });
  }

  Timing time(const std::function<void(cuda::Stream&)>& work) {
    double one = group(work, 1);  // the first compiles
    for (double spent = 0; spent < warmup_ms_; spent += one) one = group(work, 1);
    const int count = std::max(1, static_cast<int>(kGroupMilliseconds / one));
    std::vector<double> times;
    const size_t least = ms_ > 0 ? 5 : 1;
    for (double spent = 0; times.size() < least || spent < ms_; spent += times.back() * count) times.push_back(group(work, count) / count);
    std::sort(times.begin(), times.end());
    return {times[times.size() / 2], times[0], times.size()};
  }

 private:
  double group(const std::function<void(cuda::Stream&)>& work, int count) {
    float ms = 0;
    gpu_.run([&](cuda::Stream& stream) {
      cuda::Device& device = gpu_.device();
      const cuda::Driver& driver = cuda::driver();
      device.expect(driver.cuEventRecord(events_[0], device.cu_stream()), "timing");
      for (int i = 0; i < count; i++) work(stream);
      device.expect(driver.cuEventRecord(events_[1], device.cu_stream()), "timing");
      device.expect(driver.cuEventSynchronize(events_[1]), "timing");
      device.expect(driver.cuEventElapsedTime(&ms, events_[0], events_[1]), "timing");
    });
    return std::max(ms, 1e-3f);  // below what events resolve
  }

  Gpu& gpu_;
  const double warmup_ms_, ms_;
  CUevent events_[2];
};

struct Case {
  std::string kind, name, mask;
  int64_t batch, heads_q, heads_kv, len_q, len_kv, dim;
};

// First token of each document, and the end.
std::vector<int64_t> document_starts(int64_t length) {
  constexpr int64_t lengths[] = {512, 1536, 3072, 1024, 2048};
  std::vector<int64_t> starts = {0};
  for (size_t i = 0; starts.back() < length; i++) starts.push_back(std::min(length, starts.back() + lengths[i % 5]));
  return starts;
}

// Causal within documents, as a block mask on the device; every key block of a document before the query's own is full.
class DocumentMask {
 public:
  DocumentMask(Gpu& gpu, int64_t length) : arrays_(gpu) {
    constexpr int32_t block = 128;
    std::vector<int64_t> first(static_cast<size_t>(length));
    const auto starts = document_starts(length);
    for (size_t d = 0; d + 1 < starts.size(); d++) std::fill(first.begin() + starts[d], first.begin() + starts[d + 1], starts[d]);
    const auto blocks = static_cast<int32_t>((length + block - 1) / block);
    std::vector<int32_t> row_begin = {0}, columns, tiles, column_begin = {0}, rows, row_tiles;
    std::vector<uint8_t> bits;
    for (int32_t i = 0; i < blocks; i++) {
      const int64_t q0 = int64_t{i} * block, q1 = std::min<int64_t>(length, q0 + block);
      for (auto j = static_cast<int32_t>(first[static_cast<size_t>(q0)] / block); j <= i; j++) {
        const int64_t k0 = int64_t{j} * block, k1 = std::min<int64_t>(length, k0 + block);
        bool all = true, any = false;
        std::vector<uint8_t> tile(block * block / 8);
        for (int64_t q = q0; q < q1; q++)
          for (int64_t k = k0; k < k1; k++) {
            const bool seen = k <= q && k >= first[static_cast<size_t>(q)];
            all &= seen, any |= seen, pairs_ += seen;
            if (seen) tile[static_cast<size_t>((k - k0) * (block / 8) + (q - q0) / 8)] |= static_cast<uint8_t>(1 << (q - q0) % 8);
          }
        if (!any) continue;
        columns.push_back(j), tiles.push_back(all ? -1 : static_cast<int32_t>(bits.size() / tile.size()));
        if (!all) bits.insert(bits.end(), tile.begin(), tile.end());
      }
      row_begin.push_back(static_cast<int32_t>(columns.size()));
    }
    for (int32_t j = 0; j < blocks; j++) {
      for (int32_t i = 0; i < blocks; i++)
        for (int32_t e = row_begin[static_cast<size_t>(i)]; e < row_begin[static_cast<size_t>(i) + 1]; e++)
          if (columns[static_cast<size_t>(e)] == j) rows.push_back(i), row_tiles.push_back(tiles[static_cast<size_t>(e)]);
      column_begin.push_back(static_cast<int32_t>(rows.size()));
    }
    view_ = {block,
             block,
             blocks,
             blocks,
             length,
             length,
             0,
             0,
             arrays_.copy(row_begin),
             arrays_.copy(columns),
             arrays_.copy(tiles),
             arrays_.copy(bits),
             arrays_.copy(column_begin),
             arrays_.copy(rows),
             arrays_.copy(row_tiles)};
  }
  const BlockMaskView* view() const { return &view_; }
  int64_t pairs() const { return pairs_; }

 private:
  DeviceArrays arrays_;
  BlockMaskView view_;
  int64_t pairs_ = 0;
};

class Bench {
 public:
  Bench(Gpu& gpu, Timer timer, int64_t shrink, std::string block_masks)
      : gpu_(gpu), timer_(timer), shrink_(shrink), block_masks_(std::move(block_masks)) {}

  void run(const std::string& line) {
    std::istringstream in(line);
    Case c;
    in >> c.kind >> c.name;
    if (c.kind == "attention" || c.kind == "backward") {
      in >> c.batch >> c.heads_q >> c.heads_kv >> c.len_q >> c.len_kv >> c.dim >> c.mask;
      if (c.len_q > 1) c.len_q /= shrink_;
      c.len_kv /= shrink_;
      attention(c);
    } else if (c.kind == "matmul") {
      int64_t m, n, k;
      in >> m >> n >> k;
      matmul(c, m / shrink_, n / shrink_, k / shrink_);
    } else if (c.kind == "copy") {
      int64_t bytes;
      in >> bytes;
      copy(c, bytes / shrink_ / shrink_);
    } else if (c.kind == "neighborhood" || c.kind == "neighborhood_backward") {
      std::string space, kernel, stride;
      in >> c.heads_q >> c.dim >> space >> kernel >> stride;
      neighborhood(c, sizes_of(space), sizes_of(kernel), sizes_of(stride));
    } else if (c.kind == "block_mask" || c.kind == "block_mask_pairs") {
      in >> c.len_q;
      block_mask(c);
    }
    check(!in.fail(), "ERR_ARGUMENT", "bench: a case that cannot be read: ", line);
  }

 private:
  void attention(const Case& c) {
    const int64_t q_count = c.batch * c.heads_q * c.len_q * c.dim, kv_count = c.batch * c.heads_kv * c.len_kv * c.dim;
    const DeviceArray q(gpu_, bytes(q_count)), k(gpu_, bytes(kv_count)), v(gpu_, bytes(kv_count)), out(gpu_, bytes(q_count));
    const DeviceArray lse(gpu_, static_cast<size_t>(c.batch * c.heads_q * c.len_q) * sizeof(float));
    fill(q, q_count), fill(k, kv_count), fill(v, kv_count);
    AttentionParams p{};
    p.dtype = DType::BF16, p.batch = c.batch, p.heads_q = c.heads_q, p.heads_kv = c.heads_kv;
    p.len_q = c.len_q, p.len_kv = c.len_kv, p.dim = p.dim_v = c.dim, p.scale = 1 / std::sqrt(static_cast<float>(c.dim));
    p.q = rows(q, c.heads_q, c.len_q, c.dim), p.out = rows(out, c.heads_q, c.len_q, c.dim);
    p.k = rows(k, c.heads_kv, c.len_kv, c.dim), p.v = rows(v, c.heads_kv, c.len_kv, c.dim);
    p.lse = lse.data<float>(), p.lse_sb = c.heads_q * c.len_q, p.lse_sh = c.len_q;
    int64_t pairs = c.len_q * c.len_kv;
    std::unique_ptr<DocumentMask> documents;
    if (c.mask != "dense") {
      const int64_t window = c.mask == "window" ? kWindow : c.len_kv;
      pairs = 0;
      for (int64_t i = 0; i < c.len_q; i++) pairs += std::min({i + 1, window + 1, c.len_kv});
      p.causal = c.mask != "documents";
      if (c.mask == "window") p.window_left = kWindow;
    }
    if (c.mask == "documents") {
      documents = std::make_unique<DocumentMask>(gpu_, c.len_q);
      p.block_mask = documents->view(), pairs = documents->pairs();
    }
    const cuda::AttentionLimits limits = {static_cast<int32_t>(c.len_q), static_cast<int32_t>(c.len_kv), INT32_MAX, INT32_MAX};
    const cuda::AttentionKernel* kernel = nullptr;
    for (const cuda::AttentionKernel& candidate : cuda::kAttentionKernels)
      if (!kernel && !candidate.refusal(p)) kernel = &candidate;
    check(kernel, "ERR_UNSUPPORTED", c.name, ": no kernel takes it");
    const double flops = 4.0 * static_cast<double>(c.batch * c.heads_q * c.dim) * static_cast<double>(pairs);
    const double moved = 2.0 * static_cast<double>(2 * q_count + 2 * kv_count);
    if (c.kind == "attention") {
      report(c, kernel->name, flops, moved, [&](cuda::Stream& stream) { kernel->run(p, limits, stream); });
      return;
    }
    const DeviceArray dout(gpu_, bytes(q_count)), dq(gpu_, bytes(q_count)), dk(gpu_, bytes(kv_count)), dv(gpu_, bytes(kv_count));
    fill(dout, q_count);
    gpu_.run([&](cuda::Stream& stream) { kernel->run(p, limits, stream); });
    AttentionGrads g{};
    g.dtype = DType::BF16;
    g.dout = rows(dout, c.heads_q, c.len_q, c.dim), g.dq = rows(dq, c.heads_q, c.len_q, c.dim);
    g.dk = rows(dk, c.heads_kv, c.len_kv, c.dim), g.dv = rows(dv, c.heads_kv, c.len_kv, c.dim);
    const char* reason = cuda::attention_backward_refusal(p, g);
    check(!reason, "ERR_UNSUPPORTED", c.name, ": ", reason ? reason : "");
    report(c, "backward", 2.5 * flops, 2 * moved, [&](cuda::Stream& stream) { cuda::attention_backward(p, limits, g, stream); });
  }

  void matmul(const Case& c, int64_t m, int64_t n, int64_t k) {
    const DeviceArray a(gpu_, bytes(m * k)), b(gpu_, bytes(k * n)), out(gpu_, bytes(m * n));
    fill(a, m * k), fill(b, k * n);
    MatmulParams p{};
    p.dtype = p.out_dtype = DType::BF16, p.m = m, p.n = n, p.k = k;
    p.a = {a.data(), k, 1, {}}, p.b = {b.data(), n, 1, {}}, p.out = {out.data(), n, 1, {}};
    report(c, "matmul", 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k),
           2.0 * static_cast<double>(m * k + k * n + m * n), [&](cuda::Stream& stream) { cuda::matmul(p, stream); });
  }

  void copy(const Case& c, int64_t size) {
    const auto n = static_cast<size_t>(size);
    const DeviceArray from(gpu_, n), to(gpu_, n);
    fill(from, size / 2);
    report(c, "copy", 0, 2.0 * static_cast<double>(size), [&](cuda::Stream& stream) { stream.copy(to.data(), from.data(), n); });
  }

  // 256x256 as numbers; lengths are divided so that their product is divided by about `shrink`.
  static std::vector<int64_t> sizes_of(const std::string& text) {
    std::vector<int64_t> sizes;
    std::istringstream in(text);
    for (std::string part; std::getline(in, part, 'x');) sizes.push_back(std::stoll(part));
    return sizes;
  }

  void neighborhood(const Case& c, const std::vector<int64_t>& space, const std::vector<int64_t>& kernel,
                    const std::vector<int64_t>& stride) {
    const auto divisor = static_cast<int64_t>(std::lround(std::pow(static_cast<double>(shrink_), 1 / static_cast<double>(space.size()))));
    NeighborhoodParams p{};
    p.dtype = DType::BF16, p.batch = 1, p.heads_q = p.heads_kv = c.heads_q, p.dim = p.dim_v = c.dim, p.tokens = 1;
    p.scale = 1 / std::sqrt(static_cast<float>(c.dim));
    int64_t window = 1;
    for (size_t i = 0; i < space.size(); i++) {
      NeighborhoodAxis& a = p.axis[kNeighborhoodAxes - space.size() + i];
      a.length = std::max<int64_t>(1, space[i] / divisor), a.kernel = std::max<int64_t>(1, kernel[i] / divisor);
      a.stride = std::clamp<int64_t>(stride[i] / divisor, 1, a.kernel);
      p.tokens *= a.length, window *= a.kernel;
    }
    const int64_t count = p.tokens * c.heads_q * c.dim;
    const DeviceArray q(gpu_, bytes(count)), k(gpu_, bytes(count)), v(gpu_, bytes(count)), out(gpu_, bytes(count)),
        dout(gpu_, bytes(count));
    const DeviceArray dq(gpu_, bytes(count)), dk(gpu_, bytes(count)), dv(gpu_, bytes(count));
    const DeviceArray lse(gpu_, static_cast<size_t>(p.tokens * c.heads_q) * sizeof(float));
    fill(q, count), fill(k, count), fill(v, count), fill(dout, count);
    const auto rows_of = [&](const DeviceArray& a) { return lattice_rows(p, a.data(), c.heads_q, c.dim); };
    p.q = rows_of(q), p.k = rows_of(k), p.v = rows_of(v), p.out = rows_of(out), p.lse = lse.data<float>();
    const double flops = 4.0 * static_cast<double>(p.tokens * c.heads_q * c.dim) * static_cast<double>(window);
    const double moved = 2.0 * static_cast<double>(4 * count);
    if (c.kind == "neighborhood") {
      report(c, "neighborhood", flops, moved, [&](cuda::Stream& stream) { cuda::neighborhood(p, stream); });
      return;
    }
    gpu_.run([&](cuda::Stream& stream) { cuda::neighborhood(p, stream); });
    NeighborhoodGrads g;
    g.dout = rows_of(dout), g.dq = rows_of(dq), g.dk = rows_of(dk), g.dv = rows_of(dv);
    report(c, "neighborhood_backward", 2.5 * flops, 2 * moved, [&](cuda::Stream& stream) { cuda::neighborhood_backward(p, g, stream); });
  }

  // The tiles that interval analysis leaves, evaluated here, with the time of that analysis added; or all tiles.
  void block_mask(const Case& c) {
    const int64_t length = c.len_q / shrink_;
    for (const Golden& g : Golden::read(block_masks_)) {
      if (g.integer("length") != length) continue;
      const MaskGolden mask(g);
      const auto block = static_cast<int32_t>(g.integer("block"));
      const bool pairs = c.kind == "block_mask_pairs";
      const std::vector<int32_t> listed = g.array<int32_t>("tiles");
      std::vector<MaskBitsTile> tiles(listed.size() / 4);
      std::memcpy(tiles.data(), listed.data(), listed.size() * sizeof(int32_t));
      MaskCall call = pairs ? MaskCall(mask.plan(), block, block, length, length, false)
                            : MaskCall(mask.plan(), block, block, length, length, std::move(tiles));
      report(
          c, "mask_bits", 0, 0, [&](cuda::Stream& stream) { call.evaluate(stream); }, pairs ? 0 : g.numbers.at("host_ms"));
      return;
    }
    fail("ERR_ARGUMENT", "bench: ", block_masks_, " has no block mask of length ", length);
  }

  // `host_ms`: what comes before on the host, measured where the archive was made.
  void report(const Case& c, const char* kernel, double flops, double moved, const std::function<void(cuda::Stream&)>& work,
              double host_ms = 0) {
    const Timing t = timer_.time(work);
    std::printf("{\"suite\": \"bench\", \"kind\": \"%s\", \"name\": \"%s\", \"by\": \"fovea\", \"kernel\": \"%s\", \"ms\": %.5g, ",
                c.kind.c_str(), c.name.c_str(), kernel, t.median_ms + host_ms);
    if (host_ms > 0) std::printf("\"host_ms\": %.5g, ", host_ms);
    std::printf("\"least_ms\": %.5g, \"groups\": %zu, \"flops\": %.6g, \"bytes\": %.6g}\n", t.least_ms + host_ms, t.groups, flops, moved);
    std::fflush(stdout);
  }

  void fill(const DeviceArray& array, int64_t count) {
    RandomParams p{};
    p.distribution = Distribution::Normal, p.out = array.data(), p.dtype = DType::BF16, p.count = count;
    p.seed = 1, p.offset = offset_, p.scale = 1;
    offset_ += static_cast<uint64_t>(count);
    gpu_.run([&](cuda::Stream& stream) { cuda::random(p, stream); });
  }
  static size_t bytes(int64_t count) { return static_cast<size_t>(count) * 2; }
  static AttentionTensor rows(const DeviceArray& a, int64_t heads, int64_t length, int64_t dim) {
    return {a.data(), heads * length * dim, length * dim, dim, 1};
  }

  Gpu& gpu_;
  Timer timer_;
  const int64_t shrink_;
  const std::string block_masks_;
  uint64_t offset_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  return run_program([&] {
    std::ifstream cases(argc > 1 ? argv[1] : "");
    check(static_cast<bool>(cases), "ERR_ARGUMENT", "bench: cannot read the file of cases '", argc > 1 ? argv[1] : "", "'");
    Gpu gpu;
    const cuda::DeviceInfo& d = gpu.device().info();
    const auto shrink = static_cast<int64_t>(argument(argc, argv, "shrink", 1));
    std::printf("{\"suite\": \"device\", \"name\": \"%s\", \"capability\": %d, \"multiprocessors\": %d, \"bytes\": %zu, \"driver\": %d, ",
                d.name.c_str(), d.capability, d.multiprocessors, d.total_bytes, cuda::driver_state().version);
    std::printf("\"shrink\": %ld}\n", shrink);
    const Timer timer(gpu, argument(argc, argv, "warmup", 0.3), argument(argc, argv, "seconds", 1));
    Bench bench(gpu, timer, shrink, text_argument(argc, argv, "block-mask", "block_mask"));
    int failed = 0;
    for (std::string line; std::getline(cases, line);) {
      if (line.empty() || line[0] == '#') continue;
      try {
        bench.run(line);
      } catch (const Error& error) {
        std::fprintf(stderr, "%s\n%s: %s\n", line.c_str(), error.code(), error.what());
        failed++;
      }
    }
    return failed ? 1 : 0;
  });
}
