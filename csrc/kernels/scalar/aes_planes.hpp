// Bit-sliced bytes for AES: plane p holds bit p of 64 bytes, byte i at bit i. Constant time: the S-box is computed, not
// looked up.
#pragma once

#include <cstdint>

#include "base/buffer.hpp"

namespace pppml::kernels::scalar {

constexpr int kPlanes = 8;
constexpr int kPlaneBytes = 64;

// Secrets all of them: wiped at their end.
struct AesPlanes {
  std::uint64_t bits[kPlanes] = {};
  ~AesPlanes() { wipe(bits, sizeof bits); }
};

// The 8 x 8 bits of a word, bit 8 i + p to 8 p + i [Warren 2012, 7-3].
inline std::uint64_t transpose_bits(std::uint64_t x) {
  std::uint64_t t = (x ^ x >> 7) & 0x00aa00aa00aa00aa;
  x ^= t ^ t << 7;
  t = (x ^ x >> 14) & 0x0000cccc0000cccc;
  x ^= t ^ t << 14;
  t = (x ^ x >> 28) & 0x00000000f0f0f0f0;
  return x ^ t ^ t << 28;
}

inline void load_planes(const std::uint8_t* bytes, AesPlanes* out) {
  for (std::uint64_t& plane : out->bits) plane = 0;
  for (int group = 0; group < kPlaneBytes; group += 8) {
    std::uint64_t word = 0;
    for (int i = 0; i < 8; ++i) word |= std::uint64_t{bytes[group + i]} << (8 * i);
    word = transpose_bits(word);
    for (int p = 0; p < kPlanes; ++p) out->bits[p] |= (word >> (8 * p) & 0xff) << group;
  }
}

inline void store_planes(const AesPlanes& planes, std::uint8_t* bytes) {
  for (int group = 0; group < kPlaneBytes; group += 8) {
    std::uint64_t word = 0;
    for (int p = 0; p < kPlanes; ++p) word |= (planes.bits[p] >> group & 0xff) << (8 * p);
    word = transpose_bits(word);
    for (int i = 0; i < 8; ++i) bytes[group + i] = static_cast<std::uint8_t>(word >> (8 * i));
  }
}

// Elements of GF(16) = GF(2)[z] / (z^4 + z + 1), a plane per coefficient.
struct Nibbles {
  std::uint64_t bits[4];
};

inline Nibbles operator^(const Nibbles& a, const Nibbles& b) {
  return {{a.bits[0] ^ b.bits[0], a.bits[1] ^ b.bits[1], a.bits[2] ^ b.bits[2], a.bits[3] ^ b.bits[3]}};
}

// c of degree 6 modulo z^4 + z + 1
inline Nibbles reduce(const std::uint64_t (&c)[7]) {
  return {{c[0] ^ c[4], c[1] ^ c[4] ^ c[5], c[2] ^ c[5] ^ c[6], c[3] ^ c[6]}};
}

inline Nibbles operator*(const Nibbles& a, const Nibbles& b) {
  std::uint64_t product[7] = {};
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) product[i + j] ^= a.bits[i] & b.bits[j];
  }
  return reduce(product);
}

inline Nibbles square(const Nibbles& a) {
  return reduce({a.bits[0], 0, a.bits[1], 0, a.bits[2], 0, a.bits[3]});
}

// Plane p of the result is the sum of the planes whose bits are set in rows[p].
inline void multiply_matrix(const std::uint8_t (&rows)[kPlanes], const std::uint64_t (&in)[kPlanes],
                            std::uint64_t (&out)[kPlanes]) {
#pragma GCC unroll 8
  for (int p = 0; p < kPlanes; ++p) {
    std::uint64_t sum = 0;
#pragma GCC unroll 8
    for (int i = 0; i < kPlanes; ++i) sum ^= (rows[p] >> i & 1) != 0 ? in[i] : 0;
    out[p] = sum;
  }
}

// SubBytes (FIPS 197, 5.1.1). Bytes are inverted in GF(16)[Y] / (Y^2 + Y + z^3 + z), where (z^2 + 1) Y is a root of
// AES's polynomial: the inverse of h Y + l is (h Y + h + l) / d with d = (z^3 + z) h^2 + l (h + l), and 1 / d = d^14.
inline void substitute(AesPlanes* x) {
  constexpr std::uint8_t kToTower[kPlanes] = {0xa5, 0xe4, 0x04, 0x18, 0xa2, 0x0c, 0xd2, 0xa0};
  // Back to the AES field, then the matrix of the affine map.
  constexpr std::uint8_t kFromTower[kPlanes] = {0xaf, 0x13, 0xed, 0x4f, 0x19, 0x66, 0x70, 0x0e};
  constexpr unsigned kConstant = 0x63;
  constexpr Nibbles kNorm = {{0, ~std::uint64_t{0}, 0, ~std::uint64_t{0}}};
  std::uint64_t t[kPlanes];
  multiply_matrix(kToTower, x->bits, t);
  const Nibbles low = {{t[0], t[1], t[2], t[3]}}, high = {{t[4], t[5], t[6], t[7]}};
  const Nibbles sum = high ^ low;
  const Nibbles d2 = square(kNorm * square(high) ^ low * sum);
  const Nibbles d4 = square(d2);
  const Nibbles inverse = d2 * d4 * square(d4);
  const Nibbles out_low = sum * inverse, out_high = high * inverse;
  for (int i = 0; i < 4; ++i) t[i] = out_low.bits[i], t[4 + i] = out_high.bits[i];
  multiply_matrix(kFromTower, t, x->bits);
  for (int p = 0; p < kPlanes; ++p) x->bits[p] ^= std::uint64_t{0} - (kConstant >> p & 1);
}

}  // namespace pppml::kernels::scalar
