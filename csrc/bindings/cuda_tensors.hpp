// Tensors of other libraries, by DLPack: no library is linked against, nor needed to be there.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "kernels/contract.hpp"

namespace pppml::bindings {

// "float32", "float64", "float16" or "bfloat16"; throws RequirementError else.
kernels::Dtype float_dtype(const std::string& name);

void register_cuda_tensors(pybind11::module_& module);

}  // namespace pppml::bindings
