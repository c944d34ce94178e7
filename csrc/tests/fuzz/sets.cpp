#include "tests/fuzz/sets.hpp"

#include <array>

#include "base/check.hpp"
#include "base/parallel.hpp"
#include "kernels/registry.hpp"
#include "ring/primes.hpp"

namespace pppml::fuzz {
namespace {

constexpr unsigned kLogDegree = 10;

// The largest prime below 2^bits that is 1 modulo 2N, after `skipped` larger ones.
std::uint64_t ntt_prime(unsigned bits, unsigned skipped = 0, unsigned log_degree = kLogDegree) {
  const std::uint64_t step = std::uint64_t{2} << log_degree;
  std::uint64_t candidate = ((std::uint64_t{1} << bits) - 1) / step * step + 1;
  for (;; candidate -= step) {
    if (candidate < (std::uint64_t{1} << bits) && ring::is_prime(candidate) && skipped-- == 0) return candidate;
  }
}

template <class Word>
std::vector<std::unique_ptr<RingOnBackends<Word>>> make_rings(
    const std::vector<std::vector<std::uint64_t>>& all_primes) {
  std::vector<std::unique_ptr<RingOnBackends<Word>>> rings;
  for (const auto& primes : all_primes) rings.push_back(std::make_unique<RingOnBackends<Word>>(primes));
  return rings;
}

ckks::ParametersLiteral literal(std::uint64_t degree, std::vector<std::uint64_t> primes, ckks::KeyMode keys,
                                unsigned values, ckks::Packing packing = ckks::Packing::kCoefficients) {
  ckks::ParametersLiteral result;
  result.ring_dimension = degree;
  result.primes = std::move(primes);
  result.parties = 3;
  result.clip = 1;
  result.keys = keys;
  result.values_per_coefficient = values;
  result.packing = packing;
  return result;
}

// Weights of which some are clipped; the same everywhere.
std::vector<float> sample_weights(std::uint64_t length, std::uint64_t party) {
  std::vector<float> weights(length);
  std::uint32_t state = static_cast<std::uint32_t>(party) + 1;
  for (float& weight : weights) {
    state = state * 1664525u + 1013904223u;
    weight = static_cast<float>(static_cast<std::int32_t>(state)) * 0x1p-31f * 1.02f;
  }
  return weights;
}

std::vector<std::unique_ptr<Set>> make_sets() {
  // An input is one call: threads would only cost time.
  set_thread_count(1);
  using ckks::KeyMode;
  constexpr std::uint64_t kP50 = 1125899906826241;
  std::vector<std::unique_ptr<Set>> result;
  for (const KeyMode keys : {KeyMode::kCollective, KeyMode::kSecret, KeyMode::kPublic}) {
    result.push_back(std::make_unique<Set>(literal(2048, {2147389441}, keys, 1), 200));
    result.push_back(std::make_unique<Set>(literal(4096, {kP50}, keys, 1), 4096 + 77));
    result.push_back(std::make_unique<Set>(literal(4096, {2147377153, 2147352577}, keys, 1), 131));
    result.push_back(std::make_unique<Set>(literal(2048, {kP50}, keys, 2), 333));
    result.push_back(std::make_unique<Set>(literal(2048, {ntt_prime(40, 0, 11)}, keys, 1), 2048 + 1));
    result.push_back(std::make_unique<Set>(literal(4096, {kP50}, keys, 1, ckks::Packing::kSlots), 4096 + 77));
    result.push_back(std::make_unique<Set>(
        literal(4096, {kP50, ntt_prime(30, 0, 12)}, keys, 1, ckks::Packing::kRealSlots), 2048 + 77));
    // Public-key noise leaves no room in 26 bits.
    if (keys != KeyMode::kPublic)
      result.push_back(std::make_unique<Set>(literal(1024, {ntt_prime(26)}, keys, 1), 2100));
  }
  return result;
}

}  // namespace

template <class Word>
RingOnBackends<Word>::RingOnBackends(const std::vector<std::uint64_t>& primes) : ring(kLogDegree, primes) {
  for (const std::string& name : kernels::supported_backends()) backends.push_back(&kernels::kernels<Word>(name));
}

const std::vector<std::unique_ptr<RingOnBackends<std::uint32_t>>>& narrow_rings() {
  static const auto rings = make_rings<std::uint32_t>({{2147389441},
                                                       {12289},
                                                       {ntt_prime(20)},
                                                       {ntt_prime(30)},
                                                       {ntt_prime(31, 5)},
                                                       {2147377153, 2147352577},
                                                       {ntt_prime(31), 12289}});
  return rings;
}

const std::vector<std::unique_ptr<RingOnBackends<std::uint64_t>>>& wide_rings() {
  static const auto rings = make_rings<std::uint64_t>(
      {{1125899906826241}, {ntt_prime(33)}, {ntt_prime(50)}, {ntt_prime(51)}, {ntt_prime(60)}, {ntt_prime(36), 12289}});
  return rings;
}

const std::vector<std::unique_ptr<Set>>& sets() {
  static const auto all = make_sets();
  return all;
}

const std::uint8_t* fixed_key(std::uint8_t byte) {
  static const auto keys = [] {
    std::array<std::array<std::uint8_t, kernels::kStreamKeyBytes>, 256> all{};
    for (std::size_t i = 0; i < all.size(); ++i) all[i].fill(static_cast<std::uint8_t>(i));
    return all;
  }();
  return keys[byte].data();
}

std::vector<std::uint8_t> changed(const std::vector<std::uint8_t>& base, Input& input, std::size_t most) {
  std::vector<std::uint8_t> result(base);
  if (base.empty()) return result;
  const std::size_t offset = input.take<std::uint16_t>() % base.size();
  const std::vector<std::uint8_t> edits = input.take_bytes(std::min(most, base.size() - offset));
  for (std::size_t i = 0; i < edits.size(); ++i) result[offset + i] ^= edits[i];
  return result;
}

Set::Set(const ckks::ParametersLiteral& literal, std::uint64_t weight_count)
    : length(weight_count), parties(literal.parties), key(literal.ring_dimension, 0) {
  const ckks::Parameters parameters(literal);
  for (const std::string& name : kernels::supported_backends()) {
    backends.push_back({ckks::Scheme::create(parameters, name, "chacha20"), nullptr, nullptr});
  }
  const bool collective = literal.keys == ckks::KeyMode::kCollective;
  std::vector<std::unique_ptr<ckks::SecretKey>> secrets;
  for (std::uint64_t party = 0; party < (collective ? parties : 1); ++party) {
    const auto seed = ring::StreamKey::from_bytes(fixed_key(static_cast<std::uint8_t>(party)));
    secrets.push_back(scalar().generate_secret(seed));
    for (std::size_t k = 0; k < key.size(); ++k) key[k] += secrets.back()->coefficients()[k];
  }
  if (literal.keys == ckks::KeyMode::kPublic) {
    pk0.resize(literal.primes.size() * literal.ring_dimension * scalar().word_bytes());
    scalar().generate_public(*secrets[0], ring::StreamKey::from_bytes(fixed_key(90)), fixed_key(91), pk0.data());
  }
  for (OnBackend& backend : backends) {
    backend.secret = backend.scheme->secret_from_coefficients(key.data());
    if (!pk0.empty()) backend.public_key = backend.scheme->load_public(pk0.data(), fixed_key(91));
  }
  encrypt_terms(secrets);
}

void Set::encrypt_terms(const std::vector<std::unique_ptr<ckks::SecretKey>>& secrets) {
  const ckks::Scheme& scheme = scalar();
  const bool is_public = !pk0.empty();
  // The public polynomials are the seed's: a secret-key "sum" of several terms shares them, unlike the library's own.
  const std::uint64_t terms = scheme.parameters().keys() == ckks::KeyMode::kCollective ? parties : 1;
  const ckks::Range range = all();
  opened.assign(scheme.integers(range), 0);
  std::vector<std::int64_t> integers(opened.size());
  const ckks::Extent extent{length, true};
  c0.assign(scheme.packed_bytes(extent, 0, range.stop), 0);
  if (is_public) c1.assign(scheme.packed_bytes({length, false}, 0, range.stop), 0);
  for (std::uint64_t party = 0; party < terms; ++party) {
    const std::vector<float> weights = sample_weights(length, party);
    const kernels::TensorSpan span{weights.data(), weights.size(), kernels::Dtype::kFloat32, weights.size(),
                                   weights.size()};
    const ckks::Plain plain{{&span, 1}, {nullptr, 0}, 1.0};
    const auto noise = ring::StreamKey::from_bytes(fixed_key(static_cast<std::uint8_t>(100 + party)));
    scheme.quantize(plain, nullptr, range, integers.data());
    for (std::size_t i = 0; i < integers.size(); ++i) opened[i] += integers[i];
    kernels::QuantizeReport report;
    if (is_public) {
      scheme.encrypt_public(*backends.back().public_key, noise, plain, range, {nullptr, c0.data()},
                            {nullptr, c1.data()});
    } else {
      scheme.encrypt(*secrets[party], noise, fixed_key(92), plain, range, party == 0 ? nullptr : c0.data(),
                     {nullptr, c0.data()}, &report);
    }
  }
}

template struct RingOnBackends<std::uint32_t>;
template struct RingOnBackends<std::uint64_t>;

}  // namespace pppml::fuzz
