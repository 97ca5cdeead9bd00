// Splits PTX text into tokens. A word keeps its dots, so `ld.global.v4.f32` and `%tid.x` are one token each.
// Debug lines (.loc, .file) end at the line's end and not at a semicolon, so they are dropped here.
#pragma once

#include <string_view>
#include <vector>

namespace fovea::emulator {

struct Token {
  enum class Kind { Word, Number, String, Punctuation, End };
  Kind kind;
  std::string_view text;
  int line;
  bool is(std::string_view s) const { return text == s && kind != Kind::String; }
};

std::vector<Token> tokenize(std::string_view text);

}  // namespace fovea::emulator
