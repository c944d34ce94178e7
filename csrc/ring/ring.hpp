// Owner of the transform tables of one ring R_Q; hands the kernels their plain view of it.
#pragma once

#include <cstdint>
#include <vector>

#include "base/buffer.hpp"
#include "base/key_buffer.hpp"
#include "kernels/contract.hpp"

namespace pppml::ring {

template <class Word>
class Ring {
 public:
  // primes: distinct NTT primes, checked by the caller's parameters. Throws RequirementError else.
  Ring(unsigned log_degree, const std::vector<std::uint64_t>& primes);
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  const kernels::RingTable<Word>& table() const { return table_; }
  std::size_t degree() const { return table_.degree(); }
  std::size_t prime_count() const { return table_.prime_count; }
  std::size_t block_words() const { return table_.block_words(); }

 private:
  kernels::PrimeTable<Word> make_prime(Word q);

  std::vector<Buffer<Word>> storage_;
  std::vector<kernels::PrimeTable<Word>> primes_;
  kernels::RingTable<Word> table_;
};

// L rows in NTT form times N^-1, as a constant factor (kernels::Multiplier). A type of its own: coefficient form has no
// such product. A secret one lies in memory that a fork finds zero: whoever reads it must know the process.
template <class Word, template <class> class Memory>
struct NttFactor {
  explicit NttFactor(std::size_t words) : values(words), companions(words) {}

  kernels::Multiplier<Word> view() const { return {values.data(), companions.data()}; }

  Memory<Word> values;
  Memory<Word> companions;
};
template <class Word>
using SecretFactor = NttFactor<Word, KeyBuffer>;
template <class Word>
using PublicFactor = NttFactor<Word, Buffer>;

}  // namespace pppml::ring
