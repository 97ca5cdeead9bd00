// What a function throws, as a value: errors travel between threads as shared pointers.
#pragma once

#include <memory>

#include "core/error.h"

namespace fovea {

// What body() throws, or null. `what` begins the message of an exception that is not an Error.
template <class Body>
std::shared_ptr<const Error> error_of(const char* what, Body&& body) {
  try {
    body();
    return nullptr;
  } catch (const Error& e) {
    return std::make_shared<const Error>(e);
  } catch (const std::exception& e) {
    return std::make_shared<const Error>("ERR_INTERNAL", std::string(what) + ": " + e.what());
  }
}

}  // namespace fovea
