// Eight 32-bit residues at a time. q < 2^31; ranges as in base/modular.hpp.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace pppml::kernels::avx2 {

constexpr std::size_t kLanes = 8;

using Vector = __m256i;

inline Vector load(const void* p) {
  return _mm256_loadu_si256(static_cast<const Vector*>(p));
}
inline void store(void* p, Vector v) {
  _mm256_storeu_si256(static_cast<Vector*>(p), v);
}
inline Vector broadcast(std::uint32_t value) {
  return _mm256_set1_epi32(static_cast<int>(value));
}

// Which lanes of a vector a step over a row uses: all of them, or the first few at the row's end.
struct AllLanes {};
struct FirstLanes {
  Vector mask;
};

inline Vector load(const void* p, AllLanes) {
  return load(p);
}
inline void store(void* p, AllLanes, Vector v) {
  store(p, v);
}
// Lanes that are not used read as zero and are not written.
inline Vector load(const void* p, FirstLanes lanes) {
  return _mm256_maskload_epi32(static_cast<const int*>(p), lanes.mask);
}
inline void store(void* p, FirstLanes lanes, Vector v) {
  _mm256_maskstore_epi32(static_cast<int*>(p), lanes.mask, v);
}

// Applies `body(index, lanes)` to a row in steps of eight; the last step may be partial.
template <class Body>
inline void for_lanes(std::size_t count, Body body) {
  std::size_t k = 0;
  for (; k + kLanes <= count; k += kLanes) body(k, AllLanes{});
  if (k == count) return;
  const Vector index = _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0);
  body(k, FirstLanes{_mm256_cmpgt_epi32(broadcast(static_cast<std::uint32_t>(count - k)), index)});
}

// x in [0, 2q) -> [0, q): below q the difference wraps to a number above 2^31, so the minimum picks the right one.
inline Vector reduce_once(Vector x, Vector q) {
  return _mm256_min_epu32(x, _mm256_sub_epi32(x, q));
}

inline Vector add_mod(Vector a, Vector b, Vector q) {
  return reduce_once(_mm256_add_epi32(a, b), q);
}

// a - b mod q in [0, q), for a and b in [0, q): a wrapped difference is the larger one.
inline Vector subtract_mod(Vector a, Vector b, Vector q) {
  const Vector difference = _mm256_sub_epi32(a, b);
  return _mm256_min_epu32(difference, _mm256_add_epi32(difference, q));
}

// x in (-q, q) as signed -> [0, q)
inline Vector from_signed(Vector x, Vector q) {
  return _mm256_min_epu32(x, _mm256_add_epi32(x, q));
}

// A constant factor in [0, q) with its Shoup companion, and the companions of the odd lanes moved to the even ones.
struct Factor {
  Vector value, companion, odd_companion;
};

inline Factor load_factor(const std::uint32_t* values, const std::uint32_t* companions) {
  const Vector companion = load(companions);
  return {load(values), companion, _mm256_srli_epi64(companion, 32)};
}
inline Factor broadcast_factor(std::uint32_t value, std::uint32_t companion) {
  const Vector everywhere = broadcast(companion);
  return {broadcast(value), everywhere, everywhere};
}

// a any -> a w mod q in [0, q)
inline Vector multiply_shoup(Vector a, const Factor& w, Vector q) {
  const Vector even = _mm256_srli_epi64(_mm256_mul_epu32(a, w.companion), 32);
  const Vector odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), w.odd_companion);
  const Vector quotient = _mm256_blend_epi32(even, odd, 0xaa);
  return reduce_once(_mm256_sub_epi32(_mm256_mullo_epi32(a, w.value), _mm256_mullo_epi32(quotient, q)), q);
}

// Gentleman and Sande: (u, v) -> (u + v, (u - v) w); inputs and outputs in [0, q)
inline void inverse_butterfly(Vector& u, Vector& v, const Factor& w, Vector q) {
  // u - v + q lies in (0, 2q), and Shoup's product takes any 32-bit number.
  const Vector difference = _mm256_add_epi32(_mm256_sub_epi32(u, v), q);
  u = add_mod(u, v, q);
  v = multiply_shoup(difference, w, q);
}

// Cooley and Tukey: (u, v) -> (u + v w, u - v w); inputs and outputs in [0, q)
inline void forward_butterfly(Vector& u, Vector& v, const Factor& w, Vector q) {
  const Vector product = multiply_shoup(v, w, q);
  v = subtract_mod(u, product, q);
  u = add_mod(u, product, q);
}

// Rows of an 8 x 8 matrix become its columns.
inline void transpose(Vector* x) {
  Vector t[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_epi32(x[i], x[i + 1]);
    t[i + 1] = _mm256_unpackhi_epi32(x[i], x[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    x[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
    x[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
    x[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
    x[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  // x[4 r + c] now holds, in 128-bit lane h, entries 4 r .. 4 r + 3 of column 4 h + c.
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    t[c] = _mm256_permute2x128_si256(x[c], x[4 + c], 0x20);
    t[4 + c] = _mm256_permute2x128_si256(x[c], x[4 + c], 0x31);
  }
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) x[i] = t[i];
}

}  // namespace pppml::kernels::avx2
