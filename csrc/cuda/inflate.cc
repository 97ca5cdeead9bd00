// A canonical Huffman decoder that walks one bit at a time: codes of each length are consecutive numbers, so the first code and the
// position of its symbol per length are the whole table. Slow per byte, and run once per kernel file.
#include "cuda/inflate.h"

#include <cstdint>
#include <cstring>

namespace fovea::cuda {
namespace {

constexpr int kMaxBits = 15;

struct Huffman {
  uint16_t count[kMaxBits + 1] = {};  // codes of each length
  uint16_t symbols[288] = {};         // by length, then by value

  void build(const uint8_t* lengths, int n) {
    std::memset(count, 0, sizeof(count));
    for (int i = 0; i < n; i++) count[lengths[i]]++;
    count[0] = 0;
    uint16_t next[kMaxBits + 2] = {};
    for (int bits = 1; bits <= kMaxBits; bits++) next[bits + 1] = next[bits] + count[bits];
    for (int i = 0; i < n; i++)
      if (lengths[i]) symbols[next[lengths[i]]++] = static_cast<uint16_t>(i);
  }
};

class Inflater {
 public:
  Inflater(const uint8_t* data, size_t bytes, char* text, size_t text_bytes)
      : in_(data), end_(data + bytes), begin_(text), out_(text), limit_(text + text_bytes) {}

  bool run() {
    bool last = false;
    while (!last && ok_) {
      last = bits(1);
      switch (bits(2)) {
        case 0: stored(); break;
        case 1: fixed(); break;
        case 2: dynamic(); break;
        default: ok_ = false;
      }
    }
    return ok_ && out_ == limit_;
  }

 private:
  unsigned bits(int n) {
    unsigned value = 0;
    for (int i = 0; i < n; i++) {
      if (held_ == 0) {
        if (in_ == end_) {
          ok_ = false;
          return 0;
        }
        byte_ = *in_++;
        held_ = 8;
      }
      value |= static_cast<unsigned>(byte_ & 1) << i;
      byte_ >>= 1;
      held_--;
    }
    return value;
  }

  int symbol(const Huffman& h) {
    int code = 0, first = 0, index = 0;
    for (int length = 1; length <= kMaxBits && ok_; length++) {
      code |= static_cast<int>(bits(1));
      const int n = h.count[length];
      if (code - first < n) return h.symbols[index + code - first];
      index += n;
      first = (first + n) << 1;
      code <<= 1;
    }
    ok_ = false;
    return 0;
  }

  void stored() {
    held_ = 0;
    if (end_ - in_ < 4) {
      ok_ = false;
      return;
    }
    const size_t n = in_[0] | in_[1] << 8;
    in_ += 4;
    if (static_cast<size_t>(end_ - in_) < n || static_cast<size_t>(limit_ - out_) < n) {
      ok_ = false;
      return;
    }
    std::memcpy(out_, in_, n);
    in_ += n;
    out_ += n;
  }

  void fixed() {
    uint8_t lengths[288], distances[30];
    for (int i = 0; i < 288; i++) lengths[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
    std::memset(distances, 5, sizeof(distances));
    Huffman literal, distance;
    literal.build(lengths, 288);
    distance.build(distances, 30);
    block(literal, distance);
  }

  void dynamic() {
    const int literals = static_cast<int>(bits(5)) + 257, distances = static_cast<int>(bits(5)) + 1, codes = static_cast<int>(bits(4)) + 4;
    constexpr uint8_t order[] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    uint8_t lengths[320] = {};
    for (int i = 0; i < codes; i++) lengths[order[i]] = static_cast<uint8_t>(bits(3));
    Huffman lengths_code, literal, distance;
    lengths_code.build(lengths, 19);
    std::memset(lengths, 0, sizeof(lengths));
    for (int i = 0; i < literals + distances && ok_;) {
      const int s = symbol(lengths_code);
      if (s < 16) {
        lengths[i++] = static_cast<uint8_t>(s);
        continue;
      }
      const uint8_t value = s == 16 && i > 0 ? lengths[i - 1] : 0;
      int repeat = s == 16 ? 3 + static_cast<int>(bits(2)) : s == 17 ? 3 + static_cast<int>(bits(3)) : 11 + static_cast<int>(bits(7));
      if (i + repeat > literals + distances) ok_ = false;
      for (; ok_ && repeat > 0; repeat--) lengths[i++] = value;
    }
    literal.build(lengths, literals);
    distance.build(lengths + literals, distances);
    block(literal, distance);
  }

  void block(const Huffman& literal, const Huffman& distance) {
    constexpr uint16_t length_base[] = {3,  4,  5,  6,  7,  8,  9,  10, 11,  13,  15,  17,  19,  23, 27,
                                        31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};
    constexpr uint8_t length_extra[] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
    constexpr uint16_t distance_base[32] = {1,   2,   3,   4,   5,   7,    9,    13,   17,   25,   33,   49,   65,    97,    129,
                                            193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577};
    while (ok_) {
      int s = symbol(literal);
      if (!ok_ || s == 256) return;
      if (s < 256) {
        if (out_ == limit_) ok_ = false;
        else *out_++ = static_cast<char>(s);
        continue;
      }
      s -= 257;
      if (s >= 29) ok_ = false;
      if (!ok_) return;
      const size_t length = length_base[s] + bits(length_extra[s]);
      const int d = symbol(distance);
      if (d >= 30) ok_ = false;
      if (!ok_) return;
      const size_t back = distance_base[d] + bits(d < 4 ? 0 : d / 2 - 1);
      if (static_cast<size_t>(out_ - begin_) < back || static_cast<size_t>(limit_ - out_) < length) ok_ = false;
      for (size_t i = 0; ok_ && i < length; i++, out_++) *out_ = *(out_ - back);
    }
  }

  const uint8_t *in_, *end_;
  char *begin_, *out_, *limit_;
  unsigned byte_ = 0;
  int held_ = 0;
  bool ok_ = true;
};

}  // namespace

bool inflate(const void* data, size_t bytes, char* text, size_t text_bytes) {
  return Inflater(static_cast<const uint8_t*>(data), bytes, text, text_bytes).run();
}

}  // namespace fovea::cuda
