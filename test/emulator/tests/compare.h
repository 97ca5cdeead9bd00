// Instructions against plain C++ over random and edge values. A snippet reads its operands from arrays, one element a thread.
#pragma once

#include <bit>
#include <limits>

#include "harness.h"

namespace harness {

inline const char* register_of(size_t bytes) { return bytes == 2 ? "%h" : bytes == 4 ? "%r" : "%d"; }

inline constexpr int kCount = 256;

template <class T>
std::vector<T> samples(uint32_t seed) {
  std::mt19937_64 rng(seed);
  std::vector<T> v(kCount);
  for (auto& x : v) {
    const uint64_t bits = rng();
    if constexpr (std::is_floating_point_v<T>) {
      x = static_cast<T>(std::ldexp(static_cast<double>(static_cast<int64_t>(bits)) / 9.2e18, static_cast<int>(rng() % 40) - 20));
    } else {
      x = static_cast<T>(bits >> (rng() % (8 * sizeof(T))));
    }
  }
  if constexpr (std::is_floating_point_v<T>) {
    const T edges[] = {0,
                       static_cast<T>(-0.0),
                       1,
                       -1,
                       std::numeric_limits<T>::infinity(),
                       -std::numeric_limits<T>::infinity(),
                       std::numeric_limits<T>::quiet_NaN(),
                       std::numeric_limits<T>::max(),
                       std::numeric_limits<T>::min(),
                       std::numeric_limits<T>::denorm_min(),
                       static_cast<T>(0.5),
                       static_cast<T>(2.5),
                       static_cast<T>(-3.5),
                       static_cast<T>(3e9),
                       static_cast<T>(-3e9)};
    for (size_t k = 0; k < std::size(edges); ++k) v[(k * (seed % 7 + 1)) % kCount] = edges[k];
  } else {
    const T edges[] = {0,  1,  static_cast<T>(-1),  std::numeric_limits<T>::max(), std::numeric_limits<T>::min(), 2, 31, 32, 33,
                       63, 64, static_cast<T>(0x80)};
    for (size_t k = 0; k < std::size(edges); ++k) v[(k * (seed % 7 + 1)) % kCount] = edges[k];
  }
  return v;
}

// Runs `body`, PTX over d0 (the result) and s0, s1, s2 with the register classes of D and S..., for each element.
template <class D, class... S>
std::vector<D> execute(const std::string& body, const std::vector<S>&... inputs) {
  const size_t bytes[] = {sizeof(D), sizeof(S)...};
  std::string text = ptx_header() + ".visible .entry k(.param .u64 p0";
  for (size_t k = 1; k <= sizeof...(S); ++k) text += ", .param .u64 p" + std::to_string(k);
  text +=
      ") {\n.reg .b32 %t, %x; .reg .b64 %a<8>, %o<8>; .reg .pred %p<4>; .reg .b16 %h<8>; .reg .b32 %r<8>; .reg .b64 %d<8>;\n mov.u32 %t, "
      "%tid.x;\n";
  for (size_t k = 0; k <= sizeof...(S); ++k) {
    const std::string n = std::to_string(k);
    text += "ld.param.u64 %a" + n + ", [p" + n + "];\n mul.wide.u32 %o" + n + ", %t, " + std::to_string(bytes[k]) + ";\n add.u64 %a" + n +
            ", %a" + n + ", %o" + n + ";\n";
    if (k) text += "ld.global.b" + std::to_string(8 * bytes[k]) + " " + register_of(bytes[k]) + std::to_string(k) + ", [%a" + n + "];\n";
  }
  std::string code = body;
  for (size_t k = 0; k <= sizeof...(S); ++k) {
    const std::string from = (k ? "s" + std::to_string(k - 1) : "d0");
    for (size_t at; (at = code.find("$" + from)) != std::string::npos;)
      code.replace(at, from.size() + 1, register_of(bytes[k]) + std::to_string(k));
  }
  text += code + "\nst.global.b" + std::to_string(8 * sizeof(D)) + " [%a0], " + register_of(sizeof(D)) + "0;\nret;\n}\n";
  const Module module(text);
  const Buffer<D> out(kCount);
  const auto call = [&](const auto&... buffers) { run(module.function("k"), {1, kCount}, out.address(), buffers.address()...); };
  call(Buffer<S>(inputs)...);
  return out.read();
}

inline std::string show(double v) { return std::to_string(v); }

template <class D>
bool same(D a, D b, double tolerance) {
  if constexpr (std::is_floating_point_v<D>) {
    if (a != a || b != b) return a != a && b != b;
    if (a == b) return tolerance > 0 || std::signbit(a) == std::signbit(b);
    return std::fabs(a - b) <= tolerance * std::fabs(b);
  } else {
    return a == b;
  }
}

template <class D, class... S, class F>
void compare(const std::string& opcode, F f, double tolerance = 0) {
  static_assert(sizeof...(S) >= 1 && sizeof...(S) <= 4);
  uint32_t seed = 1;
  const auto inputs = std::make_tuple(samples<S>(seed++)...);
  std::string body = opcode + " $d0";
  for (size_t k = 0; k < sizeof...(S); ++k) body += ", $s" + std::to_string(k);
  std::apply(
      [&](const auto&... in) {
        const std::vector<D> got = execute<D, S...>(opcode.find("$d0") == std::string::npos ? body + ";" : opcode, in...);
        for (int k = 0; k < kCount; ++k) {
          const D want = f(in[k]...);
          std::string operands;
          ((operands += " " + show(static_cast<double>(in[k]))), ...);
          check(same(got[k], want, tolerance),
                opcode + ":" + operands + " gave " + show(static_cast<double>(got[k])) + ", expected " + show(static_cast<double>(want)));
        }
      },
      inputs);
}

}  // namespace harness
