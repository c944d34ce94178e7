// One register function per topic of the extension module.
#pragma once

#include <pybind11/pybind11.h>

namespace pppml::bindings {

void register_errors(pybind11::module_& module);
void register_parameters(pybind11::module_& module);
void register_keys(pybind11::module_& module);
void register_pads(pybind11::module_& module);
void register_scheme(pybind11::module_& module);
void register_primitives(pybind11::module_& module);
void register_levelled(pybind11::module_& module);
void register_cuda(pybind11::module_& module);  // after the scheme and the keys
void register_transforms(pybind11::module_& module);
void register_memory(pybind11::module_& module);  // after the primitives

// Gives a class whose objects hold secrets a `__reduce__` that raises TypeError, and so no way to be pickled or copied.
void refuse_copies(const pybind11::object& secret_class);

}  // namespace pppml::bindings
