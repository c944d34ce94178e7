// The part of the AVX-512 backend that needs VAES as well: private streams by AES-256. Processors without it (the first
// two generations with AVX-512) must not call what vaes.cpp holds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace pppml::kernels::avx512 {

bool vaes_supported();

// The round keys of one stream key; complete in vaes.cpp.
struct Aes256Key;
struct Aes256KeyDelete {
  void operator()(Aes256Key* key) const;
};
using Aes256KeyPointer = std::unique_ptr<Aes256Key, Aes256KeyDelete>;
Aes256KeyPointer make_aes256_key(const std::uint8_t* key);

// What scalar::aes256_stream returns.
void aes256_stream(const Aes256Key& key, std::uint32_t selector, std::uint64_t block, std::uint64_t first,
                   std::size_t count, std::uint32_t* out);

}  // namespace pppml::kernels::avx512
