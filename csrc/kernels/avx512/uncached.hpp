// Storing long outputs past the caches.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "base/isa.hpp"

namespace pppml::kernels::avx512 {
PPPML_ISA_BEGIN

// Outputs of this many bytes, counted per thread, go past the caches, which would otherwise first read what is
// overwritten.
constexpr std::size_t kUncachedBytes = std::size_t{1} << 23;

// Like memcpy, past the caches. Needs a fence before others read it.
inline void copy_uncached(const std::uint8_t* in, std::size_t bytes, std::uint8_t* out) {
  constexpr std::size_t kLine = 64;
  const std::size_t head = std::min(bytes, (kLine - reinterpret_cast<std::uintptr_t>(out) % kLine) % kLine);
  std::memcpy(out, in, head);
  std::size_t at = head;
  for (; at + kLine <= bytes; at += kLine) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(out + at), _mm512_loadu_si512(in + at));
  }
  std::memcpy(out + at, in + at, bytes - at);
}

PPPML_ISA_END
}  // namespace pppml::kernels::avx512
