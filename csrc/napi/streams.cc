#include "napi/streams.h"

#include <algorithm>
#include <future>
#include <vector>

#include "napi/call.h"

namespace fovea::napi {
namespace {

Streams& streams(JsCall& call) { return call.environment().streams(); }
const std::shared_ptr<Lane>& lane(JsCall& call) { return streams(call).lane(call.number(0)); }
const std::shared_ptr<LaneEvent>& event(JsCall& call) { return streams(call).event(call.number(0)); }
Device device_of(JsCall& call) { return Device::from_code(call.integer(0)); }

// Gives a promise that settles when `of` calls back.
template <class T>
void promise(JsCall& call, T& of) {
  napi_value promise;
  Pending* pending = call.environment().make_promise(nullptr, &promise);
  of.when_done([pending, completions = call.environment().completions()](std::shared_ptr<const Error> error) {
    completions->settle(pending, std::move(error));
  });
  call.give(promise);
}

template <class T>
void block(T& on) {
  std::promise<std::shared_ptr<const Error>> arrived;
  on.when_done([&arrived](std::shared_ptr<const Error> error) { arrived.set_value(std::move(error)); });
  if (auto error = arrived.get_future().get()) throw Error(*error);
}

// What was current before, with its device, for the calls of streamEnter() that this thread has not left.
thread_local std::vector<std::pair<Device, std::shared_ptr<Lane>>> entered;

}  // namespace

Streams::~Streams() {
  for (auto& [handle, lane] : lanes_)
    if (!lane->is_default) lane->close();
}

double Streams::add(std::shared_ptr<Lane> lane) {
  lanes_.emplace(next_, std::move(lane));
  return next_++;
}

double Streams::add(std::shared_ptr<LaneEvent> event) {
  events_.emplace(next_, std::move(event));
  return next_++;
}

const std::shared_ptr<Lane>& Streams::lane(double handle) const {
  const auto found = lanes_.find(handle);
  check(found != lanes_.end(), "ERR_DISPOSED", "the stream was disposed (by dispose() or `using`); open another with new Stream()");
  return found->second;
}

const std::shared_ptr<LaneEvent>& Streams::event(double handle) const {
  const auto found = events_.find(handle);
  check(found != events_.end(), "ERR_DISPOSED", "the event was disposed");
  return found->second;
}

void Streams::close(double handle) {
  const auto found = lanes_.find(handle);
  if (found == lanes_.end()) return;
  const std::shared_ptr<Lane> lane = found->second;
  const bool running = Lane::current(lane->device) == lane ||
                       std::any_of(entered.begin(), entered.end(), [&](const auto& before) { return before.second == lane; });
  check(!running, "ERR_ARGUMENT", "dispose(): the stream is running a function; dispose it after run() returned");
  lanes_.erase(found);
  if (!lane->is_default) lane->close();
}

void stream_open(JsCall& call) { call.give(streams(call).add(Lane::open(device_of(call)))); }
void stream_default(JsCall& call) { call.give(streams(call).add(Lane::default_of(device_of(call)))); }
void stream_close(JsCall& call) { streams(call).close(call.number(0)); }

void stream_enter(JsCall& call) {
  const auto& to = lane(call);
  entered.emplace_back(to->device, Lane::set_current(to->device, to));
}

void stream_leave(JsCall&) {
  auto [device, before] = std::move(entered.back());
  entered.pop_back();
  Lane::set_current(device, std::move(before));
}

void stream_record(JsCall& call) { call.give(streams(call).add(lane(call)->record())); }

void stream_wait(JsCall& call) {
  const auto& event = streams(call).event(call.number(1));
  check(event->device == lane(call)->device, "ERR_DEVICE", "wait: the stream is on ", name_of(lane(call)->device), ", the event on ",
        name_of(event->device), "; tensors that move between devices are waited for without it");
  lane(call)->wait(event);
}

void stream_done(JsCall& call) { promise(call, *lane(call)); }
void stream_done_sync(JsCall& call) { block(*lane(call)); }
void event_done(JsCall& call) { promise(call, *event(call)); }
void event_done_sync(JsCall& call) { block(*event(call)); }
void event_release(JsCall& call) { streams(call).forget_event(call.number(0)); }

}  // namespace fovea::napi
