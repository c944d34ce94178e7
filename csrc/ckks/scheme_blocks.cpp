#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <vector>

#include "base/check.hpp"
#include "base/modular.hpp"
#include "base/parallel.hpp"
#include "ckks/scheme_impl.hpp"

namespace pppml::ckks {
namespace {

using kernels::Batch;
using kernels::OpenReport;
using kernels::QuantizeReport;

// Public-key noise is no longer independent between coefficients (it is e * u + e1 * s); its squared norm spreads
// wider than a chi-square, so the residual check takes twice the declared variance. Garbage has 79 times it.
constexpr double kPublicResidualMargin = 2;

// Fewer blocks than this are not worth a thread: sixteen take some 100 microseconds, starting one some 20.
constexpr std::size_t kBlocksPerThread = 16;
// Opened blocks held in the cache between rounding and restoring.
constexpr std::size_t kBlocksAtOnce = 16;

// body(part, begin): `part` is the batch of blocks [begin, ...) of `whole`.
template <class Body>
void over_blocks(const Batch& whole, std::size_t degree, Body body) {
  parallel_for(whole.blocks, kBlocksPerThread, [&](std::size_t begin, std::size_t end) {
    const std::size_t last = end == whole.blocks ? whole.last_length : degree;
    body(Batch{whole.first_block + begin, end - begin, last}, begin);
  });
}

void refuse_non_finite(const QuantizeReport& report) {
  if (report.first_non_finite == UINT64_MAX) return;
  throw NonFiniteError(concatenate("value ", report.first_non_finite, " is NaN or Inf"), report.first_non_finite);
}

// Reports of the threads of one call, brought together.
class Reports {
 public:
  void merge(const QuantizeReport& part) {
    const std::lock_guard<std::mutex> lock(mutex_);
    quantized.clipped += part.clipped;
    quantized.first_non_finite = std::min(quantized.first_non_finite, part.first_non_finite);
  }

  void merge(const OpenReport& part) {
    const std::lock_guard<std::mutex> lock(mutex_);
    opened.largest_residual = std::max(opened.largest_residual, part.largest_residual);
    if (!part.block_refused) return;
    opened.worst_block = opened.block_refused ? std::min(opened.worst_block, part.worst_block) : part.worst_block;
    opened.block_refused = true;
  }

  QuantizeReport quantized;
  OpenReport opened;

