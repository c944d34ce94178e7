// The kernels' primitives, for the tests' oracle and for benchmarks.
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <tuple>

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

// (tensor, rows, row length, row stride), the last three in elements: a tensor whose rows lie apart.
using StridedObjects = py::typing::List<py::typing::Tuple<py::object, std::size_t, std::size_t, std::size_t>>;

class StridedTensors {
 public:
  explicit StridedTensors(const StridedObjects& items) {
    for (const py::handle& item : items) {
      const auto parts = item.cast<std::tuple<py::object, std::size_t, std::size_t, std::size_t>>();
      py::list one;
      one.append(std::get<0>(parts));
      tensors_.push_back(std::make_unique<Tensors>(one));
      const std::size_t rows = std::get<1>(parts), length = std::get<2>(parts), stride = std::get<3>(parts);
      require(rows == 0 || (length > 0 && (rows - 1) * stride + length <= tensors_.back()->length()), rows, " rows of ",
              length, " elements, ", stride, " apart, do not fit a tensor of ", tensors_.back()->length());
      kernels::TensorSpan span = tensors_.back()->list().spans[0];
      span.length = rows * length;
      span.row_length = std::max<std::size_t>(length, 1);
      span.row_stride = stride;
      spans_.push_back(span);
    }
  }
  kernels::TensorList list() const { return {spans_.data(), spans_.size()}; }

 private:
  std::vector<std::unique_ptr<Tensors>> tensors_;
  std::vector<kernels::TensorSpan> spans_;
};

// Rounds stochastically where there is a key. Returns (values, how many were clipped, first that is NaN or Inf or
// None).
std::tuple<Integers, std::uint64_t, std::optional<std::uint64_t>> quantize(
    const StridedObjects& tensors, const StridedObjects& reference, double clip, double multiplier,
    bool single_precision, std::size_t block_values, std::size_t first, std::size_t count,
    const std::optional<py::bytes>& key, const std::string& cipher, unsigned word_bits, const std::string& backend) {
  const StridedTensors given(tensors), subtracted(reference);
  kernels::Codec codec{};
  codec.clip = clip;
  codec.multiplier = multiplier;
  codec.single_precision = single_precision;
  codec.rounding = key ? kernels::Rounding::kStochastic : kernels::Rounding::kNearest;
  codec.values_per_coefficient = 1;
  codec.block_values = block_values;
  const kernels::PrivateStream rounding = key ? stream_of(*key, cipher) : kernels::PrivateStream{};
  kernels::QuantizeReport report;
  const kernels::Message message{&codec, given.list(), subtracted.list(), rounding, &report};
  Integers out(static_cast<py::ssize_t>(count));
  const std::string name = kernels::choose_backend(backend);
  const auto run =
      word_bits == 32 ? kernels::kernels<std::uint32_t>(name).quantize : kernels::kernels<std::uint64_t>(name).quantize;
  run(message, first, count, out.mutable_data());
  std::optional<std::uint64_t> non_finite;
  if (report.first_non_finite != UINT64_MAX) non_finite = report.first_non_finite;
  return {out, report.clipped, non_finite};
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
  primitives.def("quantize", &quantize, py::arg("tensors"), py::arg("reference"), py::kw_only(), py::arg("clip"),
                 py::arg("multiplier"), py::arg("single_precision"), py::arg("block_values"), py::arg("first"),
                 py::arg("count"), py::arg("key") = py::none(), py::arg("cipher") = "chacha20",
                 py::arg("word_bits") = 32, py::arg("backend") = "");
  primitives.def("residual_limit", &kernels::residual_limit, py::arg("variance"), py::arg("coefficients"));
}

}  // namespace pppml::bindings
