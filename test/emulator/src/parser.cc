#include "parser.h"

#include <bit>
#include <cstdlib>
#include <cstring>

namespace fovea::emulator {

int bytes_of_type(std::string_view type) {
  if (type == "pred") return 0;
  if (type == "f16x2" || type == "bf16x2" || type == "tf32") return 4;
  if (type == "bf16") return 2;
  if (type.size() < 2) return -1;
  const char kind = type[0];
  const std::string_view bits = type.substr(1);
  if (kind != 'b' && kind != 'u' && kind != 's' && kind != 'f') return -1;
  if (bits == "8") return kind == 'f' ? -1 : 1;
  if (bits == "16") return 2;
  if (bits == "32") return 4;
  if (bits == "64") return 8;
  if (bits == "128" && kind == 'b') return 16;
  return -1;
}

PtxOperand parse_number(TokenStream& in) {
  const bool negative = in.accept("-");
  if (in.peek().kind != Token::Kind::Number) in.error("expected a number before '" + std::string(in.peek().text) + "'");
  std::string text(in.next().text);
  PtxOperand op;
  if (text.size() == 10 && text[0] == '0' && (text[1] == 'f' || text[1] == 'F')) {
    op.kind = PtxOperand::Kind::Float32;
    op.real = std::bit_cast<float>(static_cast<uint32_t>(std::strtoull(text.c_str() + 2, nullptr, 16)));
    op.integer = static_cast<int64_t>(std::strtoull(text.c_str() + 2, nullptr, 16));
  } else if (text.size() == 18 && text[0] == '0' && (text[1] == 'd' || text[1] == 'D')) {
    op.kind = PtxOperand::Kind::Float64;
    op.integer = static_cast<int64_t>(std::strtoull(text.c_str() + 2, nullptr, 16));
    op.real = std::bit_cast<double>(op.integer);
  } else if (text.find('.') != std::string::npos) {
    if ((text.back() == 'e' || text.back() == 'E') && (in.is("-") || in.is("+"))) {
      text += in.next().text;
      text += in.next().text;
    }
    op.kind = PtxOperand::Kind::Float64;
    op.real = std::strtod(text.c_str(), nullptr);
    op.integer = std::bit_cast<int64_t>(op.real);
  } else {
    op.kind = PtxOperand::Kind::Integer;
    const bool binary = text.size() > 2 && text[0] == '0' && (text[1] == 'b' || text[1] == 'B');
    char* end = nullptr;
    op.integer = static_cast<int64_t>(std::strtoull(text.c_str() + (binary ? 2 : 0), &end, binary ? 2 : 0));
    if (*end == 'U' || *end == 'u') ++end;
    if (*end != '\0') in.error("bad number '" + text + "'");
  }
  if (negative) {
    if (op.kind == PtxOperand::Kind::Integer) {
      op.integer = static_cast<int64_t>(-static_cast<uint64_t>(op.integer));
    } else {
      op.real = -op.real;
      op.integer = op.kind == PtxOperand::Kind::Float32 ? op.integer ^ int64_t { 0x80000000 } : std::bit_cast<int64_t>(op.real);
    }
  }
  return op;
}

int64_t TokenStream::integer() {
  const PtxOperand op = parse_number(*this);
  if (op.kind != PtxOperand::Kind::Integer) error("expected an integer");
  return op.integer;
}

namespace {

void store_element(PtxVariable& var, std::vector<uint8_t>& out, const PtxOperand& value, std::string_view type) {
  uint64_t bits = static_cast<uint64_t>(value.integer);
  if (value.kind != PtxOperand::Kind::Integer && type == "f32") bits = std::bit_cast<uint32_t>(static_cast<float>(value.real));
  if (value.kind != PtxOperand::Kind::Integer && type == "f64") bits = std::bit_cast<uint64_t>(value.real);
  for (int i = 0; i < var.element_bytes; ++i) out.push_back(static_cast<uint8_t>(i < 8 ? bits >> (8 * i) : 0));
}

void parse_initializer(TokenStream& in, PtxVariable& var, std::string_view type, std::vector<uint8_t>& out) {
  if (in.accept("{")) {
    while (!in.accept("}")) {
      parse_initializer(in, var, type, out);
      in.accept(",");
    }
    return;
  }
  if (in.peek().kind == Token::Kind::Word) {
    std::string symbol(in.word());
    if (symbol == "generic") {
      in.expect("(");
      symbol = in.word();
      in.expect(")");
    }
    const int64_t offset = in.accept("+") ? in.integer() : 0;
    if (var.element_bytes != 8) in.error("the address of '" + symbol + "' needs a 64-bit element");
    var.addresses.push_back({static_cast<int64_t>(out.size()), symbol, offset});
    out.insert(out.end(), 8, 0);
    return;
  }
  store_element(var, out, parse_number(in), type);
}

Space space_of_directive(std::string_view word) {
  if (word == ".global") return Space::Global;
  if (word == ".const") return Space::Const;
  if (word == ".shared") return Space::Shared;
  return Space::Register;  // none of the three
}

class ModuleParser {
 public:
  explicit ModuleParser(PtxModule& module) : module_(module), in_(tokenize(module.text)) {}

  void run() {
    while (!in_.at_end()) directive();
    if (module_.version.empty()) in_.error("no .version directive");
    if (module_.target.empty()) in_.error("no .target directive");
  }

