#include "kernels/avx512/streams.hpp"

#include <cpuid.h>

#include <algorithm>

#include "base/buffer.hpp"
#include "kernels/avx512/chacha20.hpp"
#include "kernels/avx512/gaussian.hpp"
#include "kernels/avx512/vaes.hpp"
#include "kernels/scalar/stream.hpp"

namespace pppml::kernels::avx512 {

// Not by __builtin_cpu_supports, to which older compilers that emit the instructions have no name for them. That the
// system saves the registers they use is known already: this file runs on processors with AVX-512 only.
bool vaes_supported() {
  static const bool supported = [] {
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __builtin_cpu_supports("aes") != 0 && __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (c & bit_VAES) != 0;
  }();
  return supported;
}

PrivateWords::PrivateWords(PrivateStream source) : source_(source) {
  if (source.cipher == StreamCipher::kAes256 && vaes_supported()) aes_ = make_aes256_key(source.key);
}

void PrivateWords::read(std::uint32_t selector, std::uint64_t block, std::uint64_t first, std::size_t count,
                        std::uint32_t* out) const {
  if (aes_ != nullptr) return aes256_stream(*aes_, selector, block, first, count, out);
  std::size_t done = 0;
  if (source_.cipher == StreamCipher::kChaCha20 && first % kLanes == 0) {
    const ChaCha20 cipher(source_.key, selector, block);
    for (; done + kBatchWords <= count; done += kBatchWords) {
      cipher.generate(static_cast<std::uint32_t>((first + done) / kLanes), out + done);
    }
  }
  if (done < count) scalar::stream(source_, selector, block, first + done, count - done, out + done);
}

void GaussianSampler::sample_row(const PrivateWords& source, Lane lane, std::uint64_t block, std::size_t count,
                                 std::int32_t* out) const {
  if (count % kBatchWords != 0 || !buckets_.usable()) {
    scalar::gaussian(table_, source.source(), lane, block, count, out);
    return;
  }
  auto* words = reinterpret_cast<std::uint32_t*>(out);
  source.read(static_cast<std::uint32_t>(lane), block, 0, count, words);
  __mmask16 tied = 0;
  for (std::size_t k = 0; k < count; k += kLanes) store(words + k, buckets_.sample(load(words + k), &tied));
  // Some top equals a threshold in one row of 2048 out of 2^14. The branch tells an observer of time that much and no
  // more: not which coefficient, nor which threshold. The scalar sampler then decides every tie without a branch.
  if (tied != 0) scalar::gaussian(table_, source.source(), lane, block, count, out);
}

void ternary(const PrivateWords& source, Lane lane, std::uint64_t block, std::size_t count, std::int32_t* out) {
  if (count % kBatchWords != 0) {
    scalar::ternary(source.source(), lane, block, count, out);
    return;
  }
  auto* words = reinterpret_cast<std::uint32_t*>(out);
  source.read(static_cast<std::uint32_t>(lane), block, 0, count, words);
  const Factor three = broadcast_factor(0, 3);
  for (std::size_t k = 0; k < count; k += kLanes) {
    store(words + k, _mm512_sub_epi32(multiply_high(load(words + k), three), broadcast(1)));
  }
}

void stream(PrivateStream source, std::uint32_t selector, std::uint64_t block, std::uint64_t first, std::size_t count,
            std::uint32_t* out) {
  PrivateWords(source).read(selector, block, first, count, out);
}

void gaussian(const GaussianTable& table, PrivateStream source, Lane lane, std::uint64_t block, std::size_t count,
              std::int32_t* out) {
  GaussianSampler(table).sample_row(PrivateWords(source), lane, block, count, out);
}

void ternary(PrivateStream source, Lane lane, std::uint64_t block, std::size_t count, std::int32_t* out) {
  ternary(PrivateWords(source), lane, block, count, out);
}

}  // namespace pppml::kernels::avx512
