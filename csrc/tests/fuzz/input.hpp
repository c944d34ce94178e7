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

// Writes an edge of the range of residues into a packed row of `count` residues of `bits`: chance alone hits a prime of
// 31 bits once in 2^31. `choice` names the edge (none, q - 1, q, all bits set) and the place.
inline void put_edge(std::uint8_t* row, std::size_t count, unsigned bits, std::uint64_t modulus, std::uint8_t choice) {
  if (choice % 4 == 0 || count == 0) return;
  const std::uint64_t edges[] = {0, modulus - 1, modulus, (std::uint64_t{1} << bits) - 1};
  const std::size_t first = choice / 4 % count * bits;
  for (unsigned i = 0; i < bits; ++i) {
    const auto mask = static_cast<std::uint8_t>(1u << (first + i) % 8);
    std::uint8_t& byte = row[(first + i) / 8];
    byte = static_cast<std::uint8_t>((edges[choice % 4] >> i & 1) != 0 ? byte | mask : byte & ~mask);
  }
}

// A difference between backends, or between what was read and what is written again: a finding.
inline void check(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "FINDING: %s\n", what);
  std::abort();
}

}  // namespace pppml::fuzz
