#include "bindings/arrays.hpp"
#include "bindings/register.hpp"
#include "ckks/pad_store.hpp"

namespace pppml::bindings {

using ckks::PadStore;

void register_pads(py::module_& module) {
  // Whoever reads the words sees secrets: the Python layer hands parts of them to encrypt_prepared.
  // An array and no buffer protocol, which stubs name from Python 3.12 on only.
  py::class_<PadStore> pad_store(module, "PadStore", "Residue words of pads made ahead.");
  refuse_copies(pad_store);
  pad_store
      .def(py::init([](const ckks::Scheme& scheme, const ckks::SecretKey& secret, const ring::StreamKey& noise,
                       const py::bytes& public_seed, std::uint64_t length, std::uint64_t blocks) {
             return std::make_unique<PadStore>(scheme, secret, noise, key_bytes(public_seed, "public seed"),
                                               ckks::Range{length, 0, blocks});
           }),
           py::arg("scheme"), py::arg("secret"), py::arg("noise"), py::arg("public_seed"), py::arg("length"),
           py::arg("blocks"), py::keep_alive<1, 2>(), py::keep_alive<1, 3>(), py::keep_alive<1, 4>())
      .def("fill", &PadStore::fill, py::call_guard<py::gil_scoped_release>())
      .def("halt", &PadStore::halt)
      .def("wipe", &PadStore::wipe, py::arg("first") = 0, py::call_guard<py::gil_scoped_release>())
      .def_property_readonly("ready", &PadStore::ready)
      .def_property_readonly("capacity", &PadStore::capacity)
      .def(
          "words",
          [](const py::object& self) {
            auto& store = self.cast<PadStore&>();
            const py::dtype word(store.word_bytes() == sizeof(std::uint32_t) ? "uint32" : "uint64");
            return py::array(word, {static_cast<py::ssize_t>(store.word_count())}, store.words(), self);
          },
          "The pads themselves, secret and writable.");
}

}  // namespace pppml::bindings
