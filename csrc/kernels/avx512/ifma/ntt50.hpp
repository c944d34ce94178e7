// Inverse and forward negacyclic NTT modulo primes below 2^50: 128 residues at a time in registers, the levels of
// larger distance two or three at a time over memory.
#pragma once

#include "kernels/contract.hpp"

namespace pppml::kernels::avx512::ifma {

using Prime64 = PrimeTable<std::uint64_t>;

// What everything here needs.
constexpr unsigned kMaxPrimeBits = 50;
constexpr unsigned kMinLogDegree = 8;

// values in [0, q), in place
void forward_ntt(const Prime64& prime, unsigned log_degree, std::uint64_t* values);
void inverse_ntt(const Prime64& prime, unsigned log_degree, std::uint64_t* values);

// values in [0, q) -> N times the inverse transform of values * factor, in [0, 2 q); `factor` is one row.
void multiply_and_invert(const Prime64& prime, unsigned log_degree, const Multiplier<std::uint64_t>& factor,
                         std::uint64_t* values);

// out[k] += in[k] * w mod q for rows in [0, q) of any length and w in [0, q) with its 64-bit companion.
void multiply_add(const Prime64& prime, std::uint64_t w, std::uint64_t companion, std::size_t count,
                  const std::uint64_t* in, std::uint64_t* out);

// The levels of the inverse transform from distance 128 upwards; values stay in [0, 2 q).
void inverse_large(const Prime64& prime, unsigned log_degree, std::uint64_t* values);

}  // namespace pppml::kernels::avx512::ifma
