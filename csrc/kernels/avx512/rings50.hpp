// Which rings of 64-bit words the IFMA kernels take; scalar code takes the others.
#pragma once

#include "kernels/avx512/ifma/ntt50.hpp"
#include "kernels/contract.hpp"

namespace pppml::kernels::avx512 {

inline bool declined(const ifma::Prime64& prime, unsigned log_degree) {
  return prime.bits > ifma::kMaxPrimeBits || log_degree < ifma::kMinLogDegree;
}

// Candidates of primes below 2^31 are 32-bit words, also where their residues are held in 64.
inline bool wide_candidates(const ifma::Prime64& prime) {
  return prime.bits > 31;
}

// For the fused operations.
inline bool declined(const RingTable<std::uint64_t>& ring) {
  const ifma::Prime64& prime = ring.primes[0];
  return ring.prime_count != 1 || declined(prime, ring.log_degree) || !wide_candidates(prime);
}

}  // namespace pppml::kernels::avx512
