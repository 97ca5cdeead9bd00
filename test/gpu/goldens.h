// Golden cases as scripts/gpu-goldens.ts leaves them: cases.txt with one item a line, and data.bin with the arrays.
//   case KIND NAME | number KEY VALUE | array KEY TYPE OFFSET COUNT, in bytes and elements; TYPE is f64, i32 or u8
#pragma once

#include <fstream>
#include <iterator>
#include <sstream>

#include "core/error.h"
#include "gpu.h"

namespace fovea::gpu {

class Golden {
 public:
  std::string kind, name;
  std::map<std::string, double> numbers;

  bool has(const std::string& key) const { return arrays_.count(key) > 0; }
  int64_t integer(const std::string& key) const {
    const auto found = numbers.find(key);
    check(found != numbers.end(), "ERR_FILE_FORMAT", "golden case ", name, " has no number ", key);
    return static_cast<int64_t>(found->second);
  }
  // Empty without such an array. T is the element type of the file: double, int32_t or uint8_t.
  template <class T>
  std::vector<T> array(const std::string& key) const {
    const auto found = arrays_.find(key);
    if (found == arrays_.end()) return {};
    const Array& a = found->second;
    check(a.type == (sizeof(T) == 8   ? "f64"
                     : sizeof(T) == 4 ? "i32"
                                      : "u8"),
          "ERR_FILE_FORMAT", "golden case ", name, ": ", key, " is ", a.type);
    std::vector<T> values(a.count);
    check(a.offset + a.count * sizeof(T) <= data_->size(), "ERR_FILE_FORMAT", "golden case ", name, ": ", key, " lies outside the data");
    std::memcpy(values.data(), data_->data() + a.offset, a.count * sizeof(T));
    return values;
  }

  static std::vector<Golden> read(const std::string& folder) {
    std::ifstream index(folder + "/cases.txt"), file(folder + "/data.bin", std::ios::binary);
    check(index && file, "ERR_ARGUMENT", "no golden cases in '", folder, "'");
    const auto data = std::make_shared<const std::string>(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    std::vector<Golden> cases;
    for (std::string line; std::getline(index, line);) {
      std::istringstream in(line);
      std::string item, key;
      in >> item >> key;
      if (item == "case") {
        cases.emplace_back();
        cases.back().kind = key, cases.back().data_ = data;
        std::getline(in >> std::ws, cases.back().name);
      } else if (item == "number") {
        in >> cases.back().numbers[key];
      } else {
        Array& a = cases.back().arrays_[key];
        in >> a.type >> a.offset >> a.count;
      }
      check(!in.fail(), "ERR_FILE_FORMAT", folder, "/cases.txt: '", line, "'");
    }
    return cases;
  }

 private:
  struct Array {
    std::string type;
    size_t offset, count;
  };
  std::map<std::string, Array> arrays_;
  std::shared_ptr<const std::string> data_;
};

}  // namespace fovea::gpu
