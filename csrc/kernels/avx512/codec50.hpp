// Quantising into 64-bit integers, and packing rows of 50-bit residues.
#pragma once

#include "kernels/contract.hpp"

namespace pppml::kernels::avx512 {

// What KernelTable::quantize does.
void quantize64(const Message& message, std::size_t first, std::size_t count, std::int64_t* out);

void pack_row(const PrimeTable<std::uint64_t>& prime, const std::uint64_t* in, std::size_t count, std::uint8_t* out);

bool unpack_row(const PrimeTable<std::uint64_t>& prime, const std::uint8_t* in, std::size_t count, std::uint64_t* out);

}  // namespace pppml::kernels::avx512
