// fmaPeak and readBandwidth: the machine's limits, measured on the calling thread and the pool while the stream is idle.
#include "cpu/peak.h"

#include <chrono>

#include "core/op.h"
#include "core/stream.h"

namespace fovea {
namespace {

double now_seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Runs `threads` tiles side by side and gives the sum of what each reports per second of its own time.
template <class Work>
double side_by_side(int64_t threads, Work&& work) {
  ThreadPool& pool = ThreadPool::instance();
  check(threads >= 1 && threads <= 256, "ERR_ARGUMENT", "threads: got ", threads, ", expected 1 to 256");
  Stream::cpu().synchronize();
  int before = pool.threads();
  pool.set_threads(static_cast<int>(threads));
  std::vector<double> rate(static_cast<size_t>(threads));
  std::atomic<int64_t> started{0};
  pool.run(threads, [&](int64_t tile, int) {
    // All start together, so that none measures an idle machine.
    for (started++; started < threads;) {
    }
    rate[static_cast<size_t>(tile)] = work(tile);
  });
  pool.set_threads(before);
  double sum = 0;
  for (double r : rate) sum += r;
  return sum;
}

// GF/s of f32 multiply-adds on `threads` threads, measured for `seconds`.
double fma_peak(double seconds, int64_t threads) {
  return side_by_side(threads, [&](int64_t) {
    float sink;
    int64_t flops = 0;
    double start = now_seconds(), end;
    do flops += dispatch_isa([&](auto isa) { return cpu::fma_round<isa()>(&sink); });
    while ((end = now_seconds()) - start < seconds);
    return static_cast<double>(flops) / (end - start) / 1e9;
  });
}

// GB/s read from memory far larger than the caches, on `threads` threads.
double read_bandwidth(double seconds, int64_t threads) {
  constexpr int64_t kBytes = int64_t{256} << 20;
  Tensor memory = Tensor::empty({kBytes / 4 * threads}, DType::F32, true);
  for (int64_t i = 0; i < memory.count(); i += 256) memory.data<float>()[i] = 0;
  return side_by_side(threads, [&](int64_t tile) {
    float sink;
    int64_t bytes = 0;
    double start = now_seconds(), end;
    do {
      dispatch_isa([&](auto isa) { cpu::read_round<isa()>(memory.data<float>() + tile * kBytes / 4, kBytes, &sink); });
      bytes += kBytes;
    } while ((end = now_seconds()) - start < seconds);
    return static_cast<double>(bytes) / (end - start) / 1e9;
  });
}

const RegisterOp<&fma_peak> fma_peak_registration{"fmaPeak"};
const RegisterOp<&read_bandwidth> read_bandwidth_registration{"readBandwidth"};

}  // namespace
}  // namespace fovea
