#include "kernels/scalar/stream.hpp"

#include <algorithm>
#include <cstring>

#include "base/buffer.hpp"
#include "kernels/scalar/aes256.hpp"

namespace pppml::kernels::scalar {
namespace {

constexpr std::size_t kWordsPerBlock = 16;  // one ChaCha20 block is 64 bytes
constexpr std::size_t kChunkWords = 256;

std::uint32_t load_word(const std::uint8_t* bytes) {
  return std::uint32_t{bytes[0]} | std::uint32_t{bytes[1]} << 8 | std::uint32_t{bytes[2]} << 16 |
         std::uint32_t{bytes[3]} << 24;
}

std::uint32_t rotate_left(std::uint32_t x, unsigned bits) {
  return (x << bits) | (x >> (32 - bits));
}

void quarter_round(std::uint32_t& a, std::uint32_t& b, std::uint32_t& c, std::uint32_t& d) {
  a += b, d = rotate_left(d ^ a, 16);
  c += d, b = rotate_left(b ^ c, 12);
  a += b, d = rotate_left(d ^ a, 8);
  c += d, b = rotate_left(b ^ c, 7);
}

// The block function of RFC 8439, section 2.3.
class ChaCha20 {
 public:
  ChaCha20(const std::uint8_t* key, std::uint32_t selector, std::uint64_t block) {
    constexpr std::uint32_t kConstants[4] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574};
    std::copy(kConstants, kConstants + 4, state_);
    for (int i = 0; i < 8; ++i) state_[4 + i] = load_word(key + 4 * i);
    state_[12] = 0;
    state_[13] = selector;
    state_[14] = static_cast<std::uint32_t>(block);
    state_[15] = static_cast<std::uint32_t>(block >> 32);
  }
  ~ChaCha20() { wipe(state_, sizeof state_); }

  void generate(std::uint32_t counter, std::uint32_t* out) {
    state_[12] = counter;
    std::uint32_t x[kWordsPerBlock];
    std::copy(state_, state_ + kWordsPerBlock, x);
    for (int round = 0; round < 10; ++round) {
      quarter_round(x[0], x[4], x[8], x[12]);
      quarter_round(x[1], x[5], x[9], x[13]);
      quarter_round(x[2], x[6], x[10], x[14]);
      quarter_round(x[3], x[7], x[11], x[15]);
      quarter_round(x[0], x[5], x[10], x[15]);
      quarter_round(x[1], x[6], x[11], x[12]);
      quarter_round(x[2], x[7], x[8], x[13]);
      quarter_round(x[3], x[4], x[9], x[14]);
    }
    for (std::size_t i = 0; i < kWordsPerBlock; ++i) out[i] = x[i] + state_[i];
    wipe(x, sizeof x);
  }

 private:
  std::uint32_t state_[kWordsPerBlock];
};

void chacha20_stream(const std::uint8_t* key, std::uint32_t selector, std::uint64_t block, std::uint64_t first,
                     std::size_t count, std::uint32_t* out) {
  ChaCha20 cipher(key, selector, block);
  std::uint32_t words[kWordsPerBlock];
  while (count > 0) {
    const std::size_t skip = first % kWordsPerBlock;
    const std::size_t take = std::min(count, kWordsPerBlock - skip);
    cipher.generate(static_cast<std::uint32_t>(first / kWordsPerBlock), words);
    std::copy(words + skip, words + skip + take, out);
    first += take, count -= take, out += take;
  }
  wipe(words, sizeof words);
}

}  // namespace

void stream(PrivateStream source, std::uint32_t selector, std::uint64_t block, std::uint64_t first, std::size_t count,
            std::uint32_t* out) {
  const auto cipher_stream = source.cipher == StreamCipher::kAes256 ? aes256_stream : chacha20_stream;
  cipher_stream(source.key, selector, block, first, count, out);
}

namespace {

// Candidate word `index` of a stream, 32 or 64 bits wide, masked to `bits`.
template <class Word>
struct Candidates {
  // q < 2^31 takes 32-bit words also where residues are held in 64.
  static bool narrow(const PrimeTable<Word>& prime) { return prime.bits <= 31; }

