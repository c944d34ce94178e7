// AES-256 in counter mode by position, bit-sliced: portable, and in constant time.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pppml::kernels::scalar {

// Words [first, first + count) of the stream that the contract names kAes256.
void aes256_stream(const std::uint8_t* key, std::uint32_t selector, std::uint64_t block, std::uint64_t first,
                   std::size_t count, std::uint32_t* out);

}  // namespace pppml::kernels::scalar