 private:
  void directive() {
    if (in_.accept(".version")) {
      module_.version = in_.next().text;
    } else if (in_.accept(".target")) {
      module_.target = in_.word();
      while (in_.accept(",")) in_.word();
    } else if (in_.accept(".address_size")) {
      if (in_.integer() != 64) in_.error("only 64-bit addresses are supported");
    } else if (in_.accept(".section")) {
      in_.word();
      in_.expect("{");
      while (!in_.accept("}")) in_.next();
    } else if (in_.accept(".pragma")) {
      skip_statement();
    } else {
      declaration();
    }
  }

  void skip_statement() {
    while (!in_.accept(";")) {
      if (in_.at_end()) in_.error("expected ';'");
      in_.next();
    }
  }

  void declaration() {
    bool external = false;
    for (;;) {
      if (in_.accept(".extern")) {
        external = true;
      } else if (!in_.accept(".visible") && !in_.accept(".weak") && !in_.accept(".common")) {
        break;
      }
    }
    if (in_.is(".entry") || in_.is(".func")) return function(external);
    const Space space = space_of_directive(in_.peek().text);
    if (space == Space::Register) in_.error("unknown directive '" + std::string(in_.peek().text) + "'");
    in_.next();
    PtxVariable var = parse_variable(in_, space);
    var.external = external;
    in_.expect(";");
    module_.variable_index[var.name] = static_cast<int>(module_.variables.size());
    module_.variables.push_back(std::move(var));
  }

  std::vector<PtxVariable> parameters() {
    std::vector<PtxVariable> list;
    if (!in_.accept("(")) return list;
    while (!in_.accept(")")) {
      in_.expect(".param");
      list.push_back(parse_variable(in_, Space::Param));
      in_.accept(",");
    }
    return list;
  }

  void function(bool external) {
    PtxFunction f;
    f.line = in_.peek().line;
    f.entry = in_.next().is(".entry");
    f.external = external;
    if (!f.entry) f.results = parameters();
    f.name = in_.word();
    f.params = parameters();
    for (; !in_.is("{") && !in_.is(";"); in_.next()) {
      if (!in_.is(".maxntid") && !in_.is(".reqntid")) {
        if (in_.at_end()) in_.error("expected the body of '" + f.name + "'");
        continue;
      }
      in_.next();
      f.max_threads = static_cast<int>(in_.integer());
      while (in_.is(",")) {
        in_.next();
        f.max_threads *= static_cast<int>(in_.integer());
      }
      if (in_.is("{") || in_.is(";")) break;
    }
    if (in_.accept(";")) {
      f.external = true;
    } else {
      in_.expect("{");
      for (auto* list : {&f.params, &f.results}) f.variables.insert(f.variables.end(), list->begin(), list->end());
      parse_body(in_, module_, f);
    }
    add(std::move(f));
  }

  void add(PtxFunction f) {
    const auto found = module_.function_index.find(f.name);
    if (found == module_.function_index.end()) {
      module_.function_index[f.name] = static_cast<int>(module_.functions.size());
      module_.functions.push_back(std::move(f));
    } else if (module_.functions[found->second].external) {
      module_.functions[found->second] = std::move(f);
    } else if (!f.external) {
      throw PtxError(f.line, "function '" + f.name + "' is defined twice");
    }
  }

  PtxModule& module_;
  TokenStream in_;
};

}  // namespace

PtxVariable parse_variable(TokenStream& in, Space space) {
  PtxVariable var;
  var.space = space;
  int align = 0, vector = 1;
  std::string_view type;
  for (;;) {
    const std::string_view word = in.word();
    if (word == ".align") {
      align = static_cast<int>(in.integer());
    } else if (word == ".v2" || word == ".v4") {
      vector = word[2] - '0';
    } else if (word[0] == '.' && bytes_of_type(word.substr(1)) > 0) {
      type = word.substr(1);
    } else if (word[0] != '.') {
      var.name = word;
      break;
    }  // .ptr .global .const .shared .attribute: hints about pointers
  }
  if (type.empty()) in.error("variable '" + var.name + "' has no type");
  var.element_bytes = bytes_of_type(type);
  var.align = align ? align : var.element_bytes * vector;
  var.bytes = var.element_bytes * vector;
  bool unsized = false;
  while (in.accept("[")) {
    if (in.accept("]")) {
      unsized = true;
      continue;
    }
    var.bytes *= in.integer();
    in.expect("]");
  }
  if (in.accept("=")) {
    parse_initializer(in, var, type, var.init);
    if (unsized) var.bytes = static_cast<int64_t>(var.init.size());
    if (static_cast<int64_t>(var.init.size()) > var.bytes) in.error("too many initialisers for '" + var.name + "'");
    var.init.resize(static_cast<size_t>(var.bytes));
  } else if (unsized) {
    var.bytes = 0;
  }
  return var;
}

std::unique_ptr<PtxModule> parse_ptx(std::string text) {
  auto module = std::make_unique<PtxModule>();
  module->text = std::move(text);
  for (size_t at = 0; at < module->text.size();) {
    size_t end = module->text.find('\n', at);
    if (end == std::string::npos) end = module->text.size();
    module->lines.push_back(std::string_view(module->text).substr(at, end - at));
    at = end + 1;
  }
  ModuleParser(*module).run();
  return module;
}

}  // namespace fovea::emulator
