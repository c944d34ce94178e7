#include <pybind11/pybind11.h>

#include "base/check.hpp"
#include "bindings/register.hpp"

namespace pppml::bindings {

void register_errors(pybind11::module_& module) {
  // The Python layer translates these two into its own tree (errors.py).
  static pybind11::exception<RequirementError> requirement(module, "RequirementError", PyExc_ValueError);
  static pybind11::exception<NonFiniteError> non_finite(module, "NonFiniteError", requirement.ptr());
  pybind11::register_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const NonFiniteError& error) {
      pybind11::object value = pybind11::reinterpret_borrow<pybind11::object>(non_finite.ptr())(error.what());
      value.attr("index") = error.index();
      PyErr_SetObject(non_finite.ptr(), value.ptr());
    } catch (const RequirementError& error) {
      PyErr_SetString(requirement.ptr(), error.what());
    }
  });
}

}  // namespace pppml::bindings

PYBIND11_MODULE(_native, module) {
  namespace bindings = pppml::bindings;
  module.doc() =
      "C++ core of pppml_fast. Its public face is the Python package; this module checks shapes and dtypes only.";
  bindings::register_errors(module);
  bindings::register_parameters(module);
  bindings::register_keys(module);
  bindings::register_scheme(module);
  bindings::register_pads(module);
  bindings::register_levelled(module);
  bindings::register_primitives(module);
  bindings::register_transforms(module);
  bindings::register_memory(module);
  bindings::register_cuda(module);
}
