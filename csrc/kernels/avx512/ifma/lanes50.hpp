// Eight residues modulo a prime q < 2^50 at a time, in 64-bit lanes, multiplied by AVX-512-IFMA.
//
// Two bits are left between q and the 52 that the multiplier reads: every value below 4 q is a valid factor.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "base/isa.hpp"
#include "kernels/contract.hpp"

namespace pppml::kernels::avx512::ifma {
PPPML_ISA_BEGIN

using Vector = __m512i;

constexpr std::size_t kLanes = 8;

inline Vector load(const std::uint64_t* p) {
  return _mm512_loadu_si512(p);
}
inline void store(std::uint64_t* p, Vector v) {
  _mm512_storeu_si512(p, v);
}
inline Vector broadcast(std::uint64_t value) {
  return _mm512_set1_epi64(static_cast<long long>(value));
}

// Shoup's companion for 52-bit products, from the one for 64-bit products: floor(floor(w 2^64 / q) / 2^12).
constexpr unsigned kCompanionShift = 12;

inline Vector load_companion(const std::uint64_t* p) {
  return _mm512_srli_epi64(load(p), kCompanionShift);
}

struct Modulus {
  static constexpr std::uint64_t kMask = (std::uint64_t{1} << 52) - 1;

  explicit Modulus(std::uint64_t modulus)
      : q(broadcast(modulus)),
        twice(broadcast(2 * modulus)),
        negated(broadcast((kMask + 1) - modulus)),
        mask(broadcast(kMask)) {}

  Vector q, twice, negated, mask;
};

// A constant factor w in [0, q), one per lane.
struct Factor {
  Vector w, companion;
};

inline Factor factor_at(const std::uint64_t* roots, const std::uint64_t* companions, std::size_t index) {
  return {broadcast(roots[index]), broadcast(companions[index] >> kCompanionShift)};
}

// x in [0, 2 bound) -> [0, bound): below the bound the difference wraps, so the minimum picks the right one.
inline Vector reduce_once(Vector x, Vector bound) {
  return _mm512_min_epu64(x, _mm512_sub_epi64(x, bound));
}

// a < 4 q -> a w mod q in [0, 2 q): as in base/modular.hpp the quotient is at most one short for every a < 2^52.
inline Vector multiply_lazy(Vector a, const Factor& f, const Modulus& m) {
  const Vector zero = _mm512_setzero_si512();
  const Vector quotient = _mm512_madd52hi_epu64(zero, a, f.companion);
  const Vector product = _mm512_madd52lo_epu64(zero, a, f.w);
  return _mm512_and_si512(_mm512_madd52lo_epu64(product, quotient, m.negated), m.mask);
}

// Gentleman and Sande: (u, v) -> (u + v, (u - v) w), all in [0, 2 q) [Harvey 2014, section 3]
inline void inverse_butterfly(Vector& u, Vector& v, const Factor& f, const Modulus& m) {
  const Vector difference = _mm512_add_epi64(_mm512_sub_epi64(u, v), m.twice);
  u = reduce_once(_mm512_add_epi64(u, v), m.twice);
  v = multiply_lazy(difference, f, m);
}

// Cooley and Tukey: (u, v) -> (u + v w, u - v w), all in [0, 4 q)
inline void forward_butterfly(Vector& u, Vector& v, const Factor& f, const Modulus& m) {
  const Vector product = multiply_lazy(v, f, m);
  const Vector reduced = reduce_once(u, m.twice);
  u = _mm512_add_epi64(reduced, product);
  v = _mm512_add_epi64(_mm512_sub_epi64(reduced, product), m.twice);
}

constexpr std::size_t kChunk = 128;  // residues that half of the registers hold
constexpr std::size_t kRegisters = kChunk / kLanes;

// One level that pairs vector k with k + kHalf; those from i to i + 2 kHalf share the factor root_at(i). Every index is
// a constant, so that a chunk stays in registers from level to level.
template <auto kButterfly, std::size_t kHalf, class RootAt>
inline void register_level(Vector* x, const Modulus& m, RootAt root_at) {
#pragma GCC unroll 8
  for (std::size_t i = 0; i < kRegisters; i += 2 * kHalf) {
    const Factor f = root_at(i);
#pragma GCC unroll 8
    for (std::size_t k = i; k < i + kHalf; ++k) kButterfly(x[k], x[k + kHalf], f, m);
  }
}

inline void load_chunk(const std::uint64_t* in, Vector* x) {
#pragma GCC unroll 16
  for (std::size_t i = 0; i < kRegisters; ++i) x[i] = load(in + kLanes * i);
}
inline void store_chunk(const Vector* x, std::uint64_t* out) {
#pragma GCC unroll 16
  for (std::size_t i = 0; i < kRegisters; ++i) store(out + kLanes * i, x[i]);
}

// Rows of an 8 x 8 matrix become its columns.
inline void transpose(Vector* x) {
  Vector t[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm512_unpacklo_epi64(x[i], x[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi64(x[i], x[i + 1]);
  }
  // t[2 r + c] now holds, in 128-bit lane l, entries 2 r and 2 r + 1 of column 2 l + c.
#pragma GCC unroll 2
  for (int c = 0; c < 2; ++c) {
    const Vector low0 = _mm512_shuffle_i64x2(t[c], t[2 + c], 0x44), high0 = _mm512_shuffle_i64x2(t[c], t[2 + c], 0xee);
    const Vector low1 = _mm512_shuffle_i64x2(t[4 + c], t[6 + c], 0x44);
    const Vector high1 = _mm512_shuffle_i64x2(t[4 + c], t[6 + c], 0xee);
    x[c] = _mm512_shuffle_i64x2(low0, low1, 0x88);
    x[2 + c] = _mm512_shuffle_i64x2(low0, low1, 0xdd);
    x[4 + c] = _mm512_shuffle_i64x2(high0, high1, 0x88);
    x[6 + c] = _mm512_shuffle_i64x2(high0, high1, 0xdd);
  }
}

PPPML_ISA_END
}  // namespace pppml::kernels::avx512::ifma
