// What a fuzz target reads its input with, and how it says that something is wrong.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace pppml::fuzz {

// Values off the front of an input; zeros past its end.
class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}

  template <class Number>
  Number take() {
    Number value{};
    const std::size_t count = std::min(sizeof(Number), size_);
    if (count > 0) std::memcpy(&value, data_, count);
    skip(count);
    return value;
  }

  std::size_t left() const { return size_; }

  std::vector<std::uint8_t> take_bytes(std::size_t most) {
    const std::size_t count = std::min(most, size_);
    const std::vector<std::uint8_t> bytes(data_, data_ + count);
    skip(count);
    return bytes;
  }

 private:
  void skip(std::size_t count) {
    data_ += count;
    size_ -= count;
  }

  const std::uint8_t* data_;
  std::size_t size_;
};

// A difference between backends, or between what was read and what is written again: a finding.
inline void check(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "FINDING: %s\n", what);
  std::abort();
}

}  // namespace pppml::fuzz
