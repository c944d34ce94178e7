// The contract's fused opening.
#pragma once

#include "kernels/contract.hpp"

namespace pppml::kernels::avx2 {

void open(const OpenRequest<std::uint32_t>& request);

}  // namespace pppml::kernels::avx2
