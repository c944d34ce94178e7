// Whether time or addresses depend on secrets, after ctgrind: memcheck takes secrets for uninitialised memory and
// reports every branch and every address that depends on one. constant_time.py runs this and judges.
//
// Keys and weights are made secret; whatever is computed from them becomes so by itself. What leaves the core
// (ciphertexts, public keys) is made public where it does. Division is no branch: memcheck does not see that its time
// may depend on its operands.
#include <valgrind/memcheck.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/modular.hpp"
#include "base/parallel.hpp"
#include "ckks/pad_store.hpp"
#include "kernels/gaussian_tables.hpp"
#include "kernels/registry.hpp"
#include "ring/ring.hpp"
#include "tests/check.hpp"
#include "tests/parties.hpp"

using namespace pppml;
using kernels::Dtype;
using kernels::Lane;
using kernels::StreamCipher;
using tests::Party;

namespace {

constexpr std::size_t kDegree = 2048;

template <class T>
void make_secret(const T* data, std::size_t count) {
  VALGRIND_MAKE_MEM_UNDEFINED(const_cast<T*>(data), count * sizeof(T));
}
template <class T>
void make_public(const T* data, std::size_t count) {
  VALGRIND_MAKE_MEM_DEFINED(const_cast<T*>(data), count * sizeof(T));
}
void make_secret(const ring::StreamKey& key) {
  make_secret(key.data(), kernels::kStreamKeyBytes);
}

// Whether any bit is; false without memcheck.
template <class T>
bool is_secret(const std::vector<T>& values) {
  std::vector<std::uint8_t> secret_bits(values.size() * sizeof(T));
  VALGRIND_GET_VBITS(values.data(), secret_bits.data(), secret_bits.size());
  return std::any_of(secret_bits.begin(), secret_bits.end(), [](std::uint8_t bits) { return bits != 0; });
}

// The party's key once more, from a seed that is secret, and with it its noise and its weights.
void make_secret(Party& party) {
  const ring::StreamKey seed = Party::secret_seed();
  make_secret(seed);
  party.secret = party.scheme->generate_secret(seed);
  make_secret(party.noise);
  make_secret(party.weights.data(), party.weights.size());
}

template <class Body>
void for_each_backend(Body body) {
  for (const std::string& backend : kernels::supported_backends()) body(backend);
}

// body(table, a secret stream) for both ciphers of every backend. Rows of 2047 take the paths of odd lengths.
template <class Body>
void for_each_stream(Body body) {
  std::uint8_t key[kernels::kStreamKeyBytes] = {1, 2, 3};
  make_secret(key, sizeof key);
  for_each_backend([&](const std::string& backend) {
    for (StreamCipher cipher : {StreamCipher::kChaCha20, StreamCipher::kAes256}) {
      for (std::size_t count : {kDegree, kDegree - 1}) {
        body(kernels::kernels<std::uint32_t>(backend), kernels::PrivateStream{key, cipher}, count);
      }
    }
  });
}

kernels::GaussianTable error_table() {
  namespace tables = kernels::tables;
  return {tables::kCollectiveErrorLargest, tables::kCollectiveErrorVariance, tables::kCollectiveErrorHigh,
          tables::kCollectiveErrorLow};
}

template <class Element>
void quantise(Dtype dtype, kernels::Rounding rounding, bool single_precision) {
  std::vector<Element> weights(300, Element{1}), reference(300, Element{2});
  make_secret(weights.data(), weights.size());
  std::uint8_t key[kernels::kStreamKeyBytes] = {1, 2, 3};
  make_secret(key, sizeof key);
  const kernels::TensorSpan span{weights.data(), weights.size(), dtype, weights.size(), weights.size()};
  const kernels::TensorSpan subtracted{reference.data(), reference.size(), dtype, reference.size(), reference.size()};
  kernels::Codec codec{};
  codec.clip = 1;
  codec.multiplier = 1000;
  codec.single_precision = single_precision;
  codec.rounding = rounding;
  codec.values_per_coefficient = 1;
  codec.block_values = 256;
  for_each_backend([&](const std::string& backend) {
    for (std::size_t references : {0, 1}) {
      kernels::QuantizeReport report;
      std::vector<std::int64_t> out(weights.size());
      const kernels::Message message{
          &codec, {&span, 1}, {&subtracted, references}, {key, StreamCipher::kChaCha20}, &report};
      kernels::kernels<std::uint32_t>(backend).quantize(message, 0, out.size(), out.data());
      CHECK(is_secret(out));
    }
  });
}

// What must be found, or the others prove nothing.
struct Leaks {
  [[gnu::noinline]] static void branch_on(std::uint8_t value) {
    if (value > 7) asm volatile("nop");  // keeps the branch from becoming arithmetic
  }
  [[gnu::noinline]] static std::uint8_t index_by(const std::uint8_t* bytes, std::uint8_t value) { return bytes[value]; }
};

}  // namespace

