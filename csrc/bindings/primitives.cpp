// The kernels' primitives, for the tests' oracle and for benchmarks.
#include <pybind11/stl.h>

#include "base/parallel.hpp"
#include "bindings/arrays.hpp"
#include "bindings/register.hpp"
#include "kernels/gaussian_tables.hpp"
#include "kernels/registry.hpp"
#include "ring/ring.hpp"

namespace pppml::bindings {
namespace {

using Words = py::array_t<std::uint64_t, py::array::c_style>;
using Small = py::array_t<std::int32_t, py::array::c_style>;

constexpr std::uint64_t kNarrowLimit = std::uint64_t{1} << 31;

// Runs `body(kernels, prime table)` with residues copied to and from words of the width the prime takes.
template <class Word, class Body>
Words on_row(const std::string& backend, unsigned log_degree, std::uint64_t q, const Words* in, Body body) {
  const ring::Ring<Word> ring(log_degree, {q});
  Buffer<Word> row(ring.degree());
  if (in != nullptr) {
    require(static_cast<std::size_t>(in->size()) == ring.degree(), "a row has ", ring.degree(), " residues");
    for (std::size_t k = 0; k < ring.degree(); ++k) row[k] = static_cast<Word>(in->data()[k]);
  }
  body(kernels::kernels<Word>(backend), ring.table().primes[0], row.data());
  Words out(static_cast<py::ssize_t>(ring.degree()));
  for (std::size_t k = 0; k < ring.degree(); ++k) out.mutable_data()[k] = row[k];
  return out;
}

template <class Body>
Words on_any_row(const std::string& name, unsigned log_degree, std::uint64_t q, const Words* in, Body body) {
  const std::string backend = kernels::choose_backend(name);
  if (q < kNarrowLimit) return on_row<std::uint32_t>(backend, log_degree, q, in, body);
  return on_row<std::uint64_t>(backend, log_degree, q, in, body);
}

Words ntt(std::uint64_t q, unsigned log_degree, const Words& values, bool inverse, const std::string& backend) {
  return on_any_row(backend, log_degree, q, &values, [&](const auto& table, const auto& prime, auto* row) {
    (inverse ? table.inverse_ntt : table.forward_ntt)(prime, log_degree, row);
  });
}

Words uniform(std::uint64_t q, unsigned log_degree, const py::bytes& key, std::uint32_t selector, std::uint64_t block,
              const std::string& backend) {
  return on_any_row(backend, log_degree, q, nullptr, [&](const auto& table, const auto& prime, auto* row) {
    table.uniform(prime, log_degree, key_bytes(key, "key"), selector, block, row);
  });
}

const kernels::KernelTable<std::uint32_t>& any_table(const std::string& name) {
  return kernels::kernels<std::uint32_t>(kernels::choose_backend(name));
}

kernels::PrivateStream stream_of(const py::bytes& key, const std::string& cipher) {
  require(cipher == "chacha20" || cipher == "aes256", "no stream cipher '", cipher, "'; there are chacha20 and aes256");
  return {key_bytes(key, "key"),
          cipher == "aes256" ? kernels::StreamCipher::kAes256 : kernels::StreamCipher::kChaCha20};
}

py::array_t<std::uint32_t> stream(const py::bytes& key, std::uint32_t selector, std::uint64_t block,
                                  std::uint64_t first, std::size_t count, const std::string& backend,
                                  const std::string& cipher) {
  py::array_t<std::uint32_t> out(static_cast<py::ssize_t>(count));
  any_table(backend).stream(stream_of(key, cipher), selector, block, first, count, out.mutable_data());
  return out;
}

kernels::GaussianTable gaussian_table(const std::string& name) {
  namespace tables = kernels::tables;
  if (name == "collective_error") {
    return {tables::kCollectiveErrorLargest, tables::kCollectiveErrorVariance, tables::kCollectiveErrorHigh,
            tables::kCollectiveErrorLow};
  }
  if (name == "collective_secret") {
    return {tables::kCollectiveSecretLargest, tables::kCollectiveSecretVariance, tables::kCollectiveSecretHigh,
            tables::kCollectiveSecretLow};
  }
  require(name == "error", "no table '", name, "'; there are collective_error, collective_secret, error");
  return {tables::kErrorLargest, tables::kErrorVariance, tables::kErrorHigh, tables::kErrorLow};
}

Small gaussian(const std::string& table, const py::bytes& key, std::uint32_t lane, std::uint64_t block,
               std::size_t count, const std::string& backend, const std::string& cipher) {
  Small out(static_cast<py::ssize_t>(count));
  any_table(backend).gaussian(gaussian_table(table), stream_of(key, cipher), static_cast<kernels::Lane>(lane), block,
                              count, out.mutable_data());
  return out;
}

Small ternary(const py::bytes& key, std::uint32_t lane, std::uint64_t block, std::size_t count,
              const std::string& backend, const std::string& cipher) {
  Small out(static_cast<py::ssize_t>(count));
  any_table(backend).ternary(stream_of(key, cipher), static_cast<kernels::Lane>(lane), block, count,
                             out.mutable_data());
  return out;
}

}  // namespace

void register_primitives(py::module_& module) {
  module.def("built_backends", &kernels::built_backends);
  module.def("supported_backends", &kernels::supported_backends);
  module.def("thread_count", &thread_count);
  module.def("set_thread_count", &set_thread_count, py::arg("count"));
  module.def("choose_backend", &kernels::choose_backend, py::arg("name") = "");

  py::module_ primitives = module.def_submodule("primitives", "Kernel primitives for tests and benchmarks.");
  primitives.def("ntt", &ntt, py::arg("modulus"), py::arg("log_degree"), py::arg("values"), py::arg("inverse") = false,
                 py::arg("backend") = "");
  primitives.def("uniform", &uniform, py::arg("modulus"), py::arg("log_degree"), py::arg("key"), py::arg("selector"),
                 py::arg("block"), py::arg("backend") = "");
  primitives.def("stream", &stream, py::arg("key"), py::arg("selector"), py::arg("block"), py::arg("first"),
                 py::arg("count"), py::arg("backend") = "", py::arg("cipher") = "chacha20");
  primitives.def("gaussian", &gaussian, py::arg("table"), py::arg("key"), py::arg("lane"), py::arg("block"),
                 py::arg("count"), py::arg("backend") = "", py::arg("cipher") = "chacha20");
  primitives.def("ternary", &ternary, py::arg("key"), py::arg("lane"), py::arg("block"), py::arg("count"),
                 py::arg("backend") = "", py::arg("cipher") = "chacha20");
  primitives.def("residual_limit", &kernels::residual_limit, py::arg("variance"), py::arg("coefficients"));
}

}  // namespace pppml::bindings
