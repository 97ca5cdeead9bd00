#include "lexer.h"

#include <cctype>

#include "ptx.h"

namespace fovea::emulator {

namespace {

bool starts_word(char c) { return std::isalpha(static_cast<unsigned char>(c)) || c == '_' || c == '$' || c == '%' || c == '.'; }
bool in_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '$' || c == '.' || c == '%'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

class Lexer {
 public:
  explicit Lexer(std::string_view text) : text_(text) {}

  std::vector<Token> run() {
    for (skip_blank(); at_ < text_.size(); skip_blank()) {
      const char c = text_[at_];
      if (starts_word(c) && !(c == '.' && is_digit(peek(1)))) {
        word();
      } else if (is_digit(c) || c == '.') {
        take(Token::Kind::Number, [](char d) { return std::isalnum(static_cast<unsigned char>(d)) || d == '.'; });
      } else if (c == '"') {
        string();
      } else {
        tokens_.push_back({Token::Kind::Punctuation, text_.substr(at_++, 1), line_});
      }
    }
    tokens_.push_back({Token::Kind::End, {}, line_});
    return std::move(tokens_);
  }

 private:
  char peek(size_t n) const { return at_ + n < text_.size() ? text_[at_ + n] : '\0'; }

  void skip_blank() {
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '\n') ++line_;
      if (std::isspace(static_cast<unsigned char>(c)) || c == '\0') {
        ++at_;
      } else if (c == '/' && peek(1) == '/') {
        skip_line();
      } else if (c == '/' && peek(1) == '*') {
        const size_t end = text_.find("*/", at_ + 2);
        if (end == std::string_view::npos) throw PtxError(line_, "unterminated comment");
        for (; at_ < end + 2; ++at_) line_ += text_[at_] == '\n';
      } else {
        return;
      }
    }
  }

  void skip_line() {
    while (at_ < text_.size() && text_[at_] != '\n') ++at_;
  }

  template <class F>
  void take(Token::Kind kind, F&& part) {
    const size_t begin = at_++;
    while (at_ < text_.size() && part(text_[at_])) ++at_;
    tokens_.push_back({kind, text_.substr(begin, at_ - begin), line_});
  }

  void word() {
    const size_t begin = at_++;
    while (at_ < text_.size() && (in_word(text_[at_]) || (text_[at_] == ':' && (peek(1) == ':' || text_[at_ - 1] == ':')))) ++at_;
    std::string_view word = text_.substr(begin, at_ - begin);
    for (size_t dot; word[0] == '.' && (dot = word.find('.', 1)) != std::string_view::npos;) {  // .reg.b32
      tokens_.push_back({Token::Kind::Word, word.substr(0, dot), line_});
      word.remove_prefix(dot);
    }
    if (word == ".loc" || word == ".file") return skip_line();
    tokens_.push_back({Token::Kind::Word, word, line_});
  }

  void string() {
    const size_t begin = ++at_;
    while (at_ < text_.size() && text_[at_] != '"') at_ += text_[at_] == '\\' ? 2 : 1;
    if (at_ >= text_.size()) throw PtxError(line_, "unterminated string");
    tokens_.push_back({Token::Kind::String, text_.substr(begin, at_++ - begin), line_});
  }

  std::string_view text_;
  size_t at_ = 0;
  int line_ = 1;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view text) { return Lexer(text).run(); }

}  // namespace fovea::emulator
