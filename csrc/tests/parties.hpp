// One party with everything an encryption takes, from fixed streams: the same bits in every run.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ckks/scheme.hpp"

namespace pppml::tests {

struct ParameterSet {
  const char* name;
  std::uint64_t ring_dimension;
  std::vector<std::uint64_t> primes;
  ckks::KeyMode keys;
  unsigned values_per_coefficient;
  ckks::Rounding rounding;
  ckks::Packing packing = ckks::Packing::kCoefficients;
};

// One 31-bit prime, one below 2^50 and two 31-bit primes; several values per coefficient; stochastic rounding; a public
// key; slots, modulo one prime and modulo the first of two.
const std::vector<ParameterSet>& parameter_sets();

ckks::Parameters parameters_of(const ParameterSet& set);

struct Party {
  // cipher: of the private streams; empty for the backend's own.
  Party(const ParameterSet& set, const std::string& backend, std::size_t length, const std::string& cipher = "");
  static ring::StreamKey secret_seed();  // what `secret` is drawn from

  // What an operation wrote, whatever the word width.
  using Bytes = std::vector<std::uint8_t>;

  ckks::Range all() const { return {weights.size(), 0, blocks}; }
  ckks::Extent extent() const { return {weights.size(), true}; }
  ckks::Plain plain() const { return {{&span, 1}, {nullptr, 0}, 1.0}; }
  std::size_t row_bytes() const { return scheme->words(extent()) * scheme->word_bytes(); }

  Bytes encrypt() const;             // c0, and c1 behind it with a public key
  Bytes add(const Bytes& c0) const;  // c0 + c0
  Bytes hop(const Bytes& c0) const;  // packed(c0) + c0, packed
  Bytes open(const Bytes& c) const;  // the values as float32, with the report's largest residual behind them

  std::unique_ptr<ckks::Scheme> scheme;
  ring::StreamKey noise;
  std::uint8_t public_seed[kernels::kStreamKeyBytes];
  std::vector<float> weights;
  kernels::TensorSpan span;
  std::uint64_t blocks;
  std::unique_ptr<ckks::SecretKey> secret;
  std::unique_ptr<ckks::PublicKey> public_key;  // in public mode
};

}  // namespace pppml::tests