TEST(positive_controls) {
  std::uint8_t secret = 5, table[256] = {};
  make_secret(&secret, 1);
  Leaks::branch_on(secret);
  volatile std::uint8_t found = Leaks::index_by(table, secret);
  static_cast<void>(found);
}

TEST(streams) {
  for_each_stream([](const auto& table, const kernels::PrivateStream& stream, std::size_t count) {
    std::vector<std::uint32_t> out(count);
    table.stream(stream, 3, 5, 7, count, out.data());
    CHECK(is_secret(out));
  });
}

TEST(gaussian_sampler) {
  for_each_stream([](const auto& table, const kernels::PrivateStream& stream, std::size_t count) {
    std::vector<std::int32_t> out(count);
    table.gaussian(error_table(), stream, Lane::kError0, 0, count, out.data());
    CHECK(is_secret(out));
  });
}

TEST(ternary_sampler) {
  for_each_stream([](const auto& table, const kernels::PrivateStream& stream, std::size_t count) {
    std::vector<std::int32_t> out(count);
    table.ternary(stream, Lane::kEphemeral, 0, count, out.data());
    CHECK(is_secret(out));
  });
}

// As Scheme::mask uses it, whose seed is secret.
TEST(uniform_sampler) {
  const ring::Ring<std::uint32_t> narrow(11, {2147389441});
  const ring::Ring<std::uint64_t> wide(12, {1125899906826241});
  std::uint8_t key[kernels::kStreamKeyBytes] = {1, 2, 3};
  make_secret(key, sizeof key);
  for_each_backend([&](const std::string& backend) {
    std::vector<std::uint32_t> row(narrow.degree());
    kernels::kernels<std::uint32_t>(backend).uniform(narrow.table().primes[0], 11, key, 0, 0, row.data());
    std::vector<std::uint64_t> wide_row(wide.degree());
    kernels::kernels<std::uint64_t>(backend).uniform(wide.table().primes[0], 12, key, 0, 0, wide_row.data());
    CHECK(is_secret(row) && is_secret(wide_row));
  });
}

TEST(quantiser) {
  for (const auto rounding : {kernels::Rounding::kNearest, kernels::Rounding::kStochastic}) {
    for (bool single_precision : {true, false}) {
      quantise<float>(Dtype::kFloat32, rounding, single_precision);
      quantise<double>(Dtype::kFloat64, rounding, single_precision);
      quantise<std::uint16_t>(Dtype::kFloat16, rounding, single_precision);
      quantise<std::uint16_t>(Dtype::kBfloat16, rounding, single_precision);
    }
  }
}

TEST(key_set_up) {
  for_each_backend([](const std::string& backend) {
    for (const tests::ParameterSet& set : tests::parameter_sets()) {
      const auto scheme = ckks::Scheme::create(tests::parameters_of(set), backend, "");
      const ring::StreamKey seed = Party::secret_seed(), error = Party::secret_seed();
      make_secret(seed);
      make_secret(error);
      const auto secret = scheme->generate_secret(seed);
      if (set.keys == ckks::KeyMode::kPublic) {
        std::vector<std::uint8_t> pk0(set.primes.size() * set.ring_dimension * scheme->word_bytes());
        const std::uint8_t public_seed[kernels::kStreamKeyBytes] = {};
        scheme->generate_public(*secret, error, public_seed, pk0.data());
        CHECK(is_secret(pk0));  // until it is sent
      }
      // A roster's sum of secrets, as it comes back.
      scheme->secret_from_coefficients(secret->coefficients().data());
    }
  });
}

TEST(encryption_and_opening) {
  set_thread_count(1);
  for_each_backend([](const std::string& backend) {
    for (const tests::ParameterSet& set : tests::parameter_sets()) {
      // Two blocks, the last one cut.
      Party party(set, backend, set.ring_dimension * set.values_per_coefficient + 333);
      make_secret(party);
      const Party::Bytes c = party.encrypt();
      CHECK(is_secret(c));  // until it is sent
      make_public(c.data(), c.size());
      party.add(c);
      party.hop(c);
      CHECK(is_secret(party.open(c)));
    }
  });
}

TEST(prepared_encryption) {
  set_thread_count(1);
  for_each_backend([](const std::string& backend) {
    for (const tests::ParameterSet& set : tests::parameter_sets()) {
      Party party(set, backend, set.ring_dimension * set.values_per_coefficient + 333);
      if (party.public_key) continue;
      make_secret(party);
      ckks::PadStore store(*party.scheme, *party.secret, party.noise, party.public_seed, party.all());
      store.fill();
      Party::Bytes out(party.row_bytes());
      kernels::QuantizeReport report;
      CHECK(party.scheme->encrypt_prepared(store.words(), true, party.noise, party.plain(), party.all(), nullptr,
                                           {out.data(), nullptr}, &report));
      CHECK(is_secret(out));
    }
  });
}
