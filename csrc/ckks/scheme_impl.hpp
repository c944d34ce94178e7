// Scheme for one word width. Included by the scheme*.cpp files only.
#pragma once

#include <memory>
#include <string>

#include "base/check.hpp"
#include "ckks/scheme.hpp"
#include "ckks/slot_codec.hpp"
#include "ring/ring.hpp"

namespace pppml::ckks {

template <class Word>
class SecretKeyImpl final : public SecretKey {
 public:
  SecretKeyImpl(KeyBuffer<std::int64_t> coefficients, std::size_t words)
      : SecretKey(std::move(coefficients)), factor(words) {}

  // The secret as a factor in the ring of `words` words per block; throws RequirementError for a key of another ring,
  // and in a forked child.
  static const ring::SecretFactor<Word>& factor_of(const SecretKey& key, std::size_t words) {
    const auto* own = dynamic_cast<const SecretKeyImpl*>(&key);
    require(own != nullptr && own->factor.values.size() == words, "the secret key belongs to another ring");
    own->check_process();
    return own->factor;
  }

  ring::SecretFactor<Word> factor;
};

template <class Word>
class PublicKeyImpl final : public PublicKey {
 public:
  explicit PublicKeyImpl(std::size_t words) : factor0(words), factor1(words) {}
  ring::PublicFactor<Word> factor0, factor1;
};

template <class Word>
class SchemeImpl final : public Scheme {
  using QuantizeReport = kernels::QuantizeReport;

 public:
  SchemeImpl(const Parameters& parameters, const std::string& backend, kernels::StreamCipher private_cipher);

  std::size_t word_bytes() const override { return sizeof(Word); }
  std::unique_ptr<SecretKey> generate_secret(const ring::StreamKey& seed) const override;
  std::unique_ptr<SecretKey> secret_from_coefficients(const std::int64_t* coefficients) const override;
  void generate_public(const SecretKey& secret, const ring::StreamKey& error, const std::uint8_t* seed,
                       void* pk0) const override;
  std::unique_ptr<PublicKey> load_public(const void* pk0, const std::uint8_t* seed) const override;
  std::unique_ptr<PublicKey> load_public_pair(const void* pk0, const void* pk1) const override;
  kernels::QuantizeReport quantize(const Plain& plain, const ring::StreamKey* rounding, const Range& range,
                                   std::int64_t* out) const override;
  bool encrypt(const SecretKey& secret, const ring::StreamKey& noise, const std::uint8_t* public_seed,
               const Plain& plain, const Range& range, const std::uint8_t* incoming, const RowTarget& out,
               kernels::QuantizeReport* report) const override;
  void make_pads(const SecretKey& secret, const ring::StreamKey& noise, const std::uint8_t* public_seed,
                 const Range& range, void* pads) const override;
  bool encrypt_prepared(void* pads, bool consume, const ring::StreamKey& noise, const Plain& plain, const Range& range,
                        const std::uint8_t* incoming, const RowTarget& out,
                        kernels::QuantizeReport* report) const override;
  kernels::QuantizeReport encrypt_public(const PublicKey& key, const ring::StreamKey& noise, const Plain& plain,
                                         const Range& range, const RowTarget& c0, const RowTarget& c1) const override;
  void add(const Extent& extent, const void* const* inputs, std::size_t count, void* out) const override;
  void expand(std::uint64_t length, const std::uint8_t* public_seed, void* out) const override;
  void expand_ntt(const std::uint8_t* public_seed, void* out) const override;
  void mask(const Extent& extent, const std::uint8_t* seed, bool subtract, const void* in, void* out) const override;
  kernels::OpenReport open(const SecretKey& secret, const Range& range, std::uint64_t terms, const RowSource& c0,
                           const RowSource& c1, const std::uint8_t* public_seed, const Opened& out) const override;
  void restore_slots(std::uint64_t length, const std::int64_t* integers, const Opened& out) const override;
  void pack(const Extent& extent, std::uint64_t start, std::uint64_t stop, const void* in,
            std::uint8_t* out) const override;
  bool unpack(const Extent& extent, std::uint64_t start, std::uint64_t stop, const std::uint8_t* in,
              void* out) const override;
  bool hop(const Extent& extent, std::uint64_t start, std::uint64_t stop, const std::uint8_t* in, const void* mine,
           std::uint8_t* out) const override;
  bool tag(const Extent& extent, std::uint64_t start, std::uint64_t stop, const std::uint8_t* key, const RowSource& in,
           void* tags) const override;

  const ring::Ring<Word>& ring() const { return ring_; }
  const kernels::KernelTable<Word>& kernels() const { return kernels_; }
  const kernels::GaussianTable& error_table() const;

 private:
  // Rows of a public key, checked, into a factor that is not complete yet.
  void load_rows(const void* rows, ring::PublicFactor<Word>& factor) const;
  std::unique_ptr<SecretKey> make_secret(KeyBuffer<std::int64_t> coefficients) const;
  // plain NTT form already in the factor -> times N^-1, with companions
  template <class Factor>
  void complete(Factor& factor) const;
  // row l of a small integer polynomial, in NTT form
  void transform_small(const std::int64_t* coefficients, std::size_t l, Word* row) const;
  // row l of block `block` of a public expansion
  void uniform(const std::uint8_t* key, std::size_t l, std::uint64_t block, Word* row) const {
    kernels_.uniform(ring_.table().primes[l], ring_.table().log_degree, key, static_cast<std::uint32_t>(l), block, row);
  }
  kernels::PrivateStream stream(const ring::StreamKey& key) const { return {key.data(), private_cipher()}; }
  // The same rows from block `begin` of the range on.
  kernels::RowsIn<Word> rows(const RowSource& source, std::size_t begin) const;
  kernels::RowsOut<Word> rows(const RowTarget& target, std::size_t begin) const;
  // Rows of the whole ring from block `begin` on.
  kernels::RowsIn<Word> moved(const kernels::RowsIn<Word>& source, std::size_t begin) const {
    return rows(RowSource{source.words, source.packed}, begin);
  }
  kernels::OpenTarget open_target(std::size_t count, const Opened& out) const;
  // One part of an opening of slots: `whole` as the kernels take it, but for where its integers go.
  void open_slots(const kernels::OpenRequest<Word>& whole, std::size_t count, const Opened& out) const;
  void wipe(const RowTarget& target, const Extent& extent, const Range& range) const;
  // body(part, begin, message) for the weights of a range, part by part; `begin` counts blocks of the range.
  template <class Body>
  QuantizeReport over_messages(const Plain& plain, const kernels::PrivateStream& rounding, const Extent& extent,
                               const Range& range, Body body) const;
  // Messages of a range onto pads made by `body(part, begin, message request)`, part by part.
  template <class Body>
  bool add_messages(const ring::StreamKey& noise, const Plain& plain, const Range& range, const std::uint8_t* incoming,
                    const RowTarget& out, kernels::QuantizeReport* report, Body body) const;

  ring::Ring<Word> ring_;
  // The leading primes, where sums open modulo fewer than all.
  std::unique_ptr<ring::Ring<Word>> opening_ring_;
  const kernels::KernelTable<Word>& kernels_;
  std::unique_ptr<SlotCodec> slots_;
};

}  // namespace pppml::ckks