  static void read(const PrimeTable<Word>& prime, const std::uint8_t* key, std::uint32_t selector, std::uint64_t block,
                   std::uint64_t first, std::size_t count, Word* out) {
    std::uint32_t words[kChunkWords];
    const std::size_t width = narrow(prime) ? 1 : 2;
    const std::uint64_t mask = (std::uint64_t{1} << prime.bits) - 1;
    for (std::size_t done = 0; done < count;) {
      const std::size_t step = std::min(count - done, kChunkWords / width);
      stream({key, StreamCipher::kChaCha20}, selector, block, (first + done) * width, step * width, words);
      for (std::size_t i = 0; i < step; ++i) {
        std::uint64_t word = words[width * i];
        if (width == 2) word |= std::uint64_t{words[2 * i + 1]} << 32;
        out[done + i] = static_cast<Word>(word & mask);
      }
      done += step;
    }
    wipe(words, sizeof words);  // of a mask they are secret
  }
};

std::uint64_t mask_if(bool condition) {
  return std::uint64_t{0} - static_cast<std::uint64_t>(condition);
}

// Magnitude of one sample, and whether its tie word was looked at. Constant time: every threshold is compared.
std::uint32_t magnitude(const GaussianTable& table, std::uint32_t top, std::uint64_t low, bool* tied) {
  std::uint32_t count = 0, ties = 0;
  for (unsigned t = 0; t < table.largest; ++t) {
    const std::uint32_t equal = static_cast<std::uint32_t>(top == table.high[t]);
    count += static_cast<std::uint32_t>(top > table.high[t]);
    count += equal & static_cast<std::uint32_t>(low >= table.low[t]);
    ties |= equal;
  }
  *tied = ties != 0;
  return count;
}

}  // namespace

template <class Word>
void uniform(const PrimeTable<Word>& prime, unsigned log_degree, const std::uint8_t* key, std::uint32_t selector,
             std::uint64_t block, Word* out) {
  const std::size_t degree = std::size_t{1} << log_degree;
  Candidates<Word>::read(prime, key, selector, block, 0, degree, out);
  // Rejected candidates tell nothing of the accepted ones: looking only at them is no leak, also where the row is
  // secret.
  for (std::size_t k = 0; k < degree; ++k) {
    for (std::uint64_t attempt = 1; out[k] >= prime.modulus; ++attempt) {
      Candidates<Word>::read(prime, key, selector, block, attempt * degree + k, 1, out + k);
    }
  }
}

void gaussian(const GaussianTable& table, PrivateStream source, Lane lane, std::uint64_t block, std::size_t count,
              std::int32_t* out) {
  const auto selector = static_cast<std::uint32_t>(lane);
  std::uint32_t tie_words[2 * kTieGroups * kTieDepth];
  stream(source, selector + static_cast<std::uint32_t>(Lane::kTieOffset), block, 0, 2 * kTieGroups * kTieDepth,
         tie_words);
  std::uint32_t used[kTieGroups] = {};
  std::uint32_t words[kChunkWords];
  for (std::size_t start = 0; start < count; start += kChunkWords) {
    const std::size_t step = std::min(count - start, kChunkWords);
    stream(source, selector, block, start, step, words);
    for (std::size_t i = 0; i < step; ++i) {
      const std::size_t group = (start + i) % kTieGroups;
      std::uint64_t low = 0;
      for (unsigned d = 0; d < kTieDepth; ++d) {
        const std::size_t at = 2 * (group * kTieDepth + d);
        const std::uint64_t word = tie_words[at] | std::uint64_t{tie_words[at + 1]} << 32;
        low |= word & mask_if(used[group] == d);
      }
      bool tied = false;
      const std::uint32_t size = magnitude(table, words[i] >> 1, low, &tied);
      const std::uint32_t sign = std::uint32_t{0} - (words[i] & 1);
      out[start + i] = static_cast<std::int32_t>((size ^ sign) - sign);
      used[group] += static_cast<std::uint32_t>(tied) & static_cast<std::uint32_t>(used[group] + 1 < kTieDepth);
    }
  }
  wipe(words, sizeof words);
  wipe(tie_words, sizeof tie_words);
}

void ternary(PrivateStream source, Lane lane, std::uint64_t block, std::size_t count, std::int32_t* out) {
  std::uint32_t words[kChunkWords];
  for (std::size_t start = 0; start < count; start += kChunkWords) {
    const std::size_t step = std::min(count - start, kChunkWords);
    stream(source, static_cast<std::uint32_t>(lane), block, start, step, words);
    for (std::size_t i = 0; i < step; ++i) {
      out[start + i] = static_cast<std::int32_t>((std::uint64_t{words[i]} * 3) >> 32) - 1;
    }
  }
  wipe(words, sizeof words);
}

template void uniform(const PrimeTable<std::uint32_t>&, unsigned, const std::uint8_t*, std::uint32_t, std::uint64_t,
                      std::uint32_t*);
template void uniform(const PrimeTable<std::uint64_t>&, unsigned, const std::uint8_t*, std::uint32_t, std::uint64_t,
                      std::uint64_t*);

}  // namespace pppml::kernels::scalar
