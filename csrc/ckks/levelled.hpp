// Arithmetic on ciphertexts of slots that go on after the sum: plaintext factors, rescaling, any number of primes.
//
// A polynomial *at level k* is k rows of N 64-bit residues modulo the first k primes, in NTT form; a vector of blocks
// holds their polynomials one after the other. Nothing here is fused or packed: sums take the way of scheme.hpp.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/modular.hpp"
#include "ckks/parameters.hpp"
#include "ckks/scheme.hpp"
#include "ckks/slot_codec.hpp"
#include "ring/ring.hpp"

namespace pppml::ckks {

// How many polynomials of how many rows an operation is about.
struct Shape {
  std::size_t blocks, level;
};

class Levelled {
 public:
  using Word = std::uint64_t;

  // Throws RequirementError unless the parameters pack slots. backend: a name for kernels::choose_backend.
  Levelled(const Parameters& parameters, const std::string& backend);

  std::size_t degree() const { return ring_.degree(); }
  std::size_t levels() const { return ring_.prime_count(); }
  std::size_t words(const Shape& shape) const { return shape.blocks * shape.level * degree(); }
  std::size_t block_weights() const { return codec_.block_weights(); }
  std::size_t slots() const { return degree() / 2; }

  // Coefficient form <-> NTT form, in place.
  void forward(const Shape& shape, Word* rows) const;
  void inverse(const Shape& shape, Word* rows) const;

  // Residue by residue; `out` may be an input.
  void add(const Shape& shape, const Word* a, const Word* b, Word* out) const;
  void subtract(const Shape& shape, const Word* a, const Word* b, Word* out) const;
  void multiply(const Shape& shape, const Word* a, const Word* b, Word* out) const;
  void multiply_integer(const Shape& shape, const Word* a, std::int64_t factor, Word* out) const;

  // round(scale * coefficients) of the polynomials whose slots hold `values`: block_weights() per block, or with
  // `factors` one real number per slot. Throws RequirementError when a coefficient reaches 2^62.
  void encode(const Shape& shape, const double* values, bool factors, double scale, Word* out) const;

  // round(in / q) for the last prime q of the level: shape.level - 1 rows per polynomial.
  void rescale(const Shape& shape, const Word* in, Word* out) const;

  // The rows of a secret, as a factor at full level.
  SecretBuffer<Word> transformed(const SecretKey& secret) const;
  // block_weights() values per block of (c0 + c1 s) / scale.
  void decrypt(const Shape& shape, const Word* c0, const Word* c1, const SecretBuffer<Word>& secret, double scale,
               double* out) const;

 private:
  template <class Body>
  void over_rows(const Shape& shape, Body body) const;
  // Residues of one polynomial in coefficient form, all of them overwritten -> centred integers over scale.
  void compose(std::size_t level, Word* rows, double scale, double* coefficients) const;

  ring::Ring<Word> ring_;
  const kernels::KernelTable<Word>& kernels_;
  SlotCodec codec_, factor_codec_;
  std::vector<BarrettModulus> moduli_;
  // inverses_[i][j] = q_j^-1 mod q_i for j < i, with companions
  std::vector<std::vector<Word>> inverses_, companions_;
};

}  // namespace pppml::ckks
