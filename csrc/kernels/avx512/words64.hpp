// Eight 64-bit words at a time.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "base/isa.hpp"

namespace pppml::kernels::avx512 {
PPPML_ISA_BEGIN

constexpr std::size_t kLanes64 = 8;

inline __m512i broadcast64(std::uint64_t value) {
  return _mm512_set1_epi64(static_cast<long long>(value));
}

inline __m512i load_words(const void* p, __mmask8 lanes) {
  return _mm512_maskz_loadu_epi64(lanes, p);
}

// Eight 32-bit integers, sign-extended.
inline __m512i load_small(const std::int32_t* p, __mmask8 lanes) {
  return _mm512_cvtepi32_epi64(_mm256_maskz_loadu_epi32(lanes, p));
}

// x in [0, 2 bound) -> [0, bound): below the bound the difference wraps, so the minimum picks the right one.
inline __m512i reduce_words(__m512i x, __m512i bound) {
  return _mm512_min_epu64(x, _mm512_sub_epi64(x, bound));
}

PPPML_ISA_END
}  // namespace pppml::kernels::avx512
