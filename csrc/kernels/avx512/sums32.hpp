// Adding ciphertexts of rings of 31-bit primes: as fast as memory gives them.
#pragma once

#include "kernels/contract.hpp"

namespace pppml::kernels::avx512 {

void add(const AddRequest<std::uint32_t>& request);
bool hop(const HopRequest<std::uint32_t>& request);

}  // namespace pppml::kernels::avx512
