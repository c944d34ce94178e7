#include "kernels/scalar/aes256.hpp"

#include <algorithm>

#include "kernels/contract.hpp"
#include "kernels/scalar/aes_planes.hpp"

namespace pppml::kernels::scalar {
namespace {

constexpr int kRounds = 14;
constexpr int kWordBytes = 4;
constexpr int kBlockBytes = 16;
constexpr int kKeyBytes = kStreamKeyBytes;
constexpr int kGroupBlocks = kPlaneBytes / kBlockBytes;  // encrypted at once
constexpr std::size_t kGroupWords = kPlaneBytes / kWordBytes;

void substitute_word(std::uint8_t* word) {
  std::uint8_t bytes[kPlaneBytes] = {};
  std::copy(word, word + kWordBytes, bytes);
  AesPlanes planes;
  load_planes(bytes, &planes);
  substitute(&planes);
  store_planes(planes, bytes);
  std::copy(bytes, bytes + kWordBytes, word);
  wipe(bytes, sizeof bytes);
}

// kRounds + 1 round keys (FIPS 197, 5.2).
void expand_key(const std::uint8_t* key, std::uint8_t* round_keys) {
  std::copy(key, key + kKeyBytes, round_keys);
  std::uint8_t word[kWordBytes];
  std::uint8_t round_constant = 1;  // x^i: the seven that are needed stay below the modulus
  for (int at = kKeyBytes; at < (kRounds + 1) * kBlockBytes; at += kWordBytes) {
    std::copy(round_keys + at - kWordBytes, round_keys + at, word);
    if (at % kKeyBytes == 0) {
      std::rotate(word, word + 1, word + kWordBytes);
      substitute_word(word);
      word[0] ^= round_constant;
      round_constant = static_cast<std::uint8_t>(round_constant << 1);
    } else if (at % kKeyBytes == kKeyBytes / 2) {
      substitute_word(word);
    }
    for (int i = 0; i < kWordBytes; ++i) round_keys[at + i] = round_keys[at - kKeyBytes + i] ^ word[i];
  }
  wipe(word, sizeof word);
}

// Byte 4 c + r of a block is row r of column c: bit r of nibble c of the block's sixteen bits.
void shift_rows(AesPlanes* x) {
  constexpr std::uint64_t kEachBlock = 0x0001000100010001;
  for (std::uint64_t& plane : x->bits) {
    std::uint64_t shifted = plane & 0x1111 * kEachBlock;
    for (int row = 1; row < 4; ++row) {
      const std::uint64_t bits = plane & (0x1111u << row) * kEachBlock;
      const std::uint64_t low = (0xffffu >> 4 * row) * kEachBlock;
      shifted |= (bits >> 4 * row & low) | (bits << (16 - 4 * row) & ~low);
    }
    plane = shifted;
  }
}

// The byte `rows` further down in each column, cyclically.
std::uint64_t rotate_columns(std::uint64_t plane, int rows) {
  const std::uint64_t low = (0xfu >> rows) * 0x1111111111111111;
  return (plane >> rows & low) | (plane << (4 - rows) & ~low);
}

// With a the byte, b, c, d those below it: 2 a + 3 b + c + d = 2 (a + b) + b + c + d.
void mix_columns(AesPlanes* x) {
  AesPlanes pair, rest;
  for (int p = 0; p < kPlanes; ++p) {
    const std::uint64_t next = rotate_columns(x->bits[p], 1);
    pair.bits[p] = x->bits[p] ^ next;
    rest.bits[p] = next ^ rotate_columns(pair.bits[p], 2);
  }
  constexpr unsigned kModulus = 0x1b;  // x^8 = x^4 + x^3 + x + 1
  for (int p = 0; p < kPlanes; ++p) {
    const std::uint64_t carried = pair.bits[7] & (std::uint64_t{0} - (kModulus >> p & 1));
    x->bits[p] = rest.bits[p] ^ carried ^ (p > 0 ? pair.bits[p - 1] : 0);
  }
}

class Aes256 {
 public:
  Aes256(const std::uint8_t* key, std::uint32_t selector, std::uint64_t block) {
    std::uint8_t round_keys[(kRounds + 1) * kBlockBytes];
    expand_key(key, round_keys);
    for (int round = 0; round <= kRounds; ++round) {
      const std::uint8_t* round_key = round_keys + round * kBlockBytes;
      for (int b = 0; b < kGroupBlocks; ++b) std::copy(round_key, round_key + kBlockBytes, block_bytes(b));
      load_planes(bytes_, &round_keys_[round]);
    }
    wipe(round_keys, sizeof round_keys);
    for (int b = 0; b < kGroupBlocks; ++b) {
      for (int i = 0; i < 4; ++i) block_bytes(b)[i] = static_cast<std::uint8_t>(selector >> (8 * i));
      for (int i = 0; i < 8; ++i) block_bytes(b)[4 + i] = static_cast<std::uint8_t>(block >> (8 * i));
    }
  }
  ~Aes256() { wipe(bytes_, sizeof bytes_); }

  // The words of the blocks counter .. counter + 3.
  void generate(std::uint32_t counter, std::uint32_t* out) {
    for (int b = 0; b < kGroupBlocks; ++b) {
      const std::uint32_t value = counter + static_cast<std::uint32_t>(b);
      for (int i = 0; i < 4; ++i) block_bytes(b)[12 + i] = static_cast<std::uint8_t>(value >> (24 - 8 * i));
    }
    AesPlanes state;
    load_planes(bytes_, &state);
    add_round_key(0, &state);
    for (int round = 1; round <= kRounds; ++round) {
      substitute(&state);
      shift_rows(&state);
      if (round < kRounds) mix_columns(&state);
      add_round_key(round, &state);
    }
    std::uint8_t bytes[kPlaneBytes];
    store_planes(state, bytes);
    for (std::size_t i = 0; i < kGroupWords; ++i) {
      out[i] = std::uint32_t{bytes[4 * i]} | std::uint32_t{bytes[4 * i + 1]} << 8 |
               std::uint32_t{bytes[4 * i + 2]} << 16 | std::uint32_t{bytes[4 * i + 3]} << 24;
    }
    wipe(bytes, sizeof bytes);
  }

 private:
  std::uint8_t* block_bytes(int b) { return bytes_ + b * kBlockBytes; }

  void add_round_key(int round, AesPlanes* state) const {
    for (int p = 0; p < kPlanes; ++p) state->bits[p] ^= round_keys_[round].bits[p];
  }

  AesPlanes round_keys_[kRounds + 1];
  std::uint8_t bytes_[kPlaneBytes];  // the counter blocks, but for their counters
};

}  // namespace

void aes256_stream(const std::uint8_t* key, std::uint32_t selector, std::uint64_t block, std::uint64_t first,
                   std::size_t count, std::uint32_t* out) {
  Aes256 cipher(key, selector, block);
  std::uint32_t words[kGroupWords];
  while (count > 0) {
    const std::size_t skip = first % kGroupWords;
    const std::size_t take = std::min(count, kGroupWords - skip);
    cipher.generate(static_cast<std::uint32_t>((first - skip) / (kBlockBytes / kWordBytes)), words);
    std::copy(words + skip, words + skip + take, out);
    first += take, count -= take, out += take;
  }
  wipe(words, sizeof words);
}

}  // namespace pppml::kernels::scalar
