// Streams of JavaScript (core/lane.h): the handles of one environment, and the exports that deal with them.
#pragma once

#include <memory>
#include <unordered_map>

#include "core/lane.h"

namespace fovea::napi {

class JsCall;

class Streams {
 public:
  ~Streams();
  double add(std::shared_ptr<Lane> lane);
  double add(std::shared_ptr<LaneEvent> event);
  // Throws ERR_DISPOSED for a stream that was closed.
  const std::shared_ptr<Lane>& lane(double handle) const;
  const std::shared_ptr<LaneEvent>& event(double handle) const;
  // A lane that this thread has entered and not left can't be closed: ERR_ARGUMENT.
  void close(double handle);
  void forget_event(double handle) { events_.erase(handle); }

 private:
  double next_ = 1;
  std::unordered_map<double, std::shared_ptr<Lane>> lanes_;
  std::unordered_map<double, std::shared_ptr<LaneEvent>> events_;
};

void stream_open(JsCall&);
void stream_default(JsCall&);
void stream_close(JsCall&);
void stream_enter(JsCall&);
void stream_leave(JsCall&);
void stream_record(JsCall&);
void stream_wait(JsCall&);
void stream_done(JsCall&);
void stream_done_sync(JsCall&);
void event_done(JsCall&);
void event_done_sync(JsCall&);
void event_release(JsCall&);

}  // namespace fovea::napi
