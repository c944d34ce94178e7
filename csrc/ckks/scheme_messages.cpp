#include <algorithm>
#include <atomic>
#include <optional>

#include "base/check.hpp"
#include "ckks/scheme_parts.hpp"
#include "ckks/slot_messages.hpp"

namespace pppml::ckks {
namespace {

// Pads of so many blocks are still in the second-level cache when they have been used and are zeroed.
constexpr std::size_t kPadBlocks = 16;

void refuse_non_finite(const QuantizeReport& report) {
  if (report.first_non_finite == UINT64_MAX) return;
  throw NonFiniteError(concatenate("value ", report.first_non_finite, " is NaN or Inf"), report.first_non_finite);
}

}  // namespace

template <class Word>
template <class Body>
QuantizeReport SchemeImpl<Word>::over_messages(const Plain& plain, const kernels::PrivateStream& rounding,
                                               const Extent& extent, const Range& range, Body body) const {
  const kernels::Codec codec = this->codec(plain.weight);
  Reports reports;
  over_blocks(batch(extent, range.start, range.stop), ring_.degree(), [&](const Batch& part, std::size_t begin) {
    QuantizeReport report;
    if (!slots_) {
      body(part, begin, {&codec, plain.tensors, plain.reference, rounding, &report});
    } else {
      SlotMessages messages(*slots_, parameters().clip(), kernels_.load_values);
      over_pieces(part, SlotMessages::kBlocks, ring_.degree(), [&](const Batch& piece, std::size_t b) {
        const kernels::TensorList coefficients = messages.encode(plain, piece, &report);
        body(piece, begin + b, {&codec, coefficients, {}, rounding, &report});
      });
    }
    reports.merge(report);
  });
  return reports.quantized;
}

template <class Word>
QuantizeReport SchemeImpl<Word>::quantize(const Plain& plain, const ring::StreamKey* rounding, const Range& range,
                                          std::int64_t* out) const {
  require(rounding != nullptr || parameters().rounding() == Rounding::kNearest, "stochastic rounding needs a key");
  const kernels::PrivateStream words = rounding == nullptr ? kernels::PrivateStream{} : stream(*rounding);
  const std::size_t width = parameters().block_integers();
  const QuantizeReport report = over_messages(
      plain, words, {range.length, false}, range,
      [&](const Batch& part, std::size_t begin, const kernels::Message& message) {
        const std::uint64_t count = integers({range.length, part.first_block, part.first_block + part.blocks});
        kernels_.quantize(message, part.first_block * width, count, out + begin * width);
      });
  if (report.first_non_finite != UINT64_MAX) std::fill(out, out + integers(range), 0);
  refuse_non_finite(report);
  return report;
}

template <class Word>
template <class Body>
bool SchemeImpl<Word>::add_messages(const ring::StreamKey& noise, const Plain& plain, const Range& range,
                                    const std::uint8_t* incoming, const RowTarget& out, QuantizeReport* report,
                                    Body body) const {
  std::atomic<bool> valid{true};
  const Extent extent{range.length, true};
  *report = over_messages(plain, stream(noise), extent, range,
                          [&](const Batch& part, std::size_t begin, const kernels::Message& message) {
                            const std::uint8_t* from = rows(RowSource{nullptr, incoming}, begin).packed;
                            if (!body(part, begin, {&ring_.table(), part, message, from, rows(out, begin)})) {
                              valid = false;
                            }
                          });
  if (report->first_non_finite != UINT64_MAX || !valid) wipe(out, extent, range);
  refuse_non_finite(*report);
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
                        over_pieces(part, kPadBlocks, ring_.degree(), [&](const Batch& batch, std::size_t b) {
                          kernels::MessageRequest<Word> piece = whole;
                          piece.batch = batch;
                          piece.incoming = rows(RowSource{nullptr, incoming}, begin + b).packed;
                          piece.out = rows(out, begin + b);
                          Word* const used = static_cast<Word*>(pads) + (begin + b) * ring_.block_words();
                          valid = kernels_.encrypt_prepared(used, piece) && valid;
                          const std::size_t full_rows = (batch.blocks - 1) * ring_.degree();
                          const std::size_t count = (full_rows + batch.last_length) * ring_.prime_count();
                          if (consume) pppml::wipe(used, count * sizeof(Word));
                        });
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

template class SchemeImpl<std::uint32_t>;
template class SchemeImpl<std::uint64_t>;

}  // namespace pppml::ckks
