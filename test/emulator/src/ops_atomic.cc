// atom and red. Lanes go one after the other in lane order; memory is updated with the host's atomics, because blocks run in parallel.
#include "access.h"
#include "map_lanes.h"
#include "numeric.h"
#include "ops.h"

namespace fovea::emulator::FOVEA_EMULATOR_ISA {

namespace {

template <class T>
FOVEA_INLINE u8* locate_atomic(Warp& w, const Instr& i, int lane, u64 address) {
  constexpr u32 bytes = sizeof(T);
  const Space space = i.space == Space::Generic ? space_of_generic(address) : i.space;
  if ((address & (bytes - 1)) == 0) [[likely]] {
    if (space == Space::Shared) {
      SharedMemory& s = w.block->shared;
      if (address + bytes <= s.bytes() && s.atomic(w.shared, static_cast<u32>(address), bytes) == SharedMemory::Conflict::None)
        return s.data() + address;
    } else if (space == Space::Global) {
      if (w.block->launch->memory->readable(address, bytes)) return reinterpret_cast<u8*>(address);
    }
  }
  raise_access(w, i, lane, space, address, bytes, false);
}

// F: new value from (old, a, b). ops: [d,] address, a [, b]; count tells which are there.
template <class T, class F, bool kReturns, bool kTwo>
void atomic(Warp& w, const Instr& i, u32 mask) {
  using S = storage_t<T>;
  using Raw = std::conditional_t<sizeof(T) == 8, u64, std::conditional_t<sizeof(T) == 4, u32, u16>>;
  constexpr int first = kReturns ? 1 : 0;
  alignas(64) u64 address[kLanes];
  addresses_of(w, i, i.ops[first], address);
  count_access(w, i, mask, address, sizeof(T), true);
  const S *a = w.src<T>(i.ops[first + 1]), *b = w.src<T>(i.ops[first + (kTwo ? 2 : 1)]);
  for (u32 left = mask; left; left &= left - 1) {
    const int l = __builtin_ctz(left);
    Raw* p = reinterpret_cast<Raw*>(locate_atomic<T>(w, i, l, address[l]));
    const T x = unpack<T>(a[l]), y = unpack<T>(b[l]);
    Raw old = __atomic_load_n(p, __ATOMIC_RELAXED), next;
    do {
      next = static_cast<Raw>(pack<T>(F{}(unpack<T>(static_cast<S>(old)), x, y)));
    } while (!__atomic_compare_exchange_n(p, &old, next, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED));
    if constexpr (kReturns) w.dst<T>(i.ops[0])[l] = static_cast<S>(old);
  }
}

template <class T, bool kTwo = false, class F>
void add(Registry& r, const char* op, const char* type, F) {
  constexpr Kind K = kind_of<T>();
  if (kTwo) {
    r.add(Key("atom.", op, ".", type).c_str(), {&atomic<T, F, true, true>, InstrClass::Atomic, 3, 1, {K, K, K}});
  } else {
    r.add(Key("atom.", op, ".", type).c_str(), {&atomic<T, F, true, false>, InstrClass::Atomic, 2, 1, {K, K}});
    r.add(Key("red.", op, ".", type).c_str(), {&atomic<T, F, false, false>, InstrClass::Atomic, 1, 0, {K}});
  }
}

template <class T>
void add_integer(Registry& r, const char* t) {
  add<T>(r, "add", t,
         [](T o, T a, T) { return static_cast<T>(static_cast<std::make_unsigned_t<T>>(o) + static_cast<std::make_unsigned_t<T>>(a)); });
  add<T>(r, "min", t, [](T o, T a, T) { return a < o ? a : o; });
  add<T>(r, "max", t, [](T o, T a, T) { return a > o ? a : o; });
}

template <class T>
void add_bits(Registry& r, const char* t) {
  add<T>(r, "and", t, [](T o, T a, T) { return static_cast<T>(o & a); });
  add<T>(r, "or", t, [](T o, T a, T) { return static_cast<T>(o | a); });
  add<T>(r, "xor", t, [](T o, T a, T) { return static_cast<T>(o ^ a); });
  add<T>(r, "exch", t, [](T, T a, T) { return a; });
  add<T, true>(r, "cas", t, [](T o, T a, T b) { return o == a ? b : o; });
}

FOVEA_INLINE f16 plus(f16 a, f16 b) { return to_f16(to_f32(a) + to_f32(b)); }
FOVEA_INLINE bf16 plus(bf16 a, bf16 b) { return to_bf16(to_f32(a) + to_f32(b)); }

}  // namespace

void register_atomic(Registry& r) {
  add_integer<u32>(r, "u32");
  add_integer<s32>(r, "s32");
  add_integer<u64>(r, "u64");
  add_integer<s64>(r, "s64");
  add_bits<u32>(r, "b32");
  add_bits<u64>(r, "b64");
  add<u16, true>(r, "cas", "b16", [](u16 o, u16 a, u16 b) { return o == a ? b : o; });
  add<u32>(r, "inc", "u32", [](u32 o, u32 a, u32) { return o >= a ? 0 : o + 1; });
  add<u32>(r, "dec", "u32", [](u32 o, u32 a, u32) { return o == 0 || o > a ? a : o - 1; });
  add<f32>(r, "add", "f32", [](f32 o, f32 a, f32) { return o + a; });
  add<f64>(r, "add", "f64", [](f64 o, f64 a, f64) { return o + a; });
  add<f16>(r, "add", "f16", [](f16 o, f16 a, f16) { return plus(o, a); });
  add<bf16>(r, "add", "bf16", [](bf16 o, bf16 a, bf16) { return plus(o, a); });
  add<f16x2>(r, "add", "f16x2", [](f16x2 o, f16x2 a, f16x2) { return f16x2{plus(o.lo, a.lo), plus(o.hi, a.hi)}; });
  add<bf16x2>(r, "add", "bf16x2", [](bf16x2 o, bf16x2 a, bf16x2) { return bf16x2{plus(o.lo, a.lo), plus(o.hi, a.hi)}; });
}

}  // namespace fovea::emulator::FOVEA_EMULATOR_ISA
