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

// Pads of so many blocks are still in the second-level cache when they have been used and are zeroed.
constexpr std::size_t kPadBlocks = 16;

// Blocks [begin, end) of a batch.
Batch blocks_of(const Batch& whole, std::size_t begin, std::size_t end, std::size_t degree) {
  return {whole.first_block + begin, end - begin, end == whole.blocks ? whole.last_length : degree};
}

// body(part, begin): `part` is the batch of blocks [begin, ...) of `whole`.
template <class Body>
void over_blocks(const Batch& whole, std::size_t degree, Body body) {
  parallel_for(whole.blocks, kBlocksPerThread,
               [&](std::size_t begin, std::size_t end) { body(blocks_of(whole, begin, end, degree), begin); });
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
    opened.invalid_residue |= part.invalid_residue;
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
kernels::RowsIn<Word> SchemeImpl<Word>::rows(const RowSource& source, std::size_t begin) const {
  if (source.words != nullptr) return {static_cast<const Word*>(source.words) + begin * ring_.block_words(), nullptr};
  if (source.packed == nullptr) return {};
  return {nullptr, source.packed + begin * kernels::packed_block_bytes(ring_.table())};
}

template <class Word>
kernels::RowsOut<Word> SchemeImpl<Word>::rows(const RowTarget& target, std::size_t begin) const {
  if (target.words != nullptr) return {static_cast<Word*>(target.words) + begin * ring_.block_words(), nullptr};
  return {nullptr, target.packed + begin * kernels::packed_block_bytes(ring_.table())};
}

template <class Word>
void SchemeImpl<Word>::wipe(const RowTarget& target, const Extent& extent, const Range& range) const {
  if (target.words != nullptr) {
    std::memset(target.words, 0, words(extent, range.start, range.stop) * sizeof(Word));
  }
  if (target.packed != nullptr) std::memset(target.packed, 0, packed_bytes(extent, range.start, range.stop));
}

template <class Word>
QuantizeReport SchemeImpl<Word>::quantize(const Plain& plain, const ring::StreamKey* rounding, const Range& range,
                                          std::int64_t* out) const {
  require(rounding != nullptr || parameters().rounding() == Rounding::kNearest, "stochastic rounding needs a key");
  const kernels::Codec codec = this->codec(plain.weight);
  const kernels::PrivateStream words = rounding == nullptr ? kernels::PrivateStream{} : stream(*rounding);
  const std::size_t block_weights = parameters().block_weights();
  Reports reports;
  over_blocks(batch({range.length, false}, range.start, range.stop), ring_.degree(),
              [&](const Batch& part, std::size_t begin) {
                QuantizeReport report;
                const std::uint64_t count = weights({range.length, part.first_block, part.first_block + part.blocks});
                kernels_.quantize({&codec, plain.tensors, plain.reference, words, &report},
                                  part.first_block * block_weights, count, out + begin * block_weights);
                reports.merge(report);
              });
  if (reports.quantized.first_non_finite != UINT64_MAX) std::fill(out, out + weights(range), 0);
  refuse_non_finite(reports.quantized);
  return reports.quantized;
}

template <class Word>
template <class Body>
bool SchemeImpl<Word>::add_messages(const ring::StreamKey& noise, const Plain& plain, const Range& range,
                                    const std::uint8_t* incoming, const RowTarget& out, QuantizeReport* report,
                                    Body body) const {
  const kernels::Codec codec = this->codec(plain.weight);
  const kernels::PrivateStream rounding = stream(noise);
  std::atomic<bool> valid{true};
  Reports reports;
  over_blocks(batch({range.length, true}, range.start, range.stop), ring_.degree(),
              [&](const Batch& part, std::size_t begin) {
                QuantizeReport quantized;
                const std::uint8_t* from = rows(RowSource{nullptr, incoming}, begin).packed;
                if (!body(part, begin,
                          {&ring_.table(),
                           part,
                           {&codec, plain.tensors, plain.reference, rounding, &quantized},
                           from,
                           rows(out, begin)})) {
                  valid = false;
                }
                reports.merge(quantized);
              });
  const bool finite = reports.quantized.first_non_finite == UINT64_MAX;
  if (!finite || !valid) wipe(out, {range.length, true}, range);
  refuse_non_finite(reports.quantized);
  *report = reports.quantized;
  return valid;
}

template <class Word>
bool SchemeImpl<Word>::encrypt(const SecretKey& secret, const ring::StreamKey& noise, const std::uint8_t* public_seed,
                               const Plain& plain, const Range& range, const std::uint8_t* incoming,
                               const RowTarget& out, QuantizeReport* report) const {
  const auto& factor = SecretKeyImpl<Word>::factor_of(secret, ring_.block_words());
  const kernels::PrivateStream private_stream = stream(noise);
  return add_messages(noise, plain, range, incoming, out, report,
                      [&](const Batch& part, std::size_t, const kernels::MessageRequest<Word>& message) {
                        return kernels_.encrypt(
                            {&ring_.table(), part, factor.view(), public_seed, private_stream, &error_table()},
                            message);
                      });
}

template <class Word>
void SchemeImpl<Word>::make_pads(const SecretKey& secret, const ring::StreamKey& noise, const std::uint8_t* public_seed,
                                 const Range& range, void* pads) const {
  const auto& factor = SecretKeyImpl<Word>::factor_of(secret, ring_.block_words());
  const kernels::PrivateStream private_stream = stream(noise);
  over_blocks(batch({range.length, true}, range.start, range.stop), ring_.degree(),
              [&](const Batch& part, std::size_t begin) {
                kernels_.make_pads({&ring_.table(), part, factor.view(), public_seed, private_stream, &error_table()},
                                   static_cast<Word*>(pads) + begin * ring_.block_words());
              });
}

template <class Word>
bool SchemeImpl<Word>::encrypt_prepared(void* pads, bool consume, const ring::StreamKey& noise, const Plain& plain,
                                        const Range& range, const std::uint8_t* incoming, const RowTarget& out,
                                        QuantizeReport* report) const {
  return add_messages(noise, plain, range, incoming, out, report,
                      [&](const Batch& part, std::size_t begin, const kernels::MessageRequest<Word>& whole) {
                        bool valid = true;
                        for (std::size_t b = 0; b < part.blocks; b += kPadBlocks) {
                          kernels::MessageRequest<Word> piece = whole;
                          piece.batch = blocks_of(part, b, std::min(b + kPadBlocks, part.blocks), ring_.degree());
                          piece.incoming = rows(RowSource{nullptr, incoming}, begin + b).packed;
                          piece.out = rows(out, begin + b);
                          Word* const used = static_cast<Word*>(pads) + (begin + b) * ring_.block_words();
                          valid = kernels_.encrypt_prepared(used, piece) && valid;
                          const std::size_t full_rows = (piece.batch.blocks - 1) * ring_.degree();
                          const std::size_t count = (full_rows + piece.batch.last_length) * ring_.prime_count();
                          if (consume) pppml::wipe(used, count * sizeof(Word));
                        }
                        return valid;
                      });
}

template <class Word>
QuantizeReport SchemeImpl<Word>::encrypt_public(const PublicKey& key, const ring::StreamKey& noise, const Plain& plain,
                                                const Range& range, const RowTarget& c0, const RowTarget& c1) const {
  const auto& pk = dynamic_cast<const PublicKeyImpl<Word>&>(key);
  require(pk.factor0.values.size() == ring_.block_words(), "the public key belongs to another ring");
  const kernels::PrivateStream private_stream = stream(noise);
  QuantizeReport report;
  try {
    add_messages(noise, plain, range, nullptr, c0, &report,
                 [&](const Batch&, std::size_t begin, const kernels::MessageRequest<Word>& message) {
                   kernels_.encrypt_public({message, pk.factor0.view(), pk.factor1.view(), private_stream,
                                            &error_table(), rows(c1, begin)});
                   return true;
                 });
  } catch (...) {
    wipe(c1, {range.length, false}, range);
    throw;
  }
  return report;
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
OpenReport SchemeImpl<Word>::open(const SecretKey& secret, const Range& range, std::uint64_t terms, const RowSource& c0,
                                  const RowSource& c1, const std::uint8_t* public_seed, const Opened& out) const {
  const auto& factor = SecretKeyImpl<Word>::factor_of(secret, ring_.block_words());
  const KeyMode mode = parameters().keys();
  const double variance = noise_variance(mode, parameters().ring_dimension()) * static_cast<double>(terms) *
                          (mode == KeyMode::kPublic ? kPublicResidualMargin : 1);
  const Headroom& headroom = parameters().headroom();
  Reports reports;
  over_blocks(
      batch({range.length, true}, range.start, range.stop), ring_.degree(), [&](const Batch& part, std::size_t begin) {
        OpenReport report;
        const std::size_t first = begin * parameters().block_weights();
        const auto from_first = [&](auto* values) { return values == nullptr ? nullptr : values + first; };
        const kernels::OpenTarget target{parameters().values_per_coefficient(),
                                         headroom.base,
                                         headroom.sum_bound,
                                         parameters().step(),
                                         weights({range.length, part.first_block, part.first_block + part.blocks}),
                                         from_first(out.integers),
                                         from_first(out.singles),
                                         from_first(out.doubles)};
        kernels_.open({&ring_.table(), part, rows(c0, begin), rows(c1, begin), public_seed, factor.view(),
                       headroom.delta, variance, target, &report});
        reports.merge(report);
      });
  return reports.opened;
}

template <class Word>
void SchemeImpl<Word>::pack(const Extent& extent, std::uint64_t start, std::uint64_t stop, const void* in,
                            std::uint8_t* out) const {
  over_blocks(batch(extent, start, stop), ring_.degree(), [&](const Batch& part, std::size_t begin) {
    const Word* row = static_cast<const Word*>(in) + (start + begin) * ring_.block_words();
    std::uint8_t* bytes = out + begin * kernels::packed_block_bytes(ring_.table());
    for (std::size_t b = 0; b < part.blocks; ++b) {
      const std::size_t length = kernels::row_length(ring_.table(), part, b);
      for (std::size_t l = 0; l < ring_.prime_count(); ++l, row += length) {
        kernels_.pack_row(ring_.table().primes[l], row, length, bytes);
        bytes += kernels::packed_row_bytes(ring_.table().primes[l], length);
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
    const std::uint8_t* bytes = in + begin * kernels::packed_block_bytes(ring_.table());
    for (std::size_t b = 0; b < part.blocks; ++b) {
      const std::size_t length = kernels::row_length(ring_.table(), part, b);
      for (std::size_t l = 0; l < ring_.prime_count(); ++l, row += length) {
        if (!kernels_.unpack_row(ring_.table().primes[l], bytes, length, row)) valid = false;
        bytes += kernels::packed_row_bytes(ring_.table().primes[l], length);
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
    const std::size_t offset = begin * kernels::packed_block_bytes(ring_.table());
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
