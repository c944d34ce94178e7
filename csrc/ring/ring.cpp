#include "ring/ring.hpp"

#include "base/check.hpp"
#include "base/modular.hpp"
#include "ring/primes.hpp"

namespace pppml::ring {
namespace {

std::size_t reverse_bits(std::size_t value, unsigned bits) {
  std::size_t reversed = 0;
  for (unsigned i = 0; i < bits; ++i, value >>= 1) reversed = reversed << 1 | (value & 1);
  return reversed;
}

unsigned bit_length(std::uint64_t value) {
  unsigned bits = 0;
  for (; value != 0; value >>= 1) ++bits;
  return bits;
}

// roots[bitrev(i)] = psi^i with companions
template <class Word>
void fill_powers(Word psi, Word q, unsigned log_degree, Buffer<Word>& roots, Buffer<Word>& companions) {
  Word power = 1;
  for (std::size_t i = 0; i < roots.size(); ++i) {
    const std::size_t at = reverse_bits(i, log_degree);
    roots[at] = power;
    companions[at] = shoup_companion(power, q);
    power = multiply_mod(power, psi, q);
  }
}

}  // namespace

template <class Word>
kernels::PrimeTable<Word> Ring<Word>::make_prime(Word q) {
  const unsigned log_degree = table_.log_degree;
  const std::size_t degree = std::size_t{1} << log_degree;
  const auto psi = static_cast<Word>(least_primitive_root(q, log_degree + 1));
  const Word inverse_psi = power_mod<Word>(psi, q - 2, q);
  const std::size_t base = storage_.size();
  for (int i = 0; i < 4; ++i) storage_.emplace_back(degree);
  fill_powers(psi, q, log_degree, storage_[base], storage_[base + 1]);
  fill_powers(inverse_psi, q, log_degree, storage_[base + 2], storage_[base + 3]);

  kernels::PrimeTable<Word> prime{};
  prime.modulus = q;
  prime.bits = bit_length(q);
  prime.roots = storage_[base].data();
  prime.root_companions = storage_[base + 1].data();
  prime.inverse_roots = storage_[base + 2].data();
  prime.inverse_root_companions = storage_[base + 3].data();
  prime.inverse_degree = power_mod<Word>(static_cast<Word>(degree % q), q - 2, q);
  prime.inverse_degree_companion = shoup_companion(prime.inverse_degree, q);
  prime.ratio = static_cast<std::uint64_t>((static_cast<Uint128>(1) << 64) / q);
  prime.lift = ((std::uint64_t{1} << 62) / q + 1) * q;
  return prime;
}

template <class Word>
Ring<Word>::Ring(unsigned log_degree, const std::vector<std::uint64_t>& primes) {
  require(log_degree >= 4 && log_degree <= 16, "ring dimension 2^", log_degree, " is outside 2^4 .. 2^16");
  require(!primes.empty(), "a ring needs at least one prime");
  table_.log_degree = log_degree;
  table_.prime_count = static_cast<unsigned>(primes.size());
  for (std::uint64_t q : primes) {
    require(is_prime(q) && bit_length(q) <= WordTraits<Word>::kMaxModulusBits, "modulus ", q,
            " is not a prime of at most ", WordTraits<Word>::kMaxModulusBits, " bits");
    primes_.push_back(make_prime(static_cast<Word>(q)));
  }
  table_.primes = primes_.data();
  if (primes.size() == 2) {
    require(primes[0] != primes[1], "modulus ", primes[0], " appears twice");
    const Word q1 = primes_[1].modulus;
    table_.garner = power_mod<Word>(static_cast<Word>(primes[0] % primes[1]), q1 - 2, q1);
    table_.garner_companion = shoup_companion(table_.garner, q1);
  }
}

template class Ring<std::uint32_t>;
template class Ring<std::uint64_t>;

}  // namespace pppml::ring
