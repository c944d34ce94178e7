// The part of the AVX-512 backend that needs VAES as well: private streams by AES-256. Processors without it (the first
// two generations with AVX-512) must not call what vaes.cpp holds.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pppml::kernels::avx512 {

bool vaes_supported();

// What scalar::aes256_stream returns.
void aes256_stream(const std::uint8_t* key, std::uint32_t selector, std::uint64_t block, std::uint64_t first,
                   std::size_t count, std::uint32_t* out);

}  // namespace pppml::kernels::avx512
