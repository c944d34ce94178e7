// Adding ciphertexts of rings whose residues are 64-bit words.
#pragma once

#include "kernels/contract.hpp"

namespace pppml::kernels::avx512 {

void add(const AddRequest<std::uint64_t>& request);
bool hop(const HopRequest<std::uint64_t>& request);

}  // namespace pppml::kernels::avx512
