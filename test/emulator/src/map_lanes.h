// Turns a scalar function into a handler over 32 lanes. Included only by ops_*.cc, inside their anonymous namespace's translation unit.
#pragma once

#include <utility>

#include "machine.h"
#include "registry.h"

namespace fovea::emulator {
namespace {

template <class F, class D, class... S>
FOVEA_INLINE void map_loop(u32 mask, storage_t<D>* d, const storage_t<S>*... s) {
  const F f{};
  if (mask == kAllLanes) {
#pragma GCC ivdep
    for (int l = 0; l < kLanes; ++l) d[l] = pack<D>(f(unpack<S>(s[l])...));
  } else {
#pragma GCC ivdep
    for (int l = 0; l < kLanes; ++l) {
      const storage_t<D> v = pack<D>(f(unpack<S>(s[l])...));
      d[l] = (mask >> l & 1) ? v : d[l];
    }
  }
}

template <class F, class D, class... S>
struct MapLanes {
  static void run(Warp& w, const Instr& i, u32 mask) { run(w, i, mask, std::index_sequence_for<S...>{}); }
  template <size_t... I>
  FOVEA_INLINE static void run(Warp& w, const Instr& i, u32 mask, std::index_sequence<I...>) {
    map_loop<F, D, S...>(mask, w.dst<D>(i.ops[0]), w.src<S>(i.ops[I + 1])...);
  }
};

template <class F, class... S>
FOVEA_INLINE u32 test_loop(const storage_t<S>*... s) {
  const F f{};
  u32 r = 0;
  for (int l = 0; l < kLanes; ++l) r |= static_cast<u32>(f(unpack<S>(s[l])...)) << l;
  return r;
}

template <class Signature>
struct Map;

template <class D, class... S>
struct Map<D(S...)> {
  template <class F>
  static void add(Registry& r, const char* key, InstrClass cls, F) {
    r.add(key, {&MapLanes<F, D, S...>::run, cls, 1 + sizeof...(S), 1, {kind_of<D>(), kind_of<S>()...}});
  }
};

// map<s32(s32, s32)>(registry, "add.s32", class, [](s32 a, s32 b) { ... }): the function must be total, it also sees inactive lanes.
template <class Signature, class F>
FOVEA_INLINE void map(Registry& r, const char* key, InstrClass cls, F f) {
  Map<Signature>::add(r, key, cls, f);
}

template <class... T>
struct Types {};

template <class... T, class F>
FOVEA_INLINE void for_types(Types<T...>, F f) {
  (f(T{}), ...);
}

}  // namespace
}  // namespace fovea::emulator
