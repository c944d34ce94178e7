#include "bindings/arrays.hpp"
#include "bindings/register.hpp"
#include "ckks/pad_store.hpp"

namespace pppml::bindings {

using ckks::PadStore;

void register_pads(py::module_& module) {
  // A buffer of residue words. Whoever reads it sees secrets: the Python layer hands parts of it to encrypt_prepared.
  py::class_<PadStore> pad_store(module, "PadStore", py::buffer_protocol(), "Residue words of pads made ahead.");
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
      // Stubs cannot tell of the buffer protocol before Python 3.12: this names it.
      .def(
          "view", [](const py::object& self) { return py::memoryview(self); },
          "The pads themselves, secret and writable.")
      .def_property_readonly("ready", &PadStore::ready)
      .def_property_readonly("capacity", &PadStore::capacity)
      .def_buffer([](PadStore& store) {
        const bool narrow = store.word_bytes() == sizeof(std::uint32_t);
        return py::buffer_info(
            store.words(), static_cast<py::ssize_t>(store.word_bytes()),
            narrow ? py::format_descriptor<std::uint32_t>::format() : py::format_descriptor<std::uint64_t>::format(),
            static_cast<py::ssize_t>(store.word_count()));
      });
}

}  // namespace pppml::bindings