 private:
  std::mutex mutex_;
};

}  // namespace

template <class Word>
QuantizeReport SchemeImpl<Word>::quantize(const kernels::TensorList& tensors, std::uint64_t length, double weight,
                                          std::int64_t* out) const {
  QuantizeReport report;
  kernels_.quantize(codec(weight), tensors, 0, length, out, &report);
  refuse_non_finite(report);
  return report;
}

template <class Word>
QuantizeReport SchemeImpl<Word>::encrypt(const SecretKey& secret, const ring::StreamKey& private_seed,
                                         const std::uint8_t* public_seed, const kernels::TensorList& tensors,
                                         std::uint64_t length, double weight, void* c0) const {
  const auto& factor = SecretKeyImpl<Word>::factor_of(secret, ring_.block_words());
  const kernels::Codec codec = this->codec(weight);
  const std::uint8_t* private_key = private_seed.data();
  Reports reports;
  over_blocks(all_blocks({length, true}), ring_.degree(), [&](const Batch& part, std::size_t begin) {
    QuantizeReport report;
    Word* out = static_cast<Word*>(c0) + begin * ring_.block_words();
    kernels_.encrypt({&ring_.table(), part, factor.view(), public_seed, private_key, &error_table(), out},
                     {&ring_.table(), part, &codec, tensors, out, &report});
    reports.merge(report);
  });
  if (reports.quantized.first_non_finite != UINT64_MAX) std::memset(c0, 0, words({length, true}) * sizeof(Word));
  refuse_non_finite(reports.quantized);
  return reports.quantized;
}

template <class Word>
QuantizeReport SchemeImpl<Word>::encrypt_public(const PublicKey& key, const ring::StreamKey& private_seed,
                                                const kernels::TensorList& tensors, std::uint64_t length, double weight,
                                                void* c0, void* c1) const {
  const auto& pk = dynamic_cast<const PublicKeyImpl<Word>&>(key);
  require(pk.factor0.values.size() == ring_.block_words(), "the public key belongs to another ring");
  const kernels::Codec codec = this->codec(weight);
  const std::uint8_t* private_key = private_seed.data();
  Reports reports;
  over_blocks(all_blocks({length, true}), ring_.degree(), [&](const Batch& part, std::size_t begin) {
    QuantizeReport report;
    const std::size_t offset = begin * ring_.block_words();
    kernels_.encrypt_public({{&ring_.table(), part, &codec, tensors, static_cast<Word*>(c0) + offset, &report},
                             pk.factor0.view(),
                             pk.factor1.view(),
                             private_key,
                             &error_table(),
                             static_cast<Word*>(c1) + offset});
    reports.merge(report);
  });
  if (reports.quantized.first_non_finite != UINT64_MAX) {
    std::memset(c0, 0, words({length, true}) * sizeof(Word));
    std::memset(c1, 0, words({length, false}) * sizeof(Word));
  }
  refuse_non_finite(reports.quantized);
  return reports.quantized;
}

template <class Word>
void SchemeImpl<Word>::add(const Extent& extent, const void* const* inputs, std::size_t count, void* out) const {
  require(count >= 1, "nothing to add: give at least one ciphertext");
  over_blocks(all_blocks(extent), ring_.degree(), [&](const Batch& part, std::size_t begin) {
    const std::size_t offset = begin * ring_.block_words();
    std::vector<const Word*> parts;
    for (std::size_t i = 0; i < count; ++i) parts.push_back(static_cast<const Word*>(inputs[i]) + offset);
    kernels_.add({&ring_.table(), part, parts.data(), count, static_cast<Word*>(out) + offset});
  });
}

template <class Word>
void SchemeImpl<Word>::expand(std::uint64_t length, const std::uint8_t* public_seed, void* out) const {
  over_blocks(all_blocks({length, false}), ring_.degree(), [&](const Batch& part, std::size_t begin) {
    Word* row = static_cast<Word*>(out) + begin * ring_.block_words();
    for (std::size_t b = 0; b < part.blocks; ++b) {
      for (std::size_t l = 0; l < ring_.prime_count(); ++l, row += ring_.degree()) {
        uniform(public_seed, l, part.first_block + b, row);
        kernels_.inverse_ntt(ring_.table().primes[l], ring_.table().log_degree, row);
      }
    }
  });
}

template <class Word>
void SchemeImpl<Word>::mask(const Extent& extent, const std::uint8_t* seed, bool subtract, const void* in,
                            void* out) const {
  over_blocks(all_blocks(extent), ring_.degree(), [&](const Batch& part, std::size_t begin) {
    SecretBuffer<Word> random(ring_.degree());
    std::size_t at = begin * ring_.block_words();
    for (std::size_t b = 0; b < part.blocks; ++b) {
      const std::size_t length = kernels::row_length(ring_.table(), part, b);
      for (std::size_t l = 0; l < ring_.prime_count(); ++l, at += length) {
        const Word q = ring_.table().primes[l].modulus;
        uniform(seed, l, part.first_block + b, random.data());
        const Word* from = static_cast<const Word*>(in) + at;
        Word* to = static_cast<Word*>(out) + at;
        for (std::size_t k = 0; k < length; ++k) {
          to[k] = subtract ? subtract_mod(from[k], random[k], q) : add_mod(from[k], random[k], q);
        }
      }
    }
  });
}

template <class Word>
OpenReport SchemeImpl<Word>::open(const SecretKey& secret, std::uint64_t length, std::uint64_t terms, const void* c0,
                                  const void* c1, const std::uint8_t* public_seed, const Opened& out) const {
  const auto& factor = SecretKeyImpl<Word>::factor_of(secret, ring_.block_words());
  const KeyMode mode = parameters().keys();
  const double variance = noise_variance(mode, parameters().ring_dimension()) * static_cast<double>(terms) *
                          (mode == KeyMode::kPublic ? kPublicResidualMargin : 1);
  const std::size_t block_weights = parameters().block_weights();
  Reports reports;
  over_blocks(all_blocks({length, true}), ring_.degree(), [&](const Batch& part, std::size_t begin) {
    OpenReport report;
    SecretBuffer<std::int64_t> coefficients(kBlocksAtOnce * ring_.degree()), values(kBlocksAtOnce * block_weights);
    for (std::size_t b = 0; b < part.blocks; b += kBlocksAtOnce) {
      const std::size_t stop = std::min(b + kBlocksAtOnce, part.blocks);
      const Batch few{part.first_block + b, stop - b, stop == part.blocks ? part.last_length : ring_.degree()};
      const std::size_t offset = (begin + b) * ring_.block_words();
      kernels_.open({&ring_.table(), few, static_cast<const Word*>(c0) + offset,
                     c1 == nullptr ? nullptr : static_cast<const Word*>(c1) + offset, public_seed, factor.view(),
                     parameters().headroom().delta, variance, coefficients.data(), &report});
      const std::size_t first = (begin + b) * block_weights;
      const std::size_t count = std::min<std::size_t>(few.blocks * block_weights, length - first);
      unpack_values(coefficients.data(), few, count, values.data());
      restore(values.data(), count, first, out);
    }
    reports.merge(report);
  });
  return reports.opened;
}

template <class Word>
void SchemeImpl<Word>::restore(const std::int64_t* values, std::size_t count, std::size_t first,
                               const Opened& out) const {
  if (out.integers != nullptr) std::copy(values, values + count, out.integers + first);
  if (out.singles != nullptr) kernels_.restore(values, count, parameters().step(), out.singles + first);
  if (out.doubles != nullptr) {
    for (std::size_t i = 0; i < count; ++i) {
      out.doubles[first + i] = static_cast<double>(values[i]) * parameters().step();
    }
  }
}

template <class Word>
void SchemeImpl<Word>::pack(const Extent& extent, std::uint64_t start, std::uint64_t stop, const void* in,
                            std::uint8_t* out) const {
  over_blocks(batch(extent, start, stop), ring_.degree(), [&](const Batch& part, std::size_t begin) {
    const Word* row = static_cast<const Word*>(in) + (start + begin) * ring_.block_words();
    std::uint8_t* bytes = out + begin * packed_block_bytes();
    for (std::size_t b = 0; b < part.blocks; ++b) {
      const std::size_t length = kernels::row_length(ring_.table(), part, b);
      for (std::size_t l = 0; l < ring_.prime_count(); ++l, row += length) {
        kernels_.pack_row(ring_.table().primes[l], row, length, bytes);
        bytes += (length * ring_.table().primes[l].bits + 7) / 8;
      }
    }
  });
}

template <class Word>
bool SchemeImpl<Word>::unpack(const Extent& extent, std::uint64_t start, std::uint64_t stop, const std::uint8_t* in,
                              void* out) const {
  std::atomic<bool> valid{true};
  over_blocks(batch(extent, start, stop), ring_.degree(), [&](const Batch& part, std::size_t begin) {
    Word* row = static_cast<Word*>(out) + (start + begin) * ring_.block_words();
    const std::uint8_t* bytes = in + begin * packed_block_bytes();
    for (std::size_t b = 0; b < part.blocks; ++b) {
      const std::size_t length = kernels::row_length(ring_.table(), part, b);
      for (std::size_t l = 0; l < ring_.prime_count(); ++l, row += length) {
        if (!kernels_.unpack_row(ring_.table().primes[l], bytes, length, row)) valid = false;
        bytes += (length * ring_.table().primes[l].bits + 7) / 8;
      }
    }
  });
  return valid;
}

template <class Word>
bool SchemeImpl<Word>::hop(const Extent& extent, std::uint64_t start, std::uint64_t stop, const std::uint8_t* in,
                           const void* mine, std::uint8_t* out) const {
  std::atomic<bool> valid{true};
  over_blocks(batch(extent, start, stop), ring_.degree(), [&](const Batch& part, std::size_t begin) {
    const Word* words = static_cast<const Word*>(mine) + (start + begin) * ring_.block_words();
    const std::size_t offset = begin * packed_block_bytes();
    if (!kernels_.hop({&ring_.table(), part, in + offset, words, out + offset})) valid = false;
  });
  return valid;
}

template <class Word>
void SchemeImpl<Word>::tag(const Extent& extent, const std::uint8_t* key, const void* in, void* tags) const {
  kernels_.tag({&ring_.table(), all_blocks(extent), static_cast<const Word*>(in), key, static_cast<Word*>(tags)});
}

template class SchemeImpl<std::uint32_t>;
template class SchemeImpl<std::uint64_t>;

}  // namespace pppml::ckks
