// Recursive-descent parser of PTX; parser.cc reads declarations, parser_body.cc function bodies. See ptx.h for the result.
#pragma once

#include <string>
#include <vector>

#include "lexer.h"
#include "ptx.h"

namespace fovea::emulator {

class TokenStream {
 public:
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& peek(size_t ahead = 0) const { return tokens_[std::min(at_ + ahead, tokens_.size() - 1)]; }
  const Token& next() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }
  bool at_end() const { return peek().kind == Token::Kind::End; }
  bool is(std::string_view text) const { return peek().is(text); }
  bool accept(std::string_view text) {
    if (!is(text)) return false;
    next();
    return true;
  }
  void expect(std::string_view text) {
    if (!accept(text)) error("expected '" + std::string(text) + "' before '" + std::string(peek().text) + "'");
  }
  std::string_view word() {
    if (peek().kind != Token::Kind::Word) error("expected a name before '" + std::string(peek().text) + "'");
    return next().text;
  }
  int64_t integer();
  [[noreturn]] void error(const std::string& message) const { throw PtxError(peek().line, message); }

 private:
  std::vector<Token> tokens_;
  size_t at_ = 0;
};

// A literal: an integer, or 0f / 0d / decimal float.
PtxOperand parse_number(TokenStream& in);
// One declared variable after its space directive: [.align n] .type name[dims] [= init]
PtxVariable parse_variable(TokenStream& in, Space space);
// The statements between the braces of a function; `in` stands after the opening brace and is left after the closing one.
void parse_body(TokenStream& in, const PtxModule& module, PtxFunction& function);

}  // namespace fovea::emulator
