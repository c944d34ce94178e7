// The contract's fused operations that hide messages.
#pragma once

#include "kernels/contract.hpp"

namespace pppml::kernels::avx2 {

void make_pads(const PadRequest<std::uint32_t>& request, std::uint32_t* out);
bool encrypt(const PadRequest<std::uint32_t>& pads, const MessageRequest<std::uint32_t>& request);
bool encrypt_prepared(const std::uint32_t* pads, const MessageRequest<std::uint32_t>& request);
void encrypt_public(const PublicEncryptRequest<std::uint32_t>& request);

}  // namespace pppml::kernels::avx2
