// The stream, the pool and the allocator under concurrency: what ThreadSanitizer and AddressSanitizer should see.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "core/allocator.h"
#include "core/stream.h"
#include "core/tensor.h"
#include "expect.h"

using namespace fovea;

namespace {

Stream& stream() { return Stream::cpu(); }

// out = in + 1, on i32.
Tensor increment(const Tensor& in) {
  Tensor out = Tensor::empty(in.shape, DType::I32);
  stream().launch("increment", {in.storage.get()}, {out.storage.get()},
                  [from = in.data<int32_t>(), to = out.data<int32_t>(), n = in.count()](const TaskContext& ctx) {
                    ctx.pool.run((n + 63) / 64, [&](int64_t tile, int) {
                      for (int64_t i = tile * 64; i < std::min(n, tile * 64 + 64); i++) to[i] = from[i] + 1;
                    });
                  });
  return out;
}

Tensor filled(int64_t n, int32_t value) {
  Tensor t = Tensor::empty({n}, DType::I32, true);
  for (int64_t i = 0; i < n; i++) t.data<int32_t>()[i] = value;
  return t;
}

void tasks_run_in_order_and_memory_is_reused_safely() {
  Tensor t = filled(1000, 0);
  for (int i = 0; i < 10000; i++) t = increment(t);
  stream().synchronize();
  bool all = true;
  for (int i = 0; i < 1000; i++) all &= t.data<int32_t>()[i] == 10000;
  expect(all, "a long chain through reused blocks");
}

void many_threads_enqueue() {
  std::vector<std::thread> threads;
  std::atomic<int> right{0};
  for (int k = 0; k < 4; k++)
    threads.emplace_back([&, k] {
      Tensor t = filled(77, k);
      for (int i = 0; i < 2000; i++) t = increment(t);
      stream().synchronize();
      right += t.data<int32_t>()[76] == k + 2000;
    });
  for (std::thread& t : threads) t.join();
  expect(right == 4, "four producers");
}

void errors_poison_and_do_not_spread_to_others() {
  Tensor good = filled(8, 1), bad = Tensor::empty({8}, DType::I32);
  stream().launch("breaks", {good.storage.get()}, {bad.storage.get()}, [](const TaskContext&) { fail("ERR_INDEX", "index 9"); });
  Tensor after = increment(bad), other = increment(good);
  stream().launch_in_place("update", {bad.storage.get()}, {good.storage.get()}, [](const TaskContext&) { std::printf("must not run\n"); });
  stream().synchronize();
  expect(bad.storage->poison() && after.storage->poison(), "poison follows the data");
  expect(after.storage->poison() && std::strcmp(after.storage->poison()->what(), "index 9") == 0, "with the first error");
  expect(!other.storage->poison() && !good.storage->poison(), "and nothing else");
  expect(stream().take_error(nullptr) != nullptr && stream().take_error(nullptr) == nullptr, "a skipped in-place task is reported once");
}

void exceptions_in_tiles_surface() {
  Tensor t = Tensor::empty({1}, DType::I32);
  stream().launch("tiles", {}, {t.storage.get()}, [](const TaskContext& ctx) {
    ctx.pool.run(1000, [](int64_t tile, int) {
      if (tile == 500) fail("ERR_INTERNAL", "tile 500");
    });
  });
  stream().synchronize();
  expect(t.storage->poison() != nullptr, "an exception in a tile");
}

void cancelling_stops_between_tiles() {
  auto token = std::make_shared<Cancel>();
  const auto cause = std::make_shared<int>();
  Tensor t = Tensor::empty({1}, DType::I32);
  std::atomic<int> ran{0};
  Stream::set_cancel_token(token);
  stream().launch("slow", {}, {t.storage.get()}, [&](const TaskContext& ctx) {
    ctx.pool.run(
        100000,
        [&](int64_t, int) {
          ran++;
          std::this_thread::sleep_for(std::chrono::microseconds(100));
        },
        ctx.cancel);
  });
  Stream::set_cancel_token(nullptr);
  while (ran == 0) std::this_thread::yield();
  token->stop(cause);
  stream().synchronize();
  expect(ran < 100000, "a cancelled task stops");
  const Error* poison = t.storage->poison();
  expect(poison && std::strcmp(poison->code(), "ERR_ABORTED") == 0 && poison->cause() == cause, "and says it was aborted, by what");
}

void foreign_memory_is_let_go_behind_the_queue() {
  static std::atomic<bool> released{false};
  std::vector<int32_t> memory(64, 5);
  Tensor result;
  {
    Tensor t;
    t.dtype = DType::I32;
    t.shape = {64};
    t.strides = {1};
    t.storage = StorageOwner(Storage::foreign(
        memory.data(), 256, [](void*) { released = true; }, nullptr, Storage::Memory::Borrowed));
    result = increment(t);
  }
  stream().synchronize();
  expect(released && result.data<int32_t>()[63] == 6, "release after use");
}

void a_full_queue_lets_in_what_its_tasks_let_go_of() {
  static std::atomic<int> released{0};
  constexpr int kTasks = 6000, kOwned = 2;  // more of either than the queue has places
  int32_t memory = 0;
  for (int i = 0; i < kTasks; i++) {
    std::vector<StorageOwner> owned;
    for (int k = 0; k < kOwned; k++)
      owned.emplace_back(Storage::foreign(
          &memory, 4, [](void*) { released++; }, nullptr, Storage::Memory::Borrowed));
    stream().launch("holds", {}, {}, [owned = std::move(owned), i](const TaskContext&) {
      if (i == 0) std::this_thread::sleep_for(std::chrono::milliseconds(100));
    });
  }
  stream().synchronize();  // behind it comes what the tasks queued
  stream().synchronize();
  expect(released == kTasks * kOwned, "all is let go");
}

void handles_count_for_one_environment() {
  const Tensor t = filled(1, 0);
  Storage& storage = *t.storage.get();
  const int first = 0, second = 0;
  expect(storage.add_handle(&first) && !storage.add_handle(&first) && !storage.add_handle(&second), "the first handle");
  expect(!storage.drop_handle(&second) && !storage.drop_handle(&first) && storage.drop_handle(&first), "the last handle");
  expect(storage.add_handle(&second) && !storage.drop_handle(&first) && storage.drop_handle(&second), "then another's");
}

void accounting_returns_to_where_it_was() {
  stream().synchronize();
  int64_t before = Allocator::instance().stats().live_bytes;
  {
    std::vector<Tensor> tensors;
    for (int64_t n : {1, 15, 16, 17, 1000, 4097, 1 << 20, 3 << 20}) {
      tensors.push_back(Tensor::empty({n}, DType::U8));
      expect(Allocator::block_size(static_cast<size_t>(n)) >= static_cast<size_t>(n), "a block holds what was asked for");
    }
    expect(Allocator::instance().stats().live_bytes > before, "live bytes rise");
  }
  expect(Allocator::instance().stats().live_bytes == before, "and fall");
  Allocator::instance().trim();
  stream().synchronize();
  expect(Allocator::instance().stats().cached_bytes == 0, "trim empties the cache");
  Allocator::instance().set_limit(1 << 20);
  bool refused = false;
  try {
    Tensor::empty({8 << 20}, DType::U8);
  } catch (const Error& e) {
    refused = std::strcmp(e.code(), "ERR_OOM") == 0;
  }
  Allocator::instance().set_limit(0);
  expect(refused, "the limit holds");
}

void pool_width_changes_between_jobs() {
  for (int width : {1, 3, 2, 4, 1, 2}) {
    ThreadPool::instance().set_threads(width);
    std::atomic<int64_t> sum{0};
    std::atomic<int> highest{0};
    ThreadPool::instance().run(500, [&](int64_t tile, int thread) {
      sum += tile;
      for (int seen = highest; thread > seen && !highest.compare_exchange_weak(seen, thread);) {
      }
    });
    expect(sum == 500 * 499 / 2, "every tile once");
    expect(highest < width, "no more threads than asked for");
  }
}

}  // namespace

int main() {
  pool_width_changes_between_jobs();
  ThreadPool::instance().set_threads(2);
  tasks_run_in_order_and_memory_is_reused_safely();
  many_threads_enqueue();
  errors_poison_and_do_not_spread_to_others();
  exceptions_in_tiles_surface();
  cancelling_stops_between_tiles();
  foreign_memory_is_let_go_behind_the_queue();
  a_full_queue_lets_in_what_its_tasks_let_go_of();
  handles_count_for_one_environment();
  accounting_returns_to_where_it_was();
  std::printf(failures ? "%d failures\n" : "ok\n", failures);
  return failures != 0;
}
