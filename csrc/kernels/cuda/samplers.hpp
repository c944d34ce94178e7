// The samplers of one row, a block of ChaCha20 at a time. A *job* is one such block and what is made of it.
#pragma once

#include "kernels/cuda/chacha20.hpp"
#include "kernels/cuda/transform.hpp"

namespace pppml::kernels::cuda {

// Uniform residues, public. Candidate r of coefficient k is word r N + k of the stream, of 32 or 64 bits.
template <class Shape>
class UniformJobs {
  using Word = typename Shape::Word;
  static constexpr unsigned kWidth = Shape::kNarrow ? 1 : 2;
  static constexpr unsigned kCandidates = kStreamWords / kWidth;

 public:
  static constexpr unsigned kCount = Shape::kDegree / kCandidates;

  PPPML_HD UniformJobs(const DevicePrime<Word>& prime, const DeviceKey& key, std::uint32_t selector,
                       std::uint64_t block)
      : prime_(prime), key_(key), selector_(selector), block_(block) {}

  // Residues [job, job + 1) * kCandidates of the row.
  PPPML_HD void run(unsigned job, Word* row) const {
    const StreamBlock words = stream_block(key_, selector_, block_, job);
    unsigned rejected = 0;
    PPPML_UNROLL
    for (unsigned i = 0; i < kCandidates; ++i) {
      const Word candidate = candidate_of(words, i);
      rejected |= (candidate >= prime_.modulus ? 1u : 0u) << i;
      row[bank_order<Word>(job * kCandidates + i)] = candidate;
    }
    // Rejected candidates tell nothing of the accepted ones, and these are public.
    for (unsigned i = 0; rejected != 0; ++i, rejected >>= 1) {
      if ((rejected & 1) != 0) row[bank_order<Word>(job * kCandidates + i)] = draw_again(job, i);
    }
  }

 private:
  PPPML_HD Word candidate_of(const StreamBlock& words, unsigned i) const {
    const std::uint64_t mask = (std::uint64_t{1} << prime_.bits) - 1;
    if (Shape::kNarrow) return static_cast<Word>(words.words[i] & mask);
    return static_cast<Word>((words.words[kWidth * i] | std::uint64_t{words.words[kWidth * i + kWidth - 1]} << 32) &
                             mask);
  }

  // N is a multiple of the candidates of a block: candidate i of block `job` is followed by i of block job + kCount.
  PPPML_HD Word draw_again(unsigned job, unsigned i) const {
    const std::uint64_t mask = (std::uint64_t{1} << prime_.bits) - 1;
    Word found;
    do {
      job += kCount;
      const StreamBlock words = stream_block(key_, selector_, block_, job);
      std::uint64_t word = words.at(kWidth * i);
      if (!Shape::kNarrow) word |= std::uint64_t{words.at(kWidth * i + 1)} << 32;
      found = static_cast<Word>(word & mask);
    } while (found >= prime_.modulus);
    return found;
  }

  const DevicePrime<Word>& prime_;
  const DeviceKey& key_;
  std::uint32_t selector_;
  std::uint64_t block_;
};

// Small signed samples of a row, a byte each, four to a word.
template <class Shape>
struct SmallRow {
  static constexpr unsigned kJobs = Shape::kDegree / kStreamWords;

  PPPML_HD std::int32_t at(unsigned k) const {
    return static_cast<std::int32_t>(words[k / 4] << (24 - 8 * (k % 4))) >> 24;
  }
  PPPML_HD void set(unsigned k, std::int32_t sample) {
    reinterpret_cast<unsigned char*>(words)[k] = static_cast<unsigned char>(sample);
  }
  // Samples [4 index, 4 index + 4).
  PPPML_HD void set_four(unsigned index, const std::int32_t (&samples)[4]) {
    std::uint32_t packed = 0;
    PPPML_UNROLL
    for (unsigned i = 0; i < 4; ++i) packed |= (static_cast<std::uint32_t>(samples[i]) & 0xff) << (8 * i);
    words[index] = packed;
  }

  std::uint32_t words[Shape::kDegree / 4];
};

// The discrete Gaussian as one look-up across a warp. With v = 2^31 - 1 - top and V[t] = 2^31 - 1 - high[t] the
// magnitude is #{t : v < V[t]}, but for ties. Buckets are the quarters of v's octaves: bucket 0 holds v = 0, and v =
// 2^e (1 + f / 4) lies in 4 e + floor(f) + 1. No bucket holds two thresholds (make_gaussian_lookup checks it), so that
// the magnitude is bases[bucket] + (v < thresholds[bucket]).
PPPML_HD std::uint32_t gaussian_bucket(std::uint32_t v) {
  const unsigned zeros = leading_zeros(v);
  const int bucket = 121 + static_cast<int>((v << (zeros & 31)) >> 29) - 4 * static_cast<int>(zeros);
  return static_cast<std::uint32_t>(bucket > 0 ? bucket : 0);
}

class GaussianLookup {
 public:
  PPPML_HD GaussianLookup(const DeviceGaussian& table, unsigned thread)
      : first_(table.thresholds, thread),
        second_(table.thresholds + 32, thread),
        third_(table.thresholds + 64, thread),
        fourth_(table.thresholds + 96, thread),
        bases_(table.bases, thread) {}

