#include "kernels/avx2/streams.hpp"

#include <algorithm>

#include "kernels/scalar/stream.hpp"

namespace pppml::kernels::avx2 {

NoiseSource::NoiseSource(PrivateStream source) : stream_(source) {
  if (source.cipher == StreamCipher::kAes256) aes_.emplace(source.key);
}

void NoiseSource::read(std::uint32_t selector, std::uint64_t block, std::uint64_t first, std::size_t count,
                       std::uint32_t* out) const {
  std::size_t done = 0;
  if (aes_ && first % 4 == 0) {
    for (; done + Aes256::kBatchWords <= count; done += Aes256::kBatchWords) {
      aes_->generate(selector, block, static_cast<std::uint32_t>((first + done) / 4), out + done);
    }
  } else if (!aes_ && first % kColumns == 0 && count >= kBatchWords) {
    const ChaCha20 cipher(stream_.key, selector, block);
    SecretBuffer<std::uint32_t> columns(kBatchWords);
    for (; done + kBatchWords <= count; done += kBatchWords) {
      cipher.generate_columns(static_cast<std::uint32_t>((first + done) / kColumns), columns.data());
      columns_to_rows(columns.data(), out + done);
    }
  }
  if (done < count) scalar::stream(stream_, selector, block, first + done, count - done, out + done);
}

void NoiseSource::ternary(Lane lane, std::uint64_t block, std::size_t count, std::int32_t* out) const {
  if (count % kLanes != 0) return scalar::ternary(stream_, lane, block, count, out);
  auto* words = reinterpret_cast<std::uint32_t*>(out);
  read(static_cast<std::uint32_t>(lane), block, 0, count, words);
  // floor(3 w / 2^32) is how often 3 w wraps: whether w > (2^32 - 1) / 3, and whether w > 2 (2^32 - 1) / 3.
  const Vector flip = broadcast(0x80000000);
  const Vector third = broadcast(0x55555555 ^ 0x80000000), two_thirds = broadcast(0xaaaaaaaa ^ 0x80000000);
  for (std::size_t k = 0; k < count; k += kLanes) {
    const Vector w = _mm256_xor_si256(load(words + k), flip);
    const Vector wraps = _mm256_add_epi32(_mm256_cmpgt_epi32(w, third), _mm256_cmpgt_epi32(w, two_thirds));
    store(words + k, _mm256_sub_epi32(broadcast(0xffffffff), wraps));
  }
}

void GaussianSampler::sample_row(const NoiseSource& noise, Lane lane, std::uint64_t block, std::size_t count,
                                 std::int32_t* out) const {
  bool decided = false;
  if (count % BucketTable::kSamples == 0 && buckets_.usable()) {
    auto* words = reinterpret_cast<std::uint32_t*>(out);
    noise.read(static_cast<std::uint32_t>(lane), block, 0, count, words);
    decided = buckets_.sample(words, count);
  }
  // Some top equals a threshold in one row of 2048 out of 2^14. The branch tells an observer of time that much and no
  // more: not which coefficient, nor which threshold. The scalar sampler then decides every tie without a branch.
  if (!decided) {
    scalar::gaussian(table_, noise.stream(), lane, block, count, out);
  }
}

UniformRow::UniformRow(const Prime32& prime, unsigned log_degree, const std::uint8_t* key, std::uint32_t selector,
                       std::uint64_t block)
    : prime_(prime),
      degree_(std::size_t{1} << log_degree),
      key_(key),
      selector_(selector),
      block_(block),
      cipher_(key, selector, block) {}

void UniformRow::expand(std::size_t chunk, Word* columns) const {
  const Vector mask = broadcast((std::uint32_t{1} << prime_.bits) - 1), largest = broadcast(prime_.modulus - 1);
  Vector rejected = _mm256_setzero_si256();
  cipher_.generate_columns(static_cast<std::uint32_t>(chunk * kLanes), columns);
  for (std::size_t k = 0; k < kBatchWords; k += kLanes) {
    const Vector candidate = _mm256_and_si256(load(columns + k), mask);
    rejected = _mm256_or_si256(rejected, _mm256_cmpgt_epi32(candidate, largest));
    store(columns + k, candidate);
  }
  // Rejected candidates tell nothing of the accepted ones: looking only at them is no leak, also where the row is
  // secret.
  if (_mm256_testz_si256(rejected, rejected) != 0) return;
  for (std::size_t k = 0; k < kBatchWords; ++k) {
    if (columns[k] < prime_.modulus) continue;
    columns[k] = replacement(chunk * kBatchWords + kColumns * (k % kLanes) + k / kLanes);
  }
}

Word UniformRow::replacement(std::size_t k) const {
  const Word mask = (std::uint32_t{1} << prime_.bits) - 1;
  for (std::uint64_t attempt = 1;; ++attempt) {
    Word word = 0;
    scalar::stream({key_, StreamCipher::kChaCha20}, selector_, block_, attempt * degree_ + k, 1, &word);
    if ((word & mask) < prime_.modulus) return word & mask;
  }
}

void stream(PrivateStream source, std::uint32_t selector, std::uint64_t block, std::uint64_t first, std::size_t count,
            std::uint32_t* out) {
  NoiseSource(source).read(selector, block, first, count, out);
}

void uniform(const Prime32& prime, unsigned log_degree, const std::uint8_t* key, std::uint32_t selector,
             std::uint64_t block, Word* out) {
  if (log_degree < kSmallestLogDegree) return scalar::uniform(prime, log_degree, key, selector, block, out);
  const UniformRow row(prime, log_degree, key, selector, block);
  SecretBuffer<Word> columns(kBatchWords);
  for (std::size_t chunk = 0; chunk < (std::size_t{1} << log_degree) / kBatchWords; ++chunk) {
    row.expand(chunk, columns.data());
    columns_to_rows(columns.data(), out + chunk * kBatchWords);
  }
}

void gaussian(const GaussianTable& table, PrivateStream source, Lane lane, std::uint64_t block, std::size_t count,
              std::int32_t* out) {
  GaussianSampler(table).sample_row(NoiseSource(source), lane, block, count, out);
}

void ternary(PrivateStream source, Lane lane, std::uint64_t block, std::size_t count, std::int32_t* out) {
  NoiseSource(source).ternary(lane, block, count, out);
}

}  // namespace pppml::kernels::avx2
