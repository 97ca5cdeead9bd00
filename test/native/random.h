// Random numbers of a test: the same in every run.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

namespace {

std::mt19937_64 engine{1};

inline int64_t uniform(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(engine); }
inline bool chance(double p) { return std::uniform_real_distribution<>(0, 1)(engine) < p; }

inline std::vector<double> normals(int64_t count) {
  std::normal_distribution<double> normal;
  std::vector<double> x(static_cast<size_t>(count));
  for (double& value : x) value = normal(engine);
  return x;
}
inline std::vector<double> whole_numbers(int64_t count, int64_t low, int64_t high) {
  std::vector<double> x(static_cast<size_t>(count));
  for (double& value : x) value = static_cast<double>(uniform(low, high));
  return x;
}

}  // namespace
