// Pads and encryptions of rings of 31-bit primes, each row finished while it is in the registers.
#pragma once

#include "kernels/contract.hpp"

namespace pppml::kernels::avx512 {

void make_pads(const PadRequest<std::uint32_t>& request, std::uint32_t* out);
bool encrypt(const PadRequest<std::uint32_t>& pads, const MessageRequest<std::uint32_t>& request);
bool encrypt_prepared(const std::uint32_t* pads, const MessageRequest<std::uint32_t>& request);
void encrypt_public(const PublicEncryptRequest<std::uint32_t>& request);

}  // namespace pppml::kernels::avx512
