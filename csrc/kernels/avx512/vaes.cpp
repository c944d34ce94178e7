#include "kernels/avx512/vaes.hpp"

#include <algorithm>

#include "kernels/avx512/aes256.hpp"

namespace pppml::kernels::avx512 {

void Aes256KeyDelete::operator()(Aes256Key* key) const {
  delete key;
}

Aes256KeyPointer make_aes256_key(const std::uint8_t* key) {
  return Aes256KeyPointer(new Aes256Key(key));
}

void aes256_stream(const Aes256Key& key, std::uint32_t selector, std::uint64_t block, std::uint64_t first,
                   std::size_t count, std::uint32_t* out) {
  const Aes256 cipher(key, selector, block);
  alignas(64) std::uint32_t words[kAesBatchWords];
  while (count > 0) {
    const std::size_t skip = first % kAesBatchWords;
    const std::size_t take = std::min(count, kAesBatchWords - skip);
    const auto counter = static_cast<std::uint32_t>((first - skip) / kAesBlockWords);
    if (take == kAesBatchWords) {
      cipher.generate(counter, out);
    } else {
      cipher.generate(counter, words);
      std::copy(words + skip, words + skip + take, out);
    }
    first += take, count -= take, out += take;
  }
  wipe(words, sizeof words);
}

}  // namespace pppml::kernels::avx512
