// The rings and parameter sets that the targets run on, each on every backend of this machine; the last is `scalar`.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "ckks/scheme.hpp"
#include "ring/ring.hpp"
#include "tests/fuzz/input.hpp"

namespace pppml::fuzz {

// Tables of one ring for the primitives, which take primes of any width.
template <class Word>
struct RingOnBackends {
  explicit RingOnBackends(const std::vector<std::uint64_t>& primes);

  ring::Ring<Word> ring;
  std::vector<const kernels::KernelTable<Word>*> backends;
};

// Rings of N = 1024 whose residues take 12 to 60 bits; of one prime and of two.
const std::vector<std::unique_ptr<RingOnBackends<std::uint32_t>>>& narrow_rings();
const std::vector<std::unique_ptr<RingOnBackends<std::uint64_t>>>& wide_rings();

// One parameter set with fixed keys and the packed sum of all its parties' encryptions of `weights`.
struct Set {
  struct OnBackend {
    std::unique_ptr<ckks::Scheme> scheme;
    std::unique_ptr<ckks::SecretKey> secret;
    std::unique_ptr<ckks::PublicKey> public_key;  // public mode only
  };

  Set(const ckks::ParametersLiteral& literal, std::uint64_t weight_count);

  const ckks::Scheme& scalar() const { return *backends.back().scheme; }
  ckks::Range all() const { return {length, 0, scalar().parameters().block_count(length)}; }

  std::uint64_t length, parties;
  std::vector<std::int64_t> opened;  // the sum of the quantised integers
  std::vector<std::uint8_t> c0, c1;  // packed; c1 in public mode only
  std::vector<std::uint8_t> pk0;     // residue words; public mode only
  std::vector<std::int64_t> key;     // coefficients of what opens the sum
  std::vector<OnBackend> backends;

 private:
  void encrypt_terms(const std::vector<std::unique_ptr<ckks::SecretKey>>& secrets);
};

// p31, p50, p62, compact and a small ring, in all three key modes.
const std::vector<std::unique_ptr<Set>>& sets();

// A seed or key of 32 equal bytes.
const std::uint8_t* fixed_key(std::uint8_t byte);

// `base` with bytes of the input laid over it by exclusive or, from an offset the input names: short inputs are small
// changes of valid bytes. The copy ends where its memory does, so that reading past it is seen.
std::vector<std::uint8_t> changed(const std::vector<std::uint8_t>& base, Input& input, std::size_t most);

}  // namespace pppml::fuzz
