#include "bindings/arrays.hpp"
#include "bindings/register.hpp"
#include "ckks/scheme.hpp"

namespace pppml::bindings {

// Key objects are opaque: no bytes come out but the coefficients that a party needs to deal shares of.
void refuse_copies(const py::object& secret_class) {
  const auto name = secret_class.attr("__name__").cast<std::string>();
  const auto refuse = [name](const py::object&) -> py::object {
    throw py::type_error(name + " holds a secret and is never pickled or copied");
  };
  secret_class.attr("__reduce__") = py::cpp_function(refuse, py::name("__reduce__"), py::is_method(secret_class));
}

void register_keys(py::module_& module) {
  py::class_<ring::StreamKey> stream_key(module, "StreamKey", "The secret key of private random streams.");
  stream_key.def_static("from_system", &ring::StreamKey::from_system)
      .def_static(
          "from_bytes", [](const py::bytes& bytes) { return ring::StreamKey::from_bytes(key_bytes(bytes, "key")); },
          py::arg("bytes"), "For known answers and tests only.");

  py::class_<ckks::SecretKey> secret_key(module, "SecretKey", "One secret polynomial.");
  secret_key
      .def("coefficients",
           [](const ckks::SecretKey& key) {
             Integers out(static_cast<py::ssize_t>(key.coefficients().size()));
             std::copy(key.coefficients().begin(), key.coefficients().end(), out.mutable_data());
             return out;
           })
      .def_property_readonly("squared_norm", &ckks::SecretKey::squared_norm);

  refuse_copies(stream_key);
  refuse_copies(secret_key);

  py::class_<ckks::PublicKey>(module, "PublicKey", "A public key, ready to encrypt under.");
}

}  // namespace pppml::bindings
