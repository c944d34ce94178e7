// Keys, encryption, addition and exact opening under one parameter set, on one backend.
//
// Word width is erased here: residues travel as `void*` to uint32 (all primes below 2^31) or uint64 words, row after
// row, block after block, as kernels/contract.hpp lays them out. A *cut* polynomial ends with the coefficients in use;
// an uncut one has N in its last block too.
#pragma once

#include <memory>
#include <string>

#include "base/key_buffer.hpp"
#include "ckks/parameters.hpp"
#include "kernels/contract.hpp"
#include "ring/stream_key.hpp"

namespace pppml::ckks {

// A secret polynomial with small coefficients: s, s_i, or the opened S_U. Wiped at its end.
class SecretKey {
 public:
  virtual ~SecretKey() = default;
  // Throws RequirementError in a forked child, like ring::StreamKey::data.
  const KeyBuffer<std::int64_t>& coefficients() const;
  // Squared Euclidean norm.
  double squared_norm() const;

 protected:
  explicit SecretKey(KeyBuffer<std::int64_t> coefficients) : coefficients_(std::move(coefficients)) {}
  void check_process() const { owner_.check(); }

 private:
  KeyBuffer<std::int64_t> coefficients_;
  ring::OwnerProcess owner_;
};

// (pk0, pk1) = (-a s + e, a) in NTT form, a expanded from a public seed.
class PublicKey {
 public:
  virtual ~PublicKey() = default;
};

// A polynomial of a ciphertext of `length` weights.
struct Extent {
  std::uint64_t length;  // weights in the whole ciphertext
  bool cut;              // whether the polynomial's last block is cut
};

// Blocks [start, stop) of a vector of `length` weights. Rows given for a range begin with its first block.
struct Range {
  std::uint64_t length, start, stop;
};

// Rows of a range, as residue words or packed for the wire: one pointer is set.
struct RowSource {
  const void* words = nullptr;
  const std::uint8_t* packed = nullptr;
};
struct RowTarget {
  void* words = nullptr;
  std::uint8_t* packed = nullptr;
};

// The weights of a whole vector, what is subtracted from them (or no spans), and this party's share.
struct Plain {
  kernels::TensorList tensors, reference;
  double weight;
};

// Where an opened range goes: exactly one pointer is set. Floats are (double)value * step, rounded to their type.
struct Opened {
  std::int64_t* integers = nullptr;
  float* singles = nullptr;
  double* doubles = nullptr;
};

class Scheme {
 public:
  // backend: a name for kernels::choose_backend. cipher: what private streams are expanded with, "chacha20" or
  // "aes256"; empty for the backend's choice.
  static std::unique_ptr<Scheme> create(const Parameters& parameters, const std::string& backend,
                                        const std::string& cipher);
  virtual ~Scheme() = default;

  const Parameters& parameters() const { return parameters_; }
  const std::string& backend() const { return backend_; }
  kernels::StreamCipher private_cipher() const { return private_cipher_; }
  virtual std::size_t word_bytes() const = 0;

  // Words of a polynomial per extent, and bytes of its blocks [start, stop) on the wire.
  std::size_t words(const Extent& extent) const;
  std::size_t words(const Extent& extent, std::uint64_t start, std::uint64_t stop) const;
  std::size_t packed_bytes(const Extent& extent, std::uint64_t start, std::uint64_t stop) const;

  // Weights of a range, and the integers that they are quantised to.
  std::uint64_t weights(const Range& range) const;
  std::uint64_t integers(const Range& range) const;

  // What kernels are told: blocks [start, stop) of a polynomial, how a party of this share quantises, the variance that
  // the residuals of a sum of `terms` encryptions are held to.
  kernels::Batch batch(const Extent& extent, std::uint64_t start, std::uint64_t stop) const;
  kernels::Codec codec(double weight) const;
  double residual_variance(std::uint64_t terms) const;

  // Keys. In public and secret mode s is ternary, with its norm held below the bound that noise_variance assumes.
  virtual std::unique_ptr<SecretKey> generate_secret(const ring::StreamKey& seed) const = 0;
  virtual std::unique_ptr<SecretKey> secret_from_coefficients(const std::int64_t* coefficients) const = 0;
  // Writes pk0 in NTT form, L * N words.
  virtual void generate_public(const SecretKey& secret, const ring::StreamKey& error, const std::uint8_t* seed,
                               void* pk0) const = 0;
  virtual std::unique_ptr<PublicKey> load_public(const void* pk0, const std::uint8_t* seed) const = 0;
  // Both polynomials as rows in NTT form: a key of another library.
  virtual std::unique_ptr<PublicKey> load_public_pair(const void* pk0, const void* pk1) const = 0;

