// load_public: every backend accepts exactly the keys whose residues lie below their primes, and encrypts to the same
// bytes under them. Input: set (1 byte), byte of the seed (1), changes of the residues (offset of 2 bytes, bytes).
#include "base/check.hpp"
#include "tests/fuzz/sets.hpp"

namespace {

using namespace pppml;
using fuzz::check;

bool all_below(const fuzz::Set& set, const std::vector<std::uint8_t>& residues) {
  const auto& parameters = set.scalar().parameters();
  const std::size_t width = set.scalar().word_bytes();
  for (std::size_t k = 0; k < residues.size() / width; ++k) {
    std::uint64_t word = 0;
    std::memcpy(&word, residues.data() + k * width, width);
    if (word >= parameters.primes()[k / parameters.ring_dimension()]) return false;
  }
  return true;
}

std::vector<std::uint8_t> encrypt(const fuzz::Set& set, const ckks::Scheme& scheme, const ckks::PublicKey& key) {
  constexpr std::uint64_t kLength = 9;
  const float weights[kLength] = {0.5f, -0.25f, 1, -1, 0, 2, -2, 0.125f, 1e-30f};
  const kernels::TensorSpan span{weights, kLength, kernels::Dtype::kFloat32, kLength, kLength};
  const std::size_t first = scheme.packed_bytes({kLength, true}, 0, 1);
  std::vector<std::uint8_t> bytes(first + scheme.packed_bytes({kLength, false}, 0, 1));
  const auto noise = ring::StreamKey::from_bytes(fuzz::fixed_key(201));
  scheme.encrypt_public(key, noise, {{&span, 1}, {nullptr, 0}, 1.0}, {kLength, 0, 1}, {nullptr, bytes.data()},
                        {nullptr, bytes.data() + first});
  check(set.pk0.size() > 0, "a set without a public key");
  return bytes;
}

const fuzz::Set& public_set(std::size_t choice) {
  std::vector<const fuzz::Set*> with_key;
  for (const auto& set : fuzz::sets()) {
    if (!set->pk0.empty()) with_key.push_back(set.get());
  }
  return *with_key[choice % with_key.size()];
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  const fuzz::Set& set = public_set(input.take<std::uint8_t>());
  const std::uint8_t* seed = fuzz::fixed_key(input.take<std::uint8_t>());
  const std::vector<std::uint8_t> residues = fuzz::changed(set.pk0, input, SIZE_MAX);
  const bool valid = all_below(set, residues);
  std::vector<std::uint8_t> expected;
  for (std::size_t i = set.backends.size(); i-- > 0;) {  // scalar, the oracle, is the last
    const ckks::Scheme& scheme = *set.backends[i].scheme;
    std::unique_ptr<ckks::PublicKey> key;
    try {
      key = scheme.load_public(residues.data(), seed);
    } catch (const RequirementError&) {
    }
    check((key != nullptr) == valid, "a residue of a public key at or above its prime was accepted, or the reverse");
    if (!valid) continue;
    const std::vector<std::uint8_t> bytes = encrypt(set, scheme, *key);
    if (expected.empty()) expected = bytes;
    check(bytes == expected, "a backend encrypts to other bytes than scalar");
  }
  return 0;
}
