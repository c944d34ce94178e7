#include "ckks/scheme_impl.hpp"

#include <algorithm>
#include <cstring>

#include "base/check.hpp"
#include "base/modular.hpp"
#include "kernels/gaussian_tables.hpp"
#include "kernels/registry.hpp"

namespace pppml::ckks {
namespace {

using kernels::GaussianTable;

constexpr GaussianTable kCollectiveError = {
    kernels::tables::kCollectiveErrorLargest, kernels::tables::kCollectiveErrorVariance,
    kernels::tables::kCollectiveErrorHigh, kernels::tables::kCollectiveErrorLow};
constexpr GaussianTable kCollectiveSecret = {
    kernels::tables::kCollectiveSecretLargest, kernels::tables::kCollectiveSecretVariance,
    kernels::tables::kCollectiveSecretHigh, kernels::tables::kCollectiveSecretLow};
constexpr GaussianTable kError = {kernels::tables::kErrorLargest, kernels::tables::kErrorVariance,
                                  kernels::tables::kErrorHigh, kernels::tables::kErrorLow};

// Key generation rejects ||e||^2 > 1.1 N sigma^2 and ||s||^2 > 1.1 * 2N/3: noise_variance relies on it. A draw fails
// with probability below 2^-3, so 64 in a row mean a broken generator.
constexpr double kNormSlack = 1.1;
constexpr std::uint64_t kKeyAttempts = 64;

}  // namespace

template <class Word>
SchemeImpl<Word>::SchemeImpl(const Parameters& parameters, const std::string& backend,
                             kernels::StreamCipher private_cipher)
    : Scheme(parameters, backend, private_cipher),
      ring_(parameters.log_degree(), parameters.primes()),
      kernels_(kernels::kernels<Word>(backend)) {
  const auto& primes = parameters.primes();
  const auto opening = static_cast<std::ptrdiff_t>(parameters.opening_primes());
  if (parameters.opening_primes() < primes.size()) {
    const std::vector<std::uint64_t> leading(primes.begin(), primes.begin() + opening);
    opening_ring_ = std::make_unique<ring::Ring<Word>>(parameters.log_degree(), leading);
  }
  if (parameters.slots()) {
    slots_ = std::make_unique<SlotCodec>(parameters.log_degree(), parameters.packing() == Packing::kSlots,
                                         EmbeddingKernels{kernels_.embed, kernels_.unembed});
  }
}

template <class Word>
const GaussianTable& SchemeImpl<Word>::error_table() const {
  return parameters().keys() == KeyMode::kCollective ? kCollectiveError : kError;
}

template <class Word>
void SchemeImpl<Word>::transform_small(const std::int64_t* coefficients, std::size_t l, Word* row) const {
  const auto& prime = ring_.table().primes[l];
  for (std::size_t k = 0; k < ring_.degree(); ++k) {
    row[k] = reduce_signed<Word>(coefficients[k], prime.modulus, prime.ratio, prime.lift);
  }
  kernels_.forward_ntt(prime, ring_.table().log_degree, row);
}

template <class Word>
template <class Factor>
void SchemeImpl<Word>::complete(Factor& factor) const {
  for (std::size_t l = 0; l < ring_.prime_count(); ++l) {
    const auto& prime = ring_.table().primes[l];
    const ShoupCompanions<Word> companions(prime.modulus);
    for (std::size_t k = l * ring_.degree(); k < (l + 1) * ring_.degree(); ++k) {
      factor.values[k] =
          multiply_shoup(factor.values[k], prime.inverse_degree, prime.inverse_degree_companion, prime.modulus);
      factor.companions[k] = companions.of(factor.values[k]);
    }
  }
}

template <class Word>
std::unique_ptr<SecretKey> SchemeImpl<Word>::make_secret(KeyBuffer<std::int64_t> coefficients) const {
  auto secret = std::make_unique<SecretKeyImpl<Word>>(std::move(coefficients), ring_.block_words());
  for (std::size_t l = 0; l < ring_.prime_count(); ++l) {
    transform_small(secret->coefficients().data(), l, secret->factor.values.data() + l * ring_.degree());
  }
  complete(secret->factor);
  wipe_stack();
  return secret;
}

template <class Word>
std::unique_ptr<SecretKey> SchemeImpl<Word>::generate_secret(const ring::StreamKey& seed) const {
  const std::size_t degree = ring_.degree();
  const bool collective = parameters().keys() == KeyMode::kCollective;
  SecretBuffer<std::int32_t> draw(degree);
  for (std::uint64_t attempt = 0; attempt < kKeyAttempts; ++attempt) {
    if (collective) {
      kernels_.gaussian(kCollectiveSecret, stream(seed), kernels::Lane::kSecret, attempt, degree, draw.data());
    } else {
      kernels_.ternary(stream(seed), kernels::Lane::kSecret, attempt, degree, draw.data());
    }
    KeyBuffer<std::int64_t> coefficients(degree);
    std::copy(draw.begin(), draw.end(), coefficients.begin());
    auto secret = make_secret(std::move(coefficients));
    if (collective || secret->squared_norm() <= kNormSlack * 2 * static_cast<double>(degree) / 3) return secret;
  }
  throw RequirementError("no secret key of bounded norm in 64 draws: the random generator is broken");
}

template <class Word>
std::unique_ptr<SecretKey> SchemeImpl<Word>::secret_from_coefficients(const std::int64_t* coefficients) const {
  const std::int64_t single = parameters().keys() == KeyMode::kCollective ? kCollectiveSecret.largest : 1;
  const std::int64_t bound = single * static_cast<std::int64_t>(parameters().parties());
  KeyBuffer<std::int64_t> copy(ring_.degree());
  for (std::size_t k = 0; k < copy.size(); ++k) {
    require(coefficients[k] >= -bound && coefficients[k] <= bound, "a key coefficient exceeds ", bound,
            ": these are not the sums of this roster's secrets");
    copy[k] = coefficients[k];
  }
  return make_secret(std::move(copy));
}

template <class Word>
void SchemeImpl<Word>::generate_public(const SecretKey& secret, const ring::StreamKey& error, const std::uint8_t* seed,
                                       void* pk0) const {
  const auto& factor = SecretKeyImpl<Word>::factor_of(secret, ring_.block_words());
  const std::size_t degree = ring_.degree();
  SecretBuffer<std::int32_t> draw(degree);
  SecretBuffer<std::int64_t> noise(degree);
  double norm = 0;
  const double limit = kNormSlack * static_cast<double>(degree) * kError.variance;
  for (std::uint64_t attempt = 0; attempt == 0 || norm > limit; ++attempt) {
    require(attempt < kKeyAttempts, "no key error of bounded norm in 64 draws: the random generator is broken");
    kernels_.gaussian(kError, stream(error), kernels::Lane::kKeyError, attempt, degree, draw.data());
    norm = 0;
    for (std::size_t k = 0; k < degree; ++k) {
      noise[k] = draw[k];
      norm += static_cast<double>(draw[k]) * static_cast<double>(draw[k]);
    }
  }
  Buffer<Word> uniform(degree);
  for (std::size_t l = 0; l < ring_.prime_count(); ++l) {
    const auto& prime = ring_.table().primes[l];
    Word* row = static_cast<Word*>(pk0) + l * degree;
    transform_small(noise.data(), l, row);
    kernels_.uniform(prime, ring_.table().log_degree, seed, static_cast<std::uint32_t>(l), 0, uniform.data());
    for (std::size_t k = 0; k < degree; ++k) {
      // The factor carries N^-1; the public side gives the N back.
      const std::size_t at = l * degree + k;
      const Word scaled = multiply_mod(uniform[k], static_cast<Word>(degree), prime.modulus);
      const Word product = multiply_shoup(scaled, factor.values[at], factor.companions[at], prime.modulus);
      row[k] = subtract_mod(row[k], product, prime.modulus);
    }
  }
  wipe_stack();
}

template <class Word>
void SchemeImpl<Word>::load_rows(const void* rows, ring::PublicFactor<Word>& factor) const {
  std::memcpy(factor.values.data(), rows, ring_.block_words() * sizeof(Word));
  for (std::size_t l = 0; l < ring_.prime_count(); ++l) {
    const Word q = ring_.table().primes[l].modulus;
    const Word* row = factor.values.data() + l * ring_.degree();
    require(std::all_of(row, row + ring_.degree(), [&](Word r) { return r < q; }),
            "a residue of the public key is not below its prime ", q);
  }
}

template <class Word>
void SchemeImpl<Word>::expand_ntt(const std::uint8_t* public_seed, void* out) const {
  for (std::size_t l = 0; l < ring_.prime_count(); ++l) {
    uniform(public_seed, l, 0, static_cast<Word*>(out) + l * ring_.degree());
  }
}

template <class Word>
std::unique_ptr<PublicKey> SchemeImpl<Word>::load_public(const void* pk0, const std::uint8_t* seed) const {
  auto key = std::make_unique<PublicKeyImpl<Word>>(ring_.block_words());
  load_rows(pk0, key->factor0);
  expand_ntt(seed, key->factor1.values.data());
  complete(key->factor0);
  complete(key->factor1);
  return key;
}

template <class Word>
std::unique_ptr<PublicKey> SchemeImpl<Word>::load_public_pair(const void* pk0, const void* pk1) const {
  auto key = std::make_unique<PublicKeyImpl<Word>>(ring_.block_words());
  load_rows(pk0, key->factor0);
  load_rows(pk1, key->factor1);
  complete(key->factor0);
  complete(key->factor1);
  return key;
}

template class SchemeImpl<std::uint32_t>;
template class SchemeImpl<std::uint64_t>;

}  // namespace pppml::ckks
