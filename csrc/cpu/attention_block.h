// A block of keys as the bodies of the forward pass see it: where its scores and weights are, and the logits its raw products become.
#pragma once

#include "cpu/attention_call.h"
#include "cpu/attention_scores.h"

namespace fovea::cpu {
namespace {

constexpr float kSlack = 24;  // log2, by which a weight may exceed 1; sums stay far below the largest float

// What is done to a raw product: a factor; that and a term added; or cap, term and masks as a block has them.
enum class Logit { Plain, Added, Any };

// Bodies keep a copy: vector stores may alias anything, so members would be read after each.
template <Words kWords, int NZ>
struct ScoreBlock : KeyBlock {
  static constexpr bool kPairs = kWords != Words::F32;
  static constexpr int kRow = NZ * kLanes;  // floats of a key's scores

  float *scores, *weights;
  const float *maximum, *added;  // added: of lanes at the first key, or null
  int64_t added_step;            // floats from key to key
  const int32_t *begin, *end;
  const uint8_t* visible;  // rows of 8 bytes, or null
  float to_log2, cap, cap_rate;
  bool extra;  // logits need more than products times a factor and one kind of mask

  // Logit of (key j, vector z) from what is stored, in units of log2; a plain one lacks the factor to_log2.
  template <bool kRange, bool kBits, Logit kLogit>
  FOVEA_INLINE vf logit(int j, int z) const {
    constexpr bool kAny = kLogit == Logit::Any;
    vf s = load(scores + static_cast<size_t>(j) * kRow + z * kLanes);
    if constexpr (kLogit == Logit::Added) {
      if (kPairs) s *= set1(to_log2);  // 1 otherwise
      s += load(added + j * added_step + z * kLanes);
    }
    if constexpr (kAny) {
      s = cap > 0 ? capped(s, cap, cap_rate) : s * set1(to_log2);
      if (added) s += load(added + j * added_step + z * kLanes);
      if (visible) s = mask_bits(s, visible + j * 8, z * kLanes);
    }
    if (kRange && (!kAny || edge)) {
      vi from = load(begin + z * kLanes);
      s = mask_range(s, from, load(end + z * kLanes) - from, static_cast<int32_t>(first) + j);
    }
    if (kBits && (!kAny || bits)) s = mask_bits(s, bits + j * bits_pitch, bits_shift + z * kLanes);
    return s;
  }

  // The factor that such a logit lacks.
  template <Logit kLogit>
  FOVEA_INLINE float unit() const {
    return kLogit == Logit::Plain ? to_log2 : 1.f;
  }

  // A logit that lacks the factor `unit`, below its maximum.
  FOVEA_INLINE static vf exponent(vf s, float unit, vf maximum) { return kPairs ? fma(s, set1(unit), zero() - maximum) : s - maximum; }
};

// Two weights of one lane as a bf16 pair; weights are not negative, so rounding half up in integers is enough.
FOVEA_INLINE vf pair_of(vf first, vf second) {
  vu half = reinterpret_cast<vu>(set1(int32_t{0x8000}));
  vu low = (reinterpret_cast<vu>(first) + half) >> 16, high = (reinterpret_cast<vu>(second) + half) & 0xffff0000u;
  return reinterpret_cast<vf>(low | high);
}

}  // namespace
}  // namespace fovea::cpu
