// Butterflies of the two transforms on sixteen residues, in place; inputs and outputs in [0, q).
#pragma once

#include "kernels/avx512/lanes.hpp"

namespace pppml::kernels::avx512 {
PPPML_ISA_BEGIN

// Gentleman and Sande with the right side negated, (u, -v) -> (u + v, (u - v) w): the sum that a product takes needs no
// reduction, since Shoup's takes any 32-bit factor. Where every residue i of the input has the sign (-1)^popcount(i),
// all levels find their right sides negated and the output has no signs left.
inline void inverse_butterfly(Vector& u, Vector& v, const Factor& w, Vector q) {
  const Vector difference = _mm512_add_epi32(u, v);
  u = subtract_mod(u, v, q);
  v = multiply_shoup(difference, w, q);
}

// Cooley and Tukey: (u, v) -> (u + v w, u - v w)
inline void forward_butterfly(Vector& u, Vector& v, const Factor& w, Vector q) {
  const Vector product = multiply_shoup(v, w, q);
  v = subtract_mod(u, product, q);
  u = add_mod(u, product, q);
}

// One level among `kCount` vectors: those `kHalf` apart meet; factor(i) is that of the group beginning at vector i.
template <int kCount, int kHalf, class Factors>
__attribute__((always_inline)) inline void inverse_level(Vector* x, Vector q, Factors factor) {
#pragma GCC unroll 8
  for (int i = 0; i < kCount; i += 2 * kHalf) {
    const Factor w = factor(i);
#pragma GCC unroll 8
    for (int j = i; j < i + kHalf; ++j) inverse_butterfly(x[j], x[j + kHalf], w, q);
  }
}

template <int kCount, int kHalf, class Factors>
__attribute__((always_inline)) inline void forward_level(Vector* x, Vector q, Factors factor) {
#pragma GCC unroll 8
  for (int i = 0; i < kCount; i += 2 * kHalf) {
    const Factor w = factor(i);
#pragma GCC unroll 8
    for (int j = i; j < i + kHalf; ++j) forward_butterfly(x[j], x[j + kHalf], w, q);
  }
}

// Rows of a 16 x 16 matrix become its columns.
inline void transpose(Vector* x) {
  Vector t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    x[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    x[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    x[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    x[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  // x[4 r + c] now holds, in 128-bit lane l, entries 4 r .. 4 r + 3 of column 4 l + c.
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    const Vector low0 = _mm512_shuffle_i32x4(x[c], x[4 + c], 0x44);
    const Vector high0 = _mm512_shuffle_i32x4(x[c], x[4 + c], 0xee);
    const Vector low1 = _mm512_shuffle_i32x4(x[8 + c], x[12 + c], 0x44);
    const Vector high1 = _mm512_shuffle_i32x4(x[8 + c], x[12 + c], 0xee);
    t[c] = _mm512_shuffle_i32x4(low0, low1, 0x88);
    t[4 + c] = _mm512_shuffle_i32x4(low0, low1, 0xdd);
    t[8 + c] = _mm512_shuffle_i32x4(high0, high1, 0x88);
    t[12 + c] = _mm512_shuffle_i32x4(high0, high1, 0xdd);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) x[i] = t[i];
}

PPPML_ISA_END
}  // namespace pppml::kernels::avx512
