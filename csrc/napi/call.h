// One call from JavaScript, as ops see it (core/op.h). Tensor arguments are handles; null and undefined stand for "absent".
#pragma once

#include <node_api.h>

#include <new>

#include "core/op.h"
#include "napi/environment.h"

namespace fovea::napi {

class JsCall final : public Call {
 public:
  static constexpr size_t kMaxArguments = 48;

  JsCall(napi_env env, napi_callback_info info);
  napi_env env() const { return env_; }
  void* data() const { return data_; }
  void is_of(const char* name) { name_ = name; }
  napi_value value(int i) const { return args_[i]; }
  napi_value result() const { return result_; }
  Environment& environment() const { return environment_; }

  bool is_null(int i) override;
  const Tensor& tensor(int i) override;
  std::vector<Tensor> tensors(int i) override;
  double number(int i) override;
  int64_t integer(int i) override;
  bool boolean(int i) override;
  std::string text(int i) override;
  std::vector<int64_t> integers(int i) override;
  Bytes bytes(int i) override;

  void give(Tensor t) override;
  void give(std::vector<Tensor> ts) override;
  void give(double x) override;
  void give(bool x) override;
  void give(const std::string& s) override;
  void give(const std::vector<int64_t>& v) override;
  void give(napi_value v) { result_ = v; }

 private:
  [[noreturn]] void wrong(int i, const char* expected);
  int64_t whole(double x, int i) const;

  napi_env env_;
  Environment& environment_;
  size_t count_ = kMaxArguments;
  napi_value args_[kMaxArguments];
  void* data_ = nullptr;
  const char* name_ = "fovea";  // of the function called, for messages
  napi_value result_ = nullptr;
};

// Runs body(call), turning C++ exceptions into a thrown FoveaError.
template <class Body>
napi_value guarded(napi_env env, napi_callback_info info, Body&& body) {
  try {
    JsCall call(env, info);
    body(call);
    call.environment().report_memory();
    return call.result();
  } catch (const Error& e) {
    napi_throw(env, Environment::of(env).make_error(e));
  } catch (const std::bad_alloc&) {
    napi_throw(env, Environment::of(env).make_error(Error("ERR_OOM", "out of memory")));
  } catch (const std::exception& e) {
    napi_throw(env, Environment::of(env).make_error(Error("ERR_INTERNAL", e.what())));
  }
  return nullptr;
}

}  // namespace fovea::napi
