// gzip (RFC 1952) around deflate (RFC 1951). Not zlib's: its headers come with no package that the build may rely on, Node exports its own
// copy in some builds only, and modules are loaded on a thread that can't ask JavaScript.
//
// A code word is decoded by one look into a table as wide as the longest word of its code, up to 15 bits. Only the length at the end of the
// file is checked: what is unpacked here came with the addon.
#include "cuda/unpack.h"

#include <cstdint>
#include <cstring>
#include <vector>

#include "core/error.h"

namespace fovea::cuda {
namespace {

constexpr int kLongestWord = 15;

class Bits {
 public:
  explicit Bits(const uint8_t* at) : at_(at) {}

  // The next n bits, at most 16 of them, the first the lowest.
  uint32_t peek(int n) {
    if (count_ < 32) {
      uint32_t more;
      std::memcpy(&more, at_, sizeof more);
      word_ |= uint64_t{more} << count_;
      at_ += sizeof more, count_ += 32;
    }
    return static_cast<uint32_t>(word_) & ((1u << n) - 1);
  }
  void skip(int n) { word_ >>= n, count_ -= n; }
  uint32_t take(int n) {
    const uint32_t bits = peek(n);
    skip(n);
    return bits;
  }
  // The byte after the last bit taken.
  const uint8_t* next_byte() const { return at_ - count_ / 8; }
  void go_to(const uint8_t* at) { at_ = at, word_ = 0, count_ = 0; }

 private:
  const uint8_t* at_;
  uint64_t word_ = 0;
  int count_ = 0;  // bits of word_
};

// A Huffman code, given by the length of each symbol's word.
class Code {
 public:
  explicit Code(const std::vector<uint8_t>& lengths) {
    int next[kLongestWord + 2] = {};  // by length, the number of shorter words, then the next word
    for (const uint8_t length : lengths) {
      next[length + 1] += length > 0;
      if (length > longest_) longest_ = length;
    }
    for (int length = 1, word = 0; length <= longest_; length++) next[length] = word = (word + next[length]) << 1;
    table_.resize(size_t{1} << longest_);
    for (size_t symbol = 0; symbol < lengths.size(); symbol++) {
      const int length = lengths[symbol];
      if (length == 0) continue;
      const uint32_t word = static_cast<uint32_t>(next[length]++);
      uint32_t first = 0;  // the word from its last bit to its first, as the stream has them
      for (int bit = 0; bit < length; bit++) first |= (word >> bit & 1) << (length - 1 - bit);
      for (size_t at = first; at < table_.size(); at += size_t{1} << length) table_[at] = {static_cast<uint16_t>(symbol), lengths[symbol]};
    }
  }
  int next(Bits& bits) const {
    const Word& word = table_[bits.peek(longest_)];
    bits.skip(word.length);
    return word.symbol;
  }

 private:
  struct Word {
    uint16_t symbol;
    uint8_t length;
  };
  int longest_ = 0;
  std::vector<Word> table_;
};

// The k-th size of a series in which each number of extra bits serves `each` sizes.
struct Size {
  int base, extra_bits;
};
Size size_of(int k, int first, int each) {
  if (k < 2 * each) return {first + k, 0};
  const int extra = k / each - 1;
  return {first + ((each + k % each) << extra), extra};
}

std::vector<uint8_t> fixed_lengths() {
  std::vector<uint8_t> lengths(288, 8);
  for (int i = 144; i < 256; i++) lengths[i] = 9;
  for (int i = 256; i < 280; i++) lengths[i] = 7;
  return lengths;
}

// The lengths of a block's literals, then of its distances, themselves in a code.
std::vector<uint8_t> read_lengths(Bits& bits, int count) {
  constexpr uint8_t kOrder[] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
  const int known = static_cast<int>(bits.take(4)) + 4;
  std::vector<uint8_t> of_lengths(19), lengths;
  for (int i = 0; i < known; i++) of_lengths[kOrder[i]] = static_cast<uint8_t>(bits.take(3));
  const Code code(of_lengths);
  while (static_cast<int>(lengths.size()) < count) {
    const int symbol = code.next(bits);
    if (symbol < 16) lengths.push_back(static_cast<uint8_t>(symbol));
    else if (symbol == 16) lengths.insert(lengths.end(), 3 + bits.take(2), lengths.back());
    else lengths.insert(lengths.end(), symbol == 17 ? 3 + bits.take(3) : 11 + bits.take(7), 0);
  }
  return lengths;
}

void inflate_block(Bits& bits, const Code& literals, const Code& distances, std::string& out) {
  constexpr int kEnd = 256, kLongest = 285;
  for (;;) {
    const int symbol = literals.next(bits);
    if (symbol == kEnd) return;
    if (symbol < kEnd) {
      out.push_back(static_cast<char>(symbol));
      continue;
    }
    const Size run = symbol == kLongest ? Size{258, 0} : size_of(symbol - kEnd - 1, 3, 4);
    const size_t count = static_cast<size_t>(run.base) + bits.take(run.extra_bits);
    const Size back = size_of(distances.next(bits), 1, 2);
    const size_t distance = static_cast<size_t>(back.base) + bits.take(back.extra_bits);
    check(distance <= out.size(), "ERR_INTERNAL", "a file of the addon is damaged");
    out.resize(out.size() + count);
    char* const to = out.data() + out.size() - count;
    for (size_t i = 0; i < count; i++) to[i] = to[static_cast<ptrdiff_t>(i - distance)];
  }
}

}  // namespace

std::string unpack(Packed file) {
  const char* const gzip = file.gzip;
  constexpr char kHeader[] = "\x1f\x8b\x08\x00";
  constexpr size_t kHeaderBytes = 10;
  check(std::memcmp(gzip, kHeader, sizeof kHeader - 1) == 0, "ERR_INTERNAL", "a file of the addon is no plain gzip file");
  std::string out;
  Bits bits(reinterpret_cast<const uint8_t*>(gzip) + kHeaderBytes);
  for (bool last = false; !last;) {
    last = bits.take(1);
    const uint32_t kind = bits.take(2);
    if (kind == 0) {
      bits.peek(16);
      const uint8_t* at = bits.next_byte();
      const size_t count = at[0] | size_t{at[1]} << 8;
      out.append(reinterpret_cast<const char*>(at) + 4, count);
      bits.go_to(at + 4 + count);
    } else if (kind == 1) {
      inflate_block(bits, Code(fixed_lengths()), Code(std::vector<uint8_t>(30, 5)), out);
    } else {
      const int literals = static_cast<int>(bits.take(5)) + 257, distances = static_cast<int>(bits.take(5)) + 1;
      const std::vector<uint8_t> lengths = read_lengths(bits, literals + distances);
      inflate_block(bits, Code({lengths.begin(), lengths.begin() + literals}), Code({lengths.begin() + literals, lengths.end()}), out);
    }
  }
  uint32_t length = 0;
  bits.peek(1);
  std::memcpy(&length, bits.next_byte() + 4, sizeof length);
  check(length == static_cast<uint32_t>(out.size()), "ERR_INTERNAL", "a file of the addon is damaged");
  return out;
}

}  // namespace fovea::cuda
