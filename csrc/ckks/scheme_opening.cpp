#include <algorithm>
#include <cmath>

#include "base/check.hpp"
#include "ckks/scheme_parts.hpp"
#include "kernels/rows.hpp"

namespace pppml::ckks {
namespace {

// Blocks that open at a time where their coefficients are not what is asked for.
constexpr std::size_t kOpeningBlocks = 4;

// The rows of the leading primes of a few blocks, side by side: what opens.
template <class Word>
class LeadingRows {
 public:
  LeadingRows(const kernels::RingTable<Word>& ring, std::size_t leading, const kernels::KernelTable<Word>& kernels)
      : ring_(ring), leading_(leading), kernels_(kernels), row_(ring.degree()) {}

  // False when a packed residue, leading or not, is not below its prime. Rows that are not given stay so.
  bool load(const kernels::RowsIn<Word>& source, const Batch& batch) {
    given_ = source.given();
    if (!given_) return true;
    if (words_.size() == 0) words_ = Buffer<Word>(kOpeningBlocks * leading_ * ring_.degree());
    kernels::RowReader<Word> reader(source, kernels_.unpack_row);
    for (std::size_t b = 0; b < batch.blocks; ++b) {
      for (std::size_t l = 0; l < ring_.prime_count; ++l) {
        const Word* row = reader.next(ring_.primes[l], ring_.degree(), row_.data());
        if (row == nullptr) return false;
        if (l < leading_) std::copy(row, row + ring_.degree(), words_.data() + (b * leading_ + l) * ring_.degree());
      }
    }
    return true;
  }

  kernels::RowsIn<Word> rows() const {
    return given_ ? kernels::RowsIn<Word>{words_.data(), nullptr} : kernels::RowsIn<Word>{};
  }

 private:
  const kernels::RingTable<Word>& ring_;
  std::size_t leading_;
  const kernels::KernelTable<Word>& kernels_;
  Buffer<Word> row_, words_;
  bool given_ = false;
};

// Weights of opened coefficients, rounded for release.
class SlotValues {
 public:
  SlotValues(const SlotCodec& codec, const Parameters& parameters)
      : codec_(codec),
        step_(parameters.step()),
        release_step_(parameters.release_step()),
        coefficients_(codec.degree()),
        scratch_(codec.degree()),
        values_(codec.block_weights()) {}

  // Block after block from `integers` to wherever `out` says, `count` weights.
  void store(const std::int64_t* integers, std::size_t count, const Opened& out) {
    for (std::size_t done = 0; done < count; done += values_.size(), integers += codec_.degree()) {
      for (std::size_t k = 0; k < codec_.degree(); ++k) coefficients_[k] = static_cast<double>(integers[k]) * step_;
      codec_.decode(coefficients_.data(), scratch_.data(), values_.data());
      const std::size_t here = std::min(values_.size(), count - done);
      for (std::size_t i = 0; i < here; ++i) {
        double value = values_[i];
        if (release_step_ > 0) value = std::nearbyint(value / release_step_) * release_step_;  // a power of two: exact
        if (out.singles != nullptr) out.singles[done + i] = static_cast<float>(value);
        if (out.doubles != nullptr) out.doubles[done + i] = value;
      }
    }
  }

 private:
  const SlotCodec& codec_;
  double step_, release_step_;
  SecretBuffer<double> coefficients_, scratch_, values_;
};

Opened from(const Opened& out, std::size_t first) {
  const auto moved = [&](auto* values) { return values == nullptr ? nullptr : values + first; };
  return {moved(out.integers), moved(out.singles), moved(out.doubles)};
}

}  // namespace

template <class Word>
kernels::OpenTarget SchemeImpl<Word>::open_target(std::size_t count, const Opened& out) const {
  const Headroom& headroom = parameters().headroom();
  return {parameters().values_per_coefficient(),
          headroom.base,
          headroom.sum_bound,
          parameters().step(),
          count,
          out.integers,
          out.singles,
          out.doubles};
}

template <class Word>
void SchemeImpl<Word>::open_slots(const kernels::OpenRequest<Word>& whole, std::size_t count, const Opened& out) const {
  const std::size_t degree = ring_.degree(), block_weights = slots_->block_weights();
  const auto& opening = opening_ring_ ? opening_ring_->table() : ring_.table();
  LeadingRows<Word> c0(ring_.table(), opening.prime_count, kernels_), c1(ring_.table(), opening.prime_count, kernels_);
  SlotValues values(*slots_, parameters());
  SecretBuffer<std::int64_t> integers(kOpeningBlocks * degree);
  over_pieces(whole.batch, kOpeningBlocks, degree, [&](const Batch& piece, std::size_t b) {
    kernels::OpenRequest<Word> request = whole;
    request.ring = &opening;
    request.batch = piece;
    request.c0 = moved(whole.c0, b);
    request.c1 = moved(whole.c1, b);
    if (opening_ring_) {
      if (!c0.load(request.c0, piece) || !c1.load(request.c1, piece)) {
        request.report->invalid_residue = true;
        return;
      }
      request.c0 = c0.rows();
      request.c1 = c1.rows();
    }
    const bool wanted = out.integers != nullptr;
    std::int64_t* const target = wanted ? out.integers + b * degree : integers.data();
    request.out = open_target(piece.blocks * degree, {target, nullptr, nullptr});
    kernels_.open(request);
    if (wanted || request.report->invalid_residue) return;
    values.store(target, std::min(piece.blocks * block_weights, count - b * block_weights),
                 from(out, b * block_weights));
  });
}

template <class Word>
OpenReport SchemeImpl<Word>::open(const SecretKey& secret, const Range& range, std::uint64_t terms, const RowSource& c0,
                                  const RowSource& c1, const std::uint8_t* public_seed, const Opened& out) const {
  const auto& factor = SecretKeyImpl<Word>::factor_of(secret, ring_.block_words());
  const std::size_t width = out.integers != nullptr ? parameters().block_integers() : parameters().block_weights();
  Reports reports;
  over_blocks(batch({range.length, true}, range.start, range.stop), ring_.degree(),
              [&](const Batch& part, std::size_t begin) {
                OpenReport report;
                const Opened target = from(out, begin * width);
                const std::size_t count = weights({range.length, part.first_block, part.first_block + part.blocks});
                const kernels::OpenRequest<Word> request{&ring_.table(),
                                                         part,
                                                         rows(c0, begin),
                                                         rows(c1, begin),
                                                         public_seed,
                                                         factor.view(),
                                                         parameters().headroom().delta,
                                                         residual_variance(terms),
                                                         open_target(count, target),
                                                         &report};
                if (slots_) {
                  open_slots(request, count, target);
                } else {
                  kernels_.open(request);
                }
                reports.merge(report);
              });
  return reports.opened;
}

template <class Word>
void SchemeImpl<Word>::restore_slots(std::uint64_t length, const std::int64_t* integers, const Opened& out) const {
  require(slots_ != nullptr, "these parameters pack coefficients, not slots");
  over_blocks(all_blocks({length, false}), ring_.degree(), [&](const Batch& part, std::size_t begin) {
    const std::size_t count = weights({length, part.first_block, part.first_block + part.blocks});
    SlotValues(*slots_, parameters())
        .store(integers + begin * ring_.degree(), count, from(out, begin * slots_->block_weights()));
  });
}

template class SchemeImpl<std::uint32_t>;
template class SchemeImpl<std::uint64_t>;

}  // namespace pppml::ckks
