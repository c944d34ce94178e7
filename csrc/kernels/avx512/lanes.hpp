// Sixteen 32-bit residues at a time. q < 2^31; ranges as in base/modular.hpp.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace pppml::kernels::avx512 {

constexpr std::size_t kLanes = 16;

using Vector = __m512i;

inline Vector load(const std::uint32_t* p) {
  return _mm512_loadu_si512(p);
}
inline void store(std::uint32_t* p, Vector v) {
  _mm512_storeu_si512(p, v);
}
inline Vector broadcast(std::uint32_t value) {
  return _mm512_set1_epi32(static_cast<int>(value));
}

// x in [0, 2q) -> [0, q): below q the difference wraps to a number above 2^31, so the minimum picks the right one.
inline Vector reduce_once(Vector x, Vector q) {
  return _mm512_min_epu32(x, _mm512_sub_epi32(x, q));
}

inline Vector add_mod(Vector a, Vector b, Vector q) {
  return reduce_once(_mm512_add_epi32(a, b), q);
}

// a - b mod q in [0, q), for a and b in [0, q): a wrapped difference is the larger one.
inline Vector subtract_mod(Vector a, Vector b, Vector q) {
  const Vector difference = _mm512_sub_epi32(a, b);
  return _mm512_min_epu32(difference, _mm512_add_epi32(difference, q));
}

// High halves of sixteen 32 x 32-bit products.
inline Vector multiply_high(Vector a, Vector b) {
  const Vector even = _mm512_mul_epu32(a, b);
  const Vector odd = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), _mm512_srli_epi64(b, 32));
  return _mm512_mask_blend_epi32(0xAAAA, _mm512_srli_epi64(even, 32), odd);
}

// a any, w in [0, q) with Shoup companion -> a w mod q in [0, q)
inline Vector multiply_shoup(Vector a, Vector w, Vector companion, Vector q) {
  const Vector quotient = multiply_high(a, companion);
  const Vector product = _mm512_sub_epi32(_mm512_mullo_epi32(a, w), _mm512_mullo_epi32(quotient, q));
  return reduce_once(product, q);
}

// x in (-q, q) as signed -> [0, q)
inline Vector from_signed(Vector x, Vector q) {
  return _mm512_min_epu32(x, _mm512_add_epi32(x, q));
}

}  // namespace pppml::kernels::avx512
