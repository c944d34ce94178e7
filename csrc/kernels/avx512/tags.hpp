// Sum-check tags of both word sizes.
#pragma once

#include "kernels/contract.hpp"

namespace pppml::kernels::avx512 {

void tag(const TagRequest<std::uint32_t>& request);

// Needs primes below 2^50 and AVX-512-IFMA.
void tag50(const TagRequest<std::uint64_t>& request);

}  // namespace pppml::kernels::avx512
