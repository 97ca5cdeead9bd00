// What one JavaScript environment (the main thread or a worker) has: its tensor handles and the promises it waits for.
//
// A handle is a number: slot index plus a generation, so that a handle used after its release is an error and never somebody else's tensor.
// Promises are settled on the environment's own thread through one thread-safe function, which keeps the event loop alive only while
// something is pending.
#pragma once

#include <node_api.h>

#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "core/stream.h"
#include "core/tensor.h"
#include "napi/streams.h"

namespace fovea::napi {

// A promise to be settled from any thread. `keep` (may be null) is held until then and is what a success resolves to. Without a promise
// (null) it is only held.
struct Pending {
  napi_deferred deferred = nullptr;
  napi_ref keep = nullptr;
};

// The mailbox of settled promises. It outlives the environment, so that a task finishing late finds a closed door instead of freed memory.
class Completions {
 public:
  void settle(Pending* pending, std::shared_ptr<const Error> error);

 private:
  friend class Environment;
  struct Done {
    Pending* pending;
    std::shared_ptr<const Error> error;
  };
  std::mutex mutex_;
  std::vector<Done> done_;
  napi_threadsafe_function wake_ = nullptr;
  bool open_ = true;
};

class Environment {
 public:
  static Environment& of(napi_env env);
  explicit Environment(napi_env env);
  ~Environment();
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

  double add(Tensor tensor);
  // Throws ERR_DISPOSED for a handle that was released, ERR_ARGUMENT for what never was one.
  const Tensor& get(double handle) const;
  void release(double handle);
  int64_t handle_count() const { return live_; }

  // Tells V8 how much memory the handles of this environment keep alive; cheap, acts on large changes only. Not between begin_scope() and
  // end_scope(): a collector can't free what a scope is going to, and would run once a scope for tensors of 64 MiB or more.
  void report_memory();
  void begin_scope() { scopes_++; }
  void end_scope() { scopes_--; }

  Pending* make_promise(napi_value keep, napi_value* promise);
  // Holds a value until it is settled, which nobody is told; the event loop does not wait for it.
  Pending* hold(napi_value keep);
  const std::shared_ptr<Completions>& completions() const { return completions_; }

  Streams& streams() { return streams_; }

  napi_value make_error(const Error& error);
  void set_error_class(napi_value constructor);

  // Calls between begin_abortable() and end_abortable() belong to the returned id and stop once abort(id) is called, those of pairs nested
  // between them too. Their errors are made with `options`, an object that is the third argument of the error class; where another
  // environment reads what failed, without.
  double begin_abortable();
  void end_abortable();
  void abort(double id, napi_value options);
  void forget_abortable(double id);

  // Handing tensors to other threads: take_exported(export_tensor(h)) moves a view; each id can be taken once, by any environment. Borrowed
  // memory, which goes with its environment, can't be handed on.
  double export_tensor(double handle);
  Tensor take_exported(double id);

 private:
  struct Slot {
    Tensor tensor;
    uint32_t generation = 0;
  };
  struct Abortable {
    double id, outer;  // outer: the one it is nested in, or 0
    CancelToken token;
  };

  // Drops or finishes queued work and closes the mailbox, while the ArrayBuffers tasks write into are still there.
  static void close(void* self);
  static void on_completions(napi_env env, napi_value callback, void* context, void* data);
  void drain();
  Abortable* current_abortable();

  napi_env env_;
  std::vector<Slot> slots_;
  std::vector<uint32_t> free_;
  int64_t live_ = 0, live_bytes_ = 0, reported_bytes_ = 0, scopes_ = 0;
  std::shared_ptr<Completions> completions_;
  int64_t pending_ = 0;
  napi_ref error_class_ = nullptr;
  CancelToken own_token_;
  std::vector<Abortable> abortables_;  // an outer one before those nested in it
  double next_abort_id_ = 1, current_abort_id_ = 0;
  bool shares_ = false;  // tensors with other environments
  Streams streams_;
};

}  // namespace fovea::napi
