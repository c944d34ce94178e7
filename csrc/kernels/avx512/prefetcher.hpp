// Memory that is needed soon, asked for a few lines at a time between arithmetic. Blocks are read and written in
// bursts, and no prefetcher of the processor looks across the borders of pages.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstddef>

#include "kernels/contract.hpp"

namespace pppml::kernels::avx512 {

class Prefetcher {
 public:
  // What is announced is spread over `steps` steps.
  explicit Prefetcher(std::size_t steps) : steps_(steps) {}

  void restart() { count_ = 0; }
  void read(const void* data, std::size_t bytes) { announce(data, bytes, false); }
  void write(const void* data, std::size_t bytes) { announce(data, bytes, true); }

  // A transform's source of chunks with a step before each; `source` must outlive it.
  template <class Source>
  auto before(const Source& source) {
    return [this, &source](std::size_t chunk, auto* x) {
      step();
      source(chunk, x);
    };
  }

  void step() {
    for (std::size_t i = 0; i < count_; ++i) {
      Range& range = ranges_[i];
      const char* const end = std::min(range.next + range.step_bytes, range.end);
      if (range.written) {
        for (; range.next < end; range.next += kLine) __builtin_prefetch(range.next, 1, 3);
      } else {
        for (; range.next < end; range.next += kLine) _mm_prefetch(range.next, _MM_HINT_T1);
      }
    }
  }

 private:
  static constexpr std::size_t kLine = 64, kMostRanges = 8;

  struct Range {
    const char* next;
    const char* end;
    std::size_t step_bytes;
    bool written;
  };

  void announce(const void* data, std::size_t bytes, bool written) {
    if (bytes == 0 || count_ == kMostRanges) return;
    const std::size_t lines = (bytes + steps_ * kLine - 1) / (steps_ * kLine);
    const char* const start = static_cast<const char*>(data);
    ranges_[count_++] = {start, start + bytes, lines * kLine, written};
  }

  std::size_t steps_, count_ = 0;
  Range ranges_[kMostRanges];
};

// Says where an opening writes the values of block b, of N coefficients each.
inline void announce_values(const OpenTarget& target, std::size_t degree, std::size_t b, Prefetcher& soon) {
  const std::size_t values = degree * target.values_per_coefficient, at = b * values;
  const std::size_t count = at < target.count ? std::min(values, target.count - at) : 0;
  if (target.integers != nullptr) soon.write(target.integers + at, count * sizeof *target.integers);
  if (target.singles != nullptr) soon.write(target.singles + at, count * sizeof *target.singles);
  if (target.doubles != nullptr) soon.write(target.doubles + at, count * sizeof *target.doubles);
}

}  // namespace pppml::kernels::avx512
