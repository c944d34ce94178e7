// The fused operations of the contract, composed block by block from the scalar primitives.
#pragma once

#include "kernels/contract.hpp"

namespace pppml::kernels::scalar {

template <class Word>
const KernelTable<Word>& table();

}  // namespace pppml::kernels::scalar
