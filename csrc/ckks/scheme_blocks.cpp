#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "base/check.hpp"
#include "base/modular.hpp"
#include "ckks/scheme_parts.hpp"

namespace pppml::ckks {

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
bool SchemeImpl<Word>::tag(const Extent& extent, std::uint64_t start, std::uint64_t stop, const std::uint8_t* key,
                           const RowSource& in, void* tags) const {
  const Batch range = batch(extent, start, stop);
  Word* const sums = static_cast<Word*>(tags);
  if (in.words != nullptr) {
    kernels_.tag({&ring_.table(), range, static_cast<const Word*>(in.words), key, sums});
    return true;
  }
  std::vector<Word> block(ring_.block_words());
  const std::uint8_t* bytes = in.packed;
  for (std::size_t b = 0; b < range.blocks; ++b) {
    const std::size_t length = kernels::row_length(ring_.table(), range, b);
    Word* row = block.data();
    for (std::size_t l = 0; l < ring_.prime_count(); ++l, row += length) {
      const auto& prime = ring_.table().primes[l];
      if (!kernels_.unpack_row(prime, bytes, length, row)) return false;
      bytes += kernels::packed_row_bytes(prime, length);
    }
    kernels_.tag({&ring_.table(), {range.first_block + b, 1, length}, block.data(), key, sums});
  }
  return true;
}

template class SchemeImpl<std::uint32_t>;
template class SchemeImpl<std::uint64_t>;

}  // namespace pppml::ckks
