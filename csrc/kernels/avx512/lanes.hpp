// Sixteen 32-bit residues at a time. q < 2^31; ranges as in base/modular.hpp.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "base/isa.hpp"

namespace pppml::kernels::avx512 {
PPPML_ISA_BEGIN

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

// x in (-q, q) as signed -> [0, q)
inline Vector from_signed(Vector x, Vector q) {
  return _mm512_min_epu32(x, _mm512_add_epi32(x, q));
}

// a - b mod q in [0, q), for a and b in [0, q)
inline Vector subtract_mod(Vector a, Vector b, Vector q) {
  return from_signed(_mm512_sub_epi32(a, b), q);
}

// Lane 2i of the result is lane 2i + 1 of x. A floating-point shuffle: integer shifts have half its throughput.
inline Vector odd_lanes(Vector x) {
  return _mm512_castps_si512(_mm512_movehdup_ps(_mm512_castsi512_ps(x)));
}

// A constant factor in [0, q): values, Shoup companions, and the companions of the odd lanes in the even ones.
struct Factor {
  Vector values, companions, odd_companions;
};

inline Factor broadcast_factor(std::uint32_t value, std::uint32_t companion) {
  return {broadcast(value), broadcast(companion), broadcast(companion)};
}
inline Factor load_factor(const std::uint32_t* values, const std::uint32_t* companions) {
  const Vector c = load(companions);
  return {load(values), c, odd_lanes(c)};
}

// High halves of the products of a and the companions: two multiplications of 32 x 32 bits, one for each half of the
// lanes.
inline Vector multiply_high(Vector a, const Factor& factor) {
  const Vector even = _mm512_mul_epu32(a, factor.companions);
  const Vector odd = _mm512_mul_epu32(odd_lanes(a), factor.odd_companions);
  return _mm512_castps_si512(_mm512_mask_movehdup_ps(_mm512_castsi512_ps(odd), 0x5555, _mm512_castsi512_ps(even)));
}

// a any -> a times the factor mod q in [0, q)
inline Vector multiply_shoup(Vector a, const Factor& factor, Vector q) {
  const Vector quotient = multiply_high(a, factor);
  const Vector product = _mm512_sub_epi32(_mm512_mullo_epi32(a, factor.values), _mm512_mullo_epi32(quotient, q));
  return reduce_once(product, q);
}

// Applies `body(index, lanes)` to a row in steps of sixteen; the last step may be partial.
template <class Body>
inline void for_lanes(std::size_t count, Body body) {
  std::size_t k = 0;
  for (; k + kLanes <= count; k += kLanes) body(k, static_cast<__mmask16>(0xffff));
  if (k < count) body(k, static_cast<__mmask16>((std::uint32_t{1} << (count - k)) - 1));
}

inline Vector load_part(const void* p, __mmask16 lanes) {
  return _mm512_maskz_loadu_epi32(lanes, p);
}

PPPML_ISA_END
}  // namespace pppml::kernels::avx512
