// Packing rows of 50-bit residues.
#pragma once

#include "kernels/contract.hpp"

namespace pppml::kernels::avx512 {

void pack_row(const PrimeTable<std::uint64_t>& prime, const std::uint64_t* in, std::size_t count, std::uint8_t* out);

bool unpack_row(const PrimeTable<std::uint64_t>& prime, const std::uint8_t* in, std::size_t count, std::uint64_t* out);

}  // namespace pppml::kernels::avx512
