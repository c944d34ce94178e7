// Keys, encryption, addition and exact opening under one parameter set, on one backend.
//
// Word width is erased here: residues travel as `void*` to uint32 (all primes below 2^31) or uint64 words, row after
// row, block after block, as kernels/contract.hpp lays them out. A *cut* polynomial ends with the coefficients in use;
// an uncut one has N in its last block too.
#pragma once

#include <memory>
#include <string>

#include "ckks/parameters.hpp"
#include "kernels/contract.hpp"
#include "ring/stream_key.hpp"

namespace pppml::ckks {

// A secret polynomial with small coefficients: s, s_i, or the opened S_U. Wiped at its end.
class SecretKey {
 public:
  virtual ~SecretKey() = default;
  // Throws RequirementError in a forked child, like ring::StreamKey::data.
  const SecretBuffer<std::int64_t>& coefficients() const;
  // Squared Euclidean norm.
  double squared_norm() const;

 protected:
  explicit SecretKey(SecretBuffer<std::int64_t> coefficients) : coefficients_(std::move(coefficients)) {}
  void check_process() const { owner_.check(); }

 private:
  SecretBuffer<std::int64_t> coefficients_;
  ring::OwnerProcess owner_;
};

// (pk0, pk1) = (-a s + e, a) in NTT form, a expanded from a public seed.
class PublicKey {
 public:
  virtual ~PublicKey() = default;
};

// Which blocks of which polynomial an operation works on.
struct Extent {
  std::uint64_t length;  // weights in the whole ciphertext
  bool cut;              // whether the polynomial's last block is cut
};

// Where an opened sum goes: exactly one pointer is set. Floats are (double)value * step, rounded to their type.
struct Opened {
  std::int64_t* integers = nullptr;
  float* singles = nullptr;
  double* doubles = nullptr;
};

class Scheme {
 public:
  // backend: a name for kernels::choose_backend.
  static std::unique_ptr<Scheme> create(const Parameters& parameters, const std::string& backend);
  virtual ~Scheme() = default;

  const Parameters& parameters() const { return parameters_; }
  const std::string& backend() const { return backend_; }
  virtual std::size_t word_bytes() const = 0;

  // Words of a polynomial per extent, and bytes of its blocks [start, stop) on the wire.
  std::size_t words(const Extent& extent) const;
  std::size_t packed_bytes(const Extent& extent, std::uint64_t start, std::uint64_t stop) const;

  // Keys. In public and secret mode s is ternary, with its norm held below the bound that noise_variance assumes.
  virtual std::unique_ptr<SecretKey> generate_secret(const ring::StreamKey& seed) const = 0;
  virtual std::unique_ptr<SecretKey> secret_from_coefficients(const std::int64_t* coefficients) const = 0;
  // Writes pk0 in NTT form, L * N words.
  virtual void generate_public(const SecretKey& secret, const ring::StreamKey& error, const std::uint8_t* seed,
                               void* pk0) const = 0;
  virtual std::unique_ptr<PublicKey> load_public(const void* pk0, const std::uint8_t* seed) const = 0;

  // Quantised values of the tensors' flat vector, weight already applied; refuses NaN and Inf (NonFiniteError).
  virtual kernels::QuantizeReport quantize(const kernels::TensorList& tensors, std::uint64_t length, double weight,
                                           std::int64_t* out) const = 0;

  // c0 under a secret key and a_j expanded from `public_seed` (secret and collective mode).
  virtual kernels::QuantizeReport encrypt(const SecretKey& secret, const ring::StreamKey& private_seed,
                                          const std::uint8_t* public_seed, const kernels::TensorList& tensors,
                                          std::uint64_t length, double weight, void* c0) const = 0;
  virtual kernels::QuantizeReport encrypt_public(const PublicKey& key, const ring::StreamKey& private_seed,
                                                 const kernels::TensorList& tensors, std::uint64_t length,
                                                 double weight, void* c0, void* c1) const = 0;

  virtual void add(const Extent& extent, const void* const* inputs, std::size_t count, void* out) const = 0;
  // a_j of a seed in coefficient form, uncut.
  virtual void expand(std::uint64_t length, const std::uint8_t* public_seed, void* out) const = 0;
  // out = in +- R, R uniform per residue, from a seed.
  virtual void mask(const Extent& extent, const std::uint8_t* seed, bool subtract, const void* in, void* out) const = 0;

  // The `length` quantised values of a sum of `terms` encryptions, as integers or restored to weights; c1 null means
  // a_j from `public_seed`. What it wrote must not be released when the report refuses a block.
  virtual kernels::OpenReport open(const SecretKey& secret, std::uint64_t length, std::uint64_t terms, const void* c0,
                                   const void* c1, const std::uint8_t* public_seed, const Opened& out) const = 0;

  // Wire form of blocks [start, stop). unpack and hop return false on a residue that is not below its prime.
  virtual void pack(const Extent& extent, std::uint64_t start, std::uint64_t stop, const void* in,
                    std::uint8_t* out) const = 0;
  virtual bool unpack(const Extent& extent, std::uint64_t start, std::uint64_t stop, const std::uint8_t* in,
                      void* out) const = 0;
  virtual bool hop(const Extent& extent, std::uint64_t start, std::uint64_t stop, const std::uint8_t* in,
                   const void* mine, std::uint8_t* out) const = 0;

  // 2 * L * N words of the sum check's tags, zero on entry.
  virtual void tag(const Extent& extent, const std::uint8_t* key, const void* in, void* tags) const = 0;

 protected:
  Scheme(const Parameters& parameters, std::string backend) : parameters_(parameters), backend_(std::move(backend)) {}
  std::uint64_t last_row(const Extent& extent) const;
  kernels::Batch batch(const Extent& extent, std::uint64_t start, std::uint64_t stop) const;
  kernels::Batch all_blocks(const Extent& extent) const;
  // Bytes on the wire of one full block.
  std::size_t packed_block_bytes() const;
  // The first `count` values in the message coefficients of a batch.
  void unpack_values(const std::int64_t* coefficients, const kernels::Batch& batch, std::size_t count,
                     std::int64_t* values) const;
  kernels::Codec codec(double weight) const;

 private:
  Parameters parameters_;
  std::string backend_;
};

}  // namespace pppml::ckks
