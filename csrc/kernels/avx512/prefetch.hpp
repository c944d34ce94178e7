// Fetching what the next block reads while this one keeps the arithmetic units busy.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace pppml::kernels::avx512 {

struct MemoryRun {
  const void* begin = nullptr;
  std::size_t bytes = 0;
};

class Prefetcher {
 public:
  explicit Prefetcher(const MemoryRun& first, const MemoryRun& second = {}) : runs_{first, second} {}

  // One of `parts` parts, into the second cache: the first one is full of this block.
  void fetch(std::size_t part, std::size_t parts) const {
    constexpr std::size_t kLine = 64;
    for (const MemoryRun& run : runs_) {
      const std::size_t step = (run.bytes / parts + kLine) / kLine * kLine;
      const auto* begin = static_cast<const char*>(run.begin);
      for (std::size_t at = part * step; at < (part + 1) * step && at < run.bytes; at += kLine) {
        _mm_prefetch(begin + at, _MM_HINT_T1);
      }
    }
  }

 private:
  MemoryRun runs_[2];
};

}  // namespace pppml::kernels::avx512
