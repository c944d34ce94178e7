// The AVX2 backend (AVX2 and AES): rings of 31-bit primes in 32-bit words. It declines wider words, which take the
// scalar functions.
#pragma once

#include "kernels/contract.hpp"

namespace pppml::kernels::avx2 {

bool supported();

template <class Word>
const KernelTable<Word>& table();
template <>
const KernelTable<std::uint32_t>& table();
template <>
const KernelTable<std::uint64_t>& table();

}  // namespace pppml::kernels::avx2
