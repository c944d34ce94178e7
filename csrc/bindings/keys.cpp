#include "bindings/arrays.hpp"
#include "bindings/register.hpp"
#include "ckks/scheme.hpp"

namespace pppml::bindings {

// Key objects are opaque: no bytes come out but the coefficients that a party needs to deal shares of.
void register_keys(py::module_& module) {
  py::class_<ring::StreamKey>(module, "StreamKey")
      .def_static("from_system", &ring::StreamKey::from_system)
      .def_static(
          "from_bytes", [](const py::bytes& bytes) { return ring::StreamKey::from_bytes(key_bytes(bytes, "key")); },
          "For known answers and tests only.");

  py::class_<ckks::SecretKey>(module, "SecretKey")
      .def("coefficients",
           [](const ckks::SecretKey& key) {
             Integers out(static_cast<py::ssize_t>(key.coefficients().size()));
             std::copy(key.coefficients().begin(), key.coefficients().end(), out.mutable_data());
             return out;
           })
      .def_property_readonly("squared_norm", &ckks::SecretKey::squared_norm);

  py::class_<ckks::PublicKey>(module, "PublicKey");
}

}  // namespace pppml::bindings
