// Quantising float32 tensors, and packing rows of 31-bit residues.
#pragma once

#include "kernels/contract.hpp"

namespace pppml::kernels::avx2 {

// Quantised values [first, first + count) as int32, zero past the end of the tensors. For single precision codecs.
void quantize32(const Message& message, std::size_t first, std::size_t count, std::int32_t* out);

// The functions of the contract's table.
void quantize(const Message& message, std::size_t first, std::size_t count, std::int64_t* out);
void pack_row(const PrimeTable<std::uint32_t>& prime, const std::uint32_t* in, std::size_t count, std::uint8_t* out);
bool unpack_row(const PrimeTable<std::uint32_t>& prime, const std::uint8_t* in, std::size_t count, std::uint32_t* out);

}  // namespace pppml::kernels::avx2
