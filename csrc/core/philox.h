// Philox 4x32-10, a counter-based random generator (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), and how a tensor of
// random numbers is laid out over its counters. One definition for every device: element i of call (seed, offset) is the same number
// whatever computes it.
//
//   key     = (seed low, seed high)
//   counter = (block low, block high, offset low, offset high),  block = i / 4
//   word i  = output word i % 4 of that block
//
// Uniform: the top b bits of the word, times 2^-b; b = 24 for f32, 11 for f16, 8 for bf16, 32 for f64: the value is exact and below 1.
// Integer in [low, low + range): low + floor(word * range / 2^32), range <= 2^32.
// Bernoulli(p): word < p 2^32.
// Normal (Box-Muller), elements 2k and 2k + 1 from words u, v of the same indices, in f32:
//   r = sqrt(-2 ln((floor(u / 2^8) + 1) 2^-24)),  a = 2 pi floor(v / 2^8) 2^-24,  z = r cos a and r sin a.
#pragma once

#include <cstdint>

#include "core/host_device.h"

namespace fovea::philox {

constexpr int kRounds = 10;
constexpr uint32_t kMultiplier0 = 0xD2511F53u, kMultiplier1 = 0xCD9E8D57u;
constexpr uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;

struct Block {
  uint32_t word[4];
};

namespace {

FOVEA_DEVICE Block generate(Block counter, uint32_t key0, uint32_t key1) {
  for (int round = 0; round < kRounds; round++) {
    uint64_t product0 = static_cast<uint64_t>(kMultiplier0) * counter.word[0];
    uint64_t product1 = static_cast<uint64_t>(kMultiplier1) * counter.word[2];
    counter = {{static_cast<uint32_t>(product1 >> 32) ^ counter.word[1] ^ key0, static_cast<uint32_t>(product1),
                static_cast<uint32_t>(product0 >> 32) ^ counter.word[3] ^ key1, static_cast<uint32_t>(product0)}};
    key0 += kWeyl0;
    key1 += kWeyl1;
  }
  return counter;
}

FOVEA_DEVICE Block block_of(uint64_t block, uint64_t seed, uint64_t offset) {
  Block counter{{static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), static_cast<uint32_t>(offset),
                 static_cast<uint32_t>(offset >> 32)}};
  return generate(counter, static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
}

}  // namespace
}  // namespace fovea::philox
