// spin_until: it sees a change, and it ends without one.
#include "core/spin.h"

#include <atomic>
#include <chrono>
#include <cstdio>
#include <thread>

#include "expect.h"

using namespace fovea;

namespace {

void what_holds_is_seen_without_waiting() {
  int looks = 0;
  expect(spin_until([&] { return ++looks > 0; }, std::chrono::microseconds(0)) && looks == 1, "one look");
}

void a_change_is_seen_however_late() {
  std::atomic<bool> changed{false};
  std::thread other([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    changed.store(true, std::memory_order_release);
  });
  const bool seen = spin_until([&] { return changed.load(std::memory_order_acquire); });
  expect(seen && changed, "a change after many turns");
  other.join();
}

void looking_ends_with_the_time() {
  for (const std::chrono::microseconds limit : {std::chrono::microseconds(0), std::chrono::microseconds(10), kPatience}) {
    const auto begin = std::chrono::steady_clock::now();
    const bool holds = spin_until([] { return false; }, limit);
    expect(!holds && std::chrono::steady_clock::now() - begin >= limit, "in vain, for the time that was asked");
  }
}

}  // namespace

int main() {
  what_holds_is_seen_without_waiting();
  a_change_is_seen_however_late();
  looking_ends_with_the_time();
  std::printf(failures ? "%d failures\n" : "ok\n", failures);
  return failures != 0;
}
