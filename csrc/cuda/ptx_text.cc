// An entry point spans from its `.visible .entry` to the closing brace of its body. Braces in comments don't count; nvcc writes no others
// outside bodies but in initialisers, which are balanced.
#include "cuda/ptx_text.h"

#include "core/error.h"

namespace fovea::cuda {
namespace {

constexpr std::string_view kEntry = ".visible .entry ";

// The position behind the body that starts at the first brace from `at`.
size_t end_of_body(std::string_view text, size_t at) {
  int depth = 0;
  for (; at < text.size(); at++) {
    if (text[at] == '/' && text.compare(at, 2, "//") == 0) at = text.find('\n', at);
    else if (text[at] == '{') depth++;
    else if (text[at] == '}' && --depth == 0) return at + 1;
    if (at == std::string::npos) break;
  }
  return text.size();
}

std::string_view trimmed(std::string_view s) {
  while (!s.empty() && (s.front() == ' ' || s.front() == '\t')) s.remove_prefix(1);
  while (!s.empty() && (s.back() == ' ' || s.back() == '\t' || s.back() == ';' || s.back() == '\r')) s.remove_suffix(1);
  return s;
}

}  // namespace

std::string cut_entry(std::string_view module, const std::string& entry) {
  std::string out;
  bool found = false;
  size_t from = 0;
  for (size_t at; (at = module.find(kEntry, from)) != std::string::npos;) {
    const size_t name = at + kEntry.size(), name_end = module.find_first_of("( \t\n", name), end = end_of_body(module, at);
    const bool wanted = module.compare(name, name_end - name, entry) == 0;
    found |= wanted;
    out.append(module, from, (wanted ? end : at) - from);
    from = end;
  }
  check(found, "ERR_INTERNAL", "no entry point ", entry, " in its file");
  return out.append(module, from, std::string::npos);
}

std::string spliced(const std::string& module, const Splice& splice) {
  std::string out;
  size_t from = 0;
  for (size_t at; (at = module.find("//@", from)) != std::string::npos;) {
    const size_t line = module.rfind('\n', at) + 1, end = std::min(module.find('\n', at), module.size());
    std::string_view rest = trimmed(std::string_view(module).substr(at + 3, end - at - 3));
    const size_t space = std::min(rest.find_first_of(" \t"), rest.size());
    const std::string_view name = rest.substr(0, space);
    rest.remove_prefix(space);
    std::vector<std::string_view> operands;
    while (!(rest = trimmed(rest)).empty()) {
      const size_t comma = std::min(rest.find(','), rest.size());
      operands.push_back(trimmed(rest.substr(0, comma)));
      rest.remove_prefix(std::min(comma + 1, rest.size()));
    }
    out.append(module, from, line - from);
    out += splice.expand(module, name, operands);
    from = end;
  }
  return out.append(module, from, std::string::npos);
}

}  // namespace fovea::cuda