  // One sample; *tied is set where its tie word decides. Neither branch nor address depends on the word.
  PPPML_HD std::int32_t sample(std::uint32_t word, std::uint32_t* tied) const {
    const std::uint32_t v = 0x7fffffffu - (word >> 1);
    const std::uint32_t bucket = gaussian_bucket(v);
    const std::uint32_t first = first_[bucket], second = second_[bucket];
    const std::uint32_t third = third_[bucket], fourth = fourth_[bucket];
    const bool odd = (bucket & 32) != 0;
    const std::uint32_t low = odd ? second : first, high = odd ? fourth : third;
    const std::uint32_t limit = (bucket & 64) != 0 ? high : low;
    const std::uint32_t size = (bases_[bucket / 4] >> (8 * (bucket % 4)) & 0xff) + (v < limit ? 1 : 0);
    *tied |= v == limit ? 1 : 0;
    const std::uint32_t sign = 0u - (word & 1);
    return static_cast<std::int32_t>((size ^ sign) - sign);
  }

 private:
  LaneTable first_, second_, third_, fourth_, bases_;
};

// One block's samples, four at a time: sixteen look-ups side by side would take more registers than there are.
template <class Shape>
PPPML_HD std::uint32_t gaussian_job(const GaussianLookup& lookup, const DeviceKey& key, Lane lane, std::uint64_t block,
                                    unsigned job, SmallRow<Shape>& row) {
  StreamBlock words = stream_block(key, static_cast<std::uint32_t>(lane), block, job);
  std::uint32_t tied = 0;
  PPPML_NO_UNROLL
  for (unsigned quarter = 0; quarter < kStreamWords / 4; ++quarter) {
    std::int32_t samples[4];
    PPPML_UNROLL
    for (unsigned i = 0; i < 4; ++i) samples[i] = lookup.sample(words.words[i], &tied);
    row.set_four(job * (kStreamWords / 4) + quarter, samples);
    PPPML_UNROLL
    for (unsigned i = 0; i < kStreamWords - 4; ++i) words.words[i] = words.words[i + 4];
  }
  return tied;
}

// The samples k = group modulo kTieGroups of a row that holds a tie, exactly as GaussianTable defines them. One row of
// 2048 in 2^14 comes here, which tells neither which coefficient tied nor with what.
template <class Shape>
PPPML_HD void draw_tied_group(const DeviceGaussian& table, const DeviceKey& key, Lane lane, std::uint64_t block,
                              unsigned group, SmallRow<Shape>& row) {
  static_assert(kTieGroups == kStreamWords && 2 * kTieDepth == kStreamWords / 2);
  const std::uint32_t selector = static_cast<std::uint32_t>(lane), ties = static_cast<std::uint32_t>(Lane::kTieOffset);
  std::uint64_t lows[kTieDepth];
  {
    const StreamBlock words = stream_block(key, selector + ties, block, group / 2);
    PPPML_UNROLL
    for (unsigned d = 0; d < kTieDepth; ++d) {
      const bool second = group % 2 != 0;
      const std::uint32_t low = second ? words.words[2 * (d + kTieDepth)] : words.words[2 * d];
      const std::uint32_t high = second ? words.words[2 * (d + kTieDepth) + 1] : words.words[2 * d + 1];
      lows[d] = low | std::uint64_t{high} << 32;
    }
  }
  std::uint32_t used = 0;
  PPPML_NO_UNROLL
  for (unsigned job = 0; job < SmallRow<Shape>::kJobs; ++job) {
    const std::uint32_t word = stream_block(key, selector, block, job).at(group), top = word >> 1;
    std::uint64_t low = 0;
    PPPML_UNROLL
    for (unsigned d = 0; d < kTieDepth; ++d) low = d == used ? lows[d] : low;
    std::uint32_t size = 0, tied = 0;
    PPPML_NO_UNROLL
    for (unsigned t = 0; t < table.largest; ++t) {
      const std::uint32_t equal = top == table.high[t] ? 1 : 0;
      size += (top > table.high[t] ? 1 : 0) + (equal & (low >= table.low[t] ? 1u : 0u));
      tied |= equal;
    }
    const std::uint32_t sign = 0u - (word & 1);
    row.set(job * kStreamWords + group, static_cast<std::int32_t>((size ^ sign) - sign));
    used += tied & (used + 1 < kTieDepth ? 1u : 0u);
  }
}

// floor(3 w / 2^32) - 1
template <class Shape>
PPPML_HD void ternary_job(const DeviceKey& key, Lane lane, std::uint64_t block, unsigned job, SmallRow<Shape>& row) {
  const StreamBlock words = stream_block(key, static_cast<std::uint32_t>(lane), block, job);
  PPPML_UNROLL
  for (unsigned w = 0; w < kStreamWords / 4; ++w) {
    std::int32_t samples[4];
    PPPML_UNROLL
    for (unsigned i = 0; i < 4; ++i) {
      samples[i] = static_cast<std::int32_t>(multiply_high<std::uint32_t>(words.words[4 * w + i], 3)) - 1;
    }
    row.set_four(job * (kStreamWords / 4) + w, samples);
  }
}

}  // namespace pppml::kernels::cuda
