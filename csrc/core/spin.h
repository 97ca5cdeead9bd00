// Looking at what another thread is about to change for a while before sleeping over it. A sleeping thread is woken by a system call, and
// where its processor was halted meanwhile it runs tens of microseconds later.
#pragma once

#include <chrono>
#include <thread>

namespace fovea {

// For how long to look where one can sleep: a few times what waking takes on a virtual machine (60 to 70 us). Less woke more often, more
// gained nothing.
constexpr std::chrono::microseconds kPatience{300};

// Between two looks.
inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Looks until `done()` holds, for at most about `limit`; says whether it holds. After the first microseconds it lets other threads have the
// processor between looks: one of them may be the one that it waits for.
template <class Done>
bool spin_until(const Done& done, std::chrono::steady_clock::duration limit = std::chrono::steady_clock::duration::max()) {
  using Clock = std::chrono::steady_clock;
  constexpr std::chrono::microseconds kBusy{20};
  constexpr int kLooks = 32;  // between two looks at the clock
  const auto look = [&done] {
    for (int i = 0; i < kLooks; i++) {
      if (done()) return true;
      relax();
    }
    return false;
  };
  if (look()) return true;
  for (const auto begin = Clock::now(); !look();) {
    const auto spent = Clock::now() - begin;
    if (spent >= limit) return false;
    if (spent >= kBusy) std::this_thread::yield();
  }
  return true;
}

}  // namespace fovea
