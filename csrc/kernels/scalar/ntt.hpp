// Negacyclic NTT, radix 2, fully reduced at every butterfly: written to be read [Longa and Naehrig 2016, alg. 1, 2].
#pragma once

#include "base/modular.hpp"
#include "kernels/contract.hpp"

namespace pppml::kernels::scalar {

template <class Word>
void forward_ntt(const PrimeTable<Word>& prime, unsigned log_degree, Word* values) {
  const std::size_t degree = std::size_t{1} << log_degree;
  const Word q = prime.modulus;
  for (std::size_t groups = 1, half = degree / 2; groups < degree; groups *= 2, half /= 2) {
    for (std::size_t group = 0; group < groups; ++group) {
      const Word root = prime.roots[groups + group];
      const Word companion = prime.root_companions[groups + group];
      Word* left = values + 2 * half * group;
      Word* right = left + half;
      for (std::size_t j = 0; j < half; ++j) {
        const Word u = left[j];
        const Word v = multiply_shoup(right[j], root, companion, q);
        left[j] = add_mod(u, v, q);
        right[j] = subtract_mod(u, v, q);
      }
    }
  }
}

// N times the inverse transform.
template <class Word>
void inverse_ntt_unscaled(const PrimeTable<Word>& prime, unsigned log_degree, Word* values) {
  const std::size_t degree = std::size_t{1} << log_degree;
  const Word q = prime.modulus;
  for (std::size_t groups = degree / 2, half = 1; groups >= 1; groups /= 2, half *= 2) {
    for (std::size_t group = 0; group < groups; ++group) {
      const Word root = prime.inverse_roots[groups + group];
      const Word companion = prime.inverse_root_companions[groups + group];
      Word* left = values + 2 * half * group;
      Word* right = left + half;
      for (std::size_t j = 0; j < half; ++j) {
        const Word u = left[j];
        const Word v = right[j];
        left[j] = add_mod(u, v, q);
        right[j] = multiply_shoup(subtract_mod(u, v, q), root, companion, q);
      }
    }
  }
}

template <class Word>
void inverse_ntt(const PrimeTable<Word>& prime, unsigned log_degree, Word* values) {
  inverse_ntt_unscaled(prime, log_degree, values);
  for (std::size_t j = 0; j < std::size_t{1} << log_degree; ++j) {
    values[j] = multiply_shoup(values[j], prime.inverse_degree, prime.inverse_degree_companion, prime.modulus);
  }
}

// values <- values * factor, point by point, both in NTT form
template <class Word>
void multiply_rows(const PrimeTable<Word>& prime, std::size_t count, const Word* factor, const Word* companions,
                   Word* values) {
  for (std::size_t k = 0; k < count; ++k) {
    values[k] = multiply_shoup(values[k], factor[k], companions[k], prime.modulus);
  }
}

}  // namespace pppml::kernels::scalar
