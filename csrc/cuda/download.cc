#include "cuda/download.h"

#include <future>
#include <memory>

#include "cuda/device.h"

namespace fovea::cuda {

void download(Stream& stream, void* to, const void* from, size_t bytes) {
  if (bytes == 0) return;
  auto finished = std::make_shared<std::promise<std::shared_ptr<const Error>>>();
  Device::get(stream.device().ordinal).download(to, from, bytes, [finished](std::shared_ptr<const Error> error) {
    finished->set_value(std::move(error));
  });
  if (const auto error = finished->get_future().get()) throw Error(*error);
}

}  // namespace fovea::cuda
