// Packing rows of 31-bit residues.
#pragma once

#include "kernels/contract.hpp"

namespace pppml::kernels::avx512 {

void pack_row(const PrimeTable<std::uint32_t>& prime, const std::uint32_t* in, std::size_t count, std::uint8_t* out);

bool unpack_row(const PrimeTable<std::uint32_t>& prime, const std::uint8_t* in, std::size_t count, std::uint32_t* out);

}  // namespace pppml::kernels::avx512
