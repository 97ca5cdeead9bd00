// Errors that cross into JavaScript as FoveaError. Codes are those of lib/errors.ts.
#pragma once

#include <exception>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

namespace fovea {

class Error : public std::exception {
 public:
  Error(const char* code, std::string message, std::shared_ptr<const void> cause = nullptr)
      : code_(code), message_(std::move(message)), cause_(std::move(cause)) {}
  const char* code() const { return code_; }
  const char* what() const noexcept override { return message_.c_str(); }
  // Of an aborted call: what the binding knows its signal by (napi/environment.h). Else null.
  const std::shared_ptr<const void>& cause() const { return cause_; }

 private:
  const char* code_;
  std::string message_;
  std::shared_ptr<const void> cause_;
};

namespace detail {
inline std::string text(const std::string& s) { return s; }
inline std::string text(char c) { return std::string(1, c); }
inline std::string text(bool b) { return b ? "true" : "false"; }
template <class T>
std::string text(const T& v) {
  if constexpr (std::is_convertible_v<T, const char*>) return std::string(static_cast<const char*>(v));
  else if constexpr (std::is_convertible_v<T, std::string>) return v;
  else return std::to_string(v);
}
}  // namespace detail

// fail("ERR_SHAPE", "matmul: inner sizes differ: ", k1, " and ", k2)
template <class... Parts>
[[noreturn]] void fail(const char* code, const Parts&... parts) {
  std::string message;
  ((message += detail::text(parts)), ...);
  throw Error(code, std::move(message));
}

template <class... Parts>
void check(bool ok, const char* code, const Parts&... parts) {
  if (!ok) fail(code, parts...);
}

}  // namespace fovea
