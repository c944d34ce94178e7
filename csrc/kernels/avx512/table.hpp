// The AVX-512 backend (F, BW, DQ, VL, VBMI): rings of 31-bit primes in 32-bit words and, where the processor has IFMA
// too, those of one prime below 2^50 in 64-bit words. It leaves other wide rings to the scalar functions.
#pragma once

#include "kernels/contract.hpp"

namespace pppml::kernels::avx512 {

bool supported();

template <class Word>
const KernelTable<Word>& table();
template <>
const KernelTable<std::uint32_t>& table();
template <>
const KernelTable<std::uint64_t>& table();

}  // namespace pppml::kernels::avx512
