#include "tests/parties.hpp"

#include <cstring>

#include "base/buffer.hpp"
#include "tests/check.hpp"

namespace pppml::tests {
namespace {

using ckks::KeyMode;
using ckks::Packing;
using ckks::Rounding;

ring::StreamKey fixed_key(std::uint8_t first) {
  std::uint8_t bytes[kernels::kStreamKeyBytes];
  for (std::size_t i = 0; i < sizeof bytes; ++i) bytes[i] = static_cast<std::uint8_t>(first + 7 * i);
  ring::StreamKey key = ring::StreamKey::from_bytes(bytes);
  wipe(bytes, sizeof bytes);
  return key;
}

// Within +-1.1, so that some are clipped.
std::vector<float> fixed_weights(std::size_t length) {
  std::vector<float> weights(length);
  std::uint32_t state = 1;
  for (float& weight : weights) {
    state = state * 1664525u + 1013904223u;
    weight = (static_cast<float>(state >> 8) * 0x1p-23f - 1.0f) * 1.1f;
  }
  return weights;
}

}  // namespace

const std::vector<ParameterSet>& parameter_sets() {
  static const std::vector<ParameterSet> all = {
      {"p31", 2048, {2147389441}, KeyMode::kCollective, 1, Rounding::kNearest},
      {"p31 public", 2048, {2147389441}, KeyMode::kPublic, 1, Rounding::kStochastic},
      {"p50", 4096, {1125899906826241}, KeyMode::kCollective, 1, Rounding::kStochastic},
      {"p62", 4096, {2147377153, 2147352577}, KeyMode::kSecret, 3, Rounding::kNearest},
      {"p50 slots", 4096, {1125899906826241}, KeyMode::kCollective, 1, Rounding::kNearest, Packing::kSlots},
      {"two primes",
       4096,
       {1125899906826241, 1099511480321},
       KeyMode::kPublic,
       1,
       Rounding::kNearest,
       Packing::kRealSlots},
  };
  return all;
}

ckks::Parameters parameters_of(const ParameterSet& set) {
  ckks::ParametersLiteral literal;
  literal.ring_dimension = set.ring_dimension;
  literal.primes = set.primes;
  literal.parties = 3;
  literal.clip = 1;
  literal.keys = set.keys;
  literal.values_per_coefficient = set.values_per_coefficient;
  literal.rounding = set.rounding;
  literal.packing = set.packing;
  return ckks::Parameters(literal);
}

Party::Party(const ParameterSet& set, const std::string& backend, std::size_t length, const std::string& cipher)
    : scheme(ckks::Scheme::create(parameters_of(set), backend, cipher)),
      noise(fixed_key(11)),
      weights(fixed_weights(length)),
      span{weights.data(), length, kernels::Dtype::kFloat32, length, length},
      blocks(scheme->parameters().block_count(length)),
      secret(scheme->generate_secret(secret_seed())) {
  std::memset(public_seed, 3, sizeof public_seed);
  if (set.keys != KeyMode::kPublic) return;
  Bytes pk0(set.primes.size() * set.ring_dimension * scheme->word_bytes());
  scheme->generate_public(*secret, fixed_key(2), public_seed, pk0.data());
  public_key = scheme->load_public(pk0.data(), public_seed);
}

ring::StreamKey Party::secret_seed() {
  return fixed_key(1);
}

Party::Bytes Party::encrypt() const {
  const std::size_t uncut = public_key ? scheme->words({weights.size(), false}) * scheme->word_bytes() : 0;
  Bytes out(row_bytes() + uncut);
  kernels::QuantizeReport report;
  if (public_key) {
    scheme->encrypt_public(*public_key, noise, plain(), all(), {out.data(), nullptr},
                           {out.data() + row_bytes(), nullptr});
  } else {
    CHECK(scheme->encrypt(*secret, noise, public_seed, plain(), all(), nullptr, {out.data(), nullptr}, &report));
  }
  return out;
}

Party::Bytes Party::add(const Bytes& c0) const {
  Bytes out(row_bytes());
  const void* const inputs[] = {c0.data(), c0.data()};
  scheme->add(extent(), inputs, 2, out.data());
  return out;
}

Party::Bytes Party::hop(const Bytes& c0) const {
  Bytes packed(scheme->packed_bytes(extent(), 0, blocks)), out(packed.size());
  scheme->pack(extent(), 0, blocks, c0.data(), packed.data());
  CHECK(scheme->hop(extent(), 0, blocks, packed.data(), c0.data(), out.data()));
  return out;
}

Party::Bytes Party::open(const Bytes& c) const {
  Bytes out(weights.size() * sizeof(float) + sizeof(std::int64_t));
  std::vector<float> values(weights.size());
  ckks::Opened target;
  target.singles = values.data();
  const ckks::RowSource c1{public_key ? c.data() + row_bytes() : nullptr, nullptr};
  const kernels::OpenReport report =
      scheme->open(*secret, all(), 1, {c.data(), nullptr}, c1, public_key ? nullptr : public_seed, target);
  CHECK(!report.block_refused && !report.invalid_residue);
  std::memcpy(out.data(), values.data(), values.size() * sizeof(float));
  std::memcpy(out.data() + values.size() * sizeof(float), &report.largest_residual, sizeof report.largest_residual);
  return out;
}

}  // namespace pppml::tests
