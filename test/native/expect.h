// Counts what did not hold; a program ends with `failures != 0`.
#pragma once

#include <cstdio>

namespace {

int failures = 0;

void expect(bool ok, const char* what) {
  if (ok) return;
  std::printf("FAILED: %s\n", what);
  failures++;
}

}  // namespace