  // Quantised values of blocks of the vector, share already applied. All operations that quantise refuse NaN and Inf
  // (NonFiniteError) and leave zeros behind. `rounding` is read where rounding is stochastic, and may be null else.
  virtual kernels::QuantizeReport quantize(const Plain& plain, const ring::StreamKey* rounding, const Range& range,
                                           std::int64_t* out) const = 0;

  // c0 under a secret key and a_j expanded from `public_seed` (secret and collective mode), plus the packed rows
  // `incoming` unless null, which may share memory with `out`. False when a residue of them is not below its prime.
  virtual bool encrypt(const SecretKey& secret, const ring::StreamKey& noise, const std::uint8_t* public_seed,
                       const Plain& plain, const Range& range, const std::uint8_t* incoming, const RowTarget& out,
                       kernels::QuantizeReport* report) const = 0;
  // The part of `encrypt` that needs no weights, and the rest. A pad serves one message: with `consume` every pad of
  // the range is zero on return. Without it `out.words` may be the pads.
  virtual void make_pads(const SecretKey& secret, const ring::StreamKey& noise, const std::uint8_t* public_seed,
                         const Range& range, void* pads) const = 0;
  virtual bool encrypt_prepared(void* pads, bool consume, const ring::StreamKey& noise, const Plain& plain,
                                const Range& range, const std::uint8_t* incoming, const RowTarget& out,
                                kernels::QuantizeReport* report) const = 0;
  virtual kernels::QuantizeReport encrypt_public(const PublicKey& key, const ring::StreamKey& noise, const Plain& plain,
                                                 const Range& range, const RowTarget& c0,
                                                 const RowTarget& c1) const = 0;

  virtual void add(const Extent& extent, const void* const* inputs, std::size_t count, void* out) const = 0;
  // a_j of a seed in coefficient form, uncut.
  virtual void expand(std::uint64_t length, const std::uint8_t* public_seed, void* out) const = 0;
  // Block 0 of them in NTT form: pk1.
  virtual void expand_ntt(const std::uint8_t* public_seed, void* out) const = 0;
  // out = in +- R, R uniform per residue, from a seed.
  virtual void mask(const Extent& extent, const std::uint8_t* seed, bool subtract, const void* in, void* out) const = 0;

  // The quantised values of a range of a sum of `terms` encryptions, as integers or restored to weights; c1 without
  // rows means a_j from `public_seed`. What it wrote must not be released when the report refuses a block or a residue.
  virtual kernels::OpenReport open(const SecretKey& secret, const Range& range, std::uint64_t terms,
                                   const RowSource& c0, const RowSource& c1, const std::uint8_t* public_seed,
                                   const Opened& out) const = 0;

  // Opened coefficients of slots, N per block, as the `length` weights that they stand for, rounded for release.
  virtual void restore_slots(std::uint64_t length, const std::int64_t* integers, const Opened& out) const = 0;

  // Wire form of blocks [start, stop). unpack and hop return false on a residue that is not below its prime.
  virtual void pack(const Extent& extent, std::uint64_t start, std::uint64_t stop, const void* in,
                    std::uint8_t* out) const = 0;
  virtual bool unpack(const Extent& extent, std::uint64_t start, std::uint64_t stop, const std::uint8_t* in,
                      void* out) const = 0;
  virtual bool hop(const Extent& extent, std::uint64_t start, std::uint64_t stop, const std::uint8_t* in,
                   const void* mine, std::uint8_t* out) const = 0;

  // Adds what blocks [start, stop), whose rows begin at `in`, give to the sum check's tags, 2 * L * N words: over the
  // ranges of a ciphertext, from zero on, its tags come together. False on a packed residue not below its prime.
  virtual bool tag(const Extent& extent, std::uint64_t start, std::uint64_t stop, const std::uint8_t* key,
                   const RowSource& in, void* tags) const = 0;

 protected:
  Scheme(const Parameters& parameters, std::string backend, kernels::StreamCipher private_cipher)
      : parameters_(parameters), backend_(std::move(backend)), private_cipher_(private_cipher) {}
  std::uint64_t last_row(const Extent& extent) const;
  kernels::Batch all_blocks(const Extent& extent) const;

 private:
  Parameters parameters_;
  std::string backend_;
  kernels::StreamCipher private_cipher_;
};

}  // namespace pppml::ckks
