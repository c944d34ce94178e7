// Pads and encryptions of rings of one prime below 2^50; scalar code takes the other rings of 64-bit words.
#pragma once

#include "kernels/contract.hpp"

namespace pppml::kernels::avx512 {

void make_pads(const PadRequest<std::uint64_t>& request, std::uint64_t* out);
bool encrypt(const PadRequest<std::uint64_t>& pads, const MessageRequest<std::uint64_t>& request);
bool encrypt_prepared(const std::uint64_t* pads, const MessageRequest<std::uint64_t>& request);
void encrypt_public(const PublicEncryptRequest<std::uint64_t>& request);

}  // namespace pppml::kernels::avx512
