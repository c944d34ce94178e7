// Butterflies of the two transforms on sixteen residues, in place; inputs and outputs in [0, q).
#pragma once

#include "kernels/avx512/lanes.hpp"

namespace pppml::kernels::avx512 {

// Gentleman and Sande: (u, v) -> (u + v, (u - v) w)
inline void inverse_butterfly(Vector& u, Vector& v, Vector w, Vector companion, Vector q) {
  // u - v + q lies in (0, 2q), and Shoup's product takes any 32-bit factor.
  const Vector difference = _mm512_add_epi32(_mm512_sub_epi32(u, v), q);
  u = add_mod(u, v, q);
  v = multiply_shoup(difference, w, companion, q);
}

// Cooley and Tukey: (u, v) -> (u + v w, u - v w)
inline void forward_butterfly(Vector& u, Vector& v, Vector w, Vector companion, Vector q) {
  const Vector product = multiply_shoup(v, w, companion, q);
  v = subtract_mod(u, product, q);
  u = add_mod(u, product, q);
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

}  // namespace pppml::kernels::avx512
