// Opening sums of rings of 31-bit primes.
#pragma once

#include "kernels/contract.hpp"

namespace pppml::kernels::avx512 {

void open(const OpenRequest<std::uint32_t>& request);

}  // namespace pppml::kernels::avx512
