#include <algorithm>

#include "bindings/arrays.hpp"
#include "bindings/register.hpp"
#include "ckks/scheme.hpp"

namespace pppml::bindings {
namespace {

using ckks::Extent;
using ckks::Scheme;

py::array new_words(const Scheme& scheme, std::size_t count) {
  const char* name = scheme.word_bytes() == 4 ? "uint32" : "uint64";
  return py::array(py::dtype(name), std::vector<py::ssize_t>{static_cast<py::ssize_t>(count)});
}

const void* polynomial(const Scheme& scheme, const py::array& words, const Extent& extent, const char* name) {
  return words_in(words, scheme.word_bytes(), scheme.words(extent), name);
}

void* polynomial_out(const Scheme& scheme, py::array& words, const Extent& extent, const char* name) {
  return words_out(words, scheme.word_bytes(), scheme.words(extent), name);
}

std::uint64_t encrypt(const Scheme& scheme, const ckks::SecretKey& secret, const ring::StreamKey& seed,
                      const py::bytes& public_seed, const py::list& arrays, double weight, py::array c0) {
  const Tensors tensors(arrays);
  void* out = polynomial_out(scheme, c0, {tensors.length(), true}, "out");
  const std::uint8_t* expansion = key_bytes(public_seed, "public seed");
  py::gil_scoped_release unlocked;
  return scheme.encrypt(secret, seed, expansion, tensors.list(), tensors.length(), weight, out).clipped;
}

std::uint64_t encrypt_public(const Scheme& scheme, const ckks::PublicKey& key, const ring::StreamKey& seed,
                             const py::list& arrays, double weight, py::array c0, py::array c1) {
  const Tensors tensors(arrays);
  void* out0 = polynomial_out(scheme, c0, {tensors.length(), true}, "c0");
  void* out1 = polynomial_out(scheme, c1, {tensors.length(), false}, "c1");
  py::gil_scoped_release unlocked;
  return scheme.encrypt_public(key, seed, tensors.list(), tensors.length(), weight, out0, out1).clipped;
}

void add(const Scheme& scheme, std::uint64_t length, bool cut, const py::list& inputs, py::array out) {
  const Extent extent{length, cut};
  std::vector<const void*> pointers;
  std::vector<py::array> keep_alive;
  for (const py::handle& item : inputs) {
    keep_alive.push_back(item.cast<py::array>());
    pointers.push_back(polynomial(scheme, keep_alive.back(), extent, "input"));
  }
  void* target = polynomial_out(scheme, out, extent, "out");
  py::gil_scoped_release unlocked;
  scheme.add(extent, pointers.data(), pointers.size(), target);
}

// `out` is an int64, float32 or float64 array of `length` values; it is zeroed again when a block is refused.
py::tuple open(const Scheme& scheme, const ckks::SecretKey& secret, std::uint64_t length, std::uint64_t terms,
               const py::array& c0, const py::object& c1, const py::object& public_seed, py::array out) {
  const void* second = c1.is_none() ? nullptr : polynomial(scheme, c1.cast<py::array>(), {length, false}, "c1");
  const std::uint8_t* expansion = nullptr;
  if (second == nullptr) expansion = key_bytes(public_seed.cast<py::bytes>(), "public seed");
  const void* first = polynomial(scheme, c0, {length, true}, "c0");
  require(out.ndim() == 1 && static_cast<std::uint64_t>(out.size()) == length && out.writeable() &&
              (out.flags() & py::array::c_style) != 0,
          "out must be a contiguous writeable array of ", length, " values");
  ckks::Opened target;
  if (out.dtype().equal(py::dtype::of<std::int64_t>()))
    target.integers = static_cast<std::int64_t*>(out.mutable_data());
  if (out.dtype().equal(py::dtype::of<float>())) target.singles = static_cast<float*>(out.mutable_data());
  if (out.dtype().equal(py::dtype::of<double>())) target.doubles = static_cast<double*>(out.mutable_data());
  require(target.integers != nullptr || target.singles != nullptr || target.doubles != nullptr,
          "out must be int64, float32 or float64");
  kernels::OpenReport report;
  void* released = out.mutable_data();
  const auto bytes = static_cast<std::size_t>(out.nbytes());
  {
    py::gil_scoped_release unlocked;
    try {
      report = scheme.open(secret, length, terms, first, second, expansion, target);
    } catch (...) {
      std::memset(released, 0, bytes);
      throw;
    }
    if (report.block_refused) std::memset(released, 0, bytes);
  }
  return py::make_tuple(report.block_refused ? py::object(py::int_(report.worst_block)) : py::none(),
                        report.largest_residual);
}

py::bytes pack(const Scheme& scheme, std::uint64_t length, bool cut, std::uint64_t start, std::uint64_t stop,
               const py::array& words) {
  const Extent extent{length, cut};
  const void* in = polynomial(scheme, words, extent, "words");
  py::bytes packed(nullptr, scheme.packed_bytes(extent, start, stop));
  auto* out = reinterpret_cast<std::uint8_t*>(PyBytes_AS_STRING(packed.ptr()));
  py::gil_scoped_release unlocked;
  scheme.pack(extent, start, stop, in, out);
  return packed;
}

const std::uint8_t* packed_in(const Scheme& scheme, const py::buffer_info& info, const Extent& extent,
                              std::uint64_t start, std::uint64_t stop) {
  const std::size_t expected = scheme.packed_bytes(extent, start, stop);
  require(info.ndim == 1 && info.strides[0] == info.itemsize, "packed blocks must be contiguous bytes");
  require(static_cast<std::size_t>(info.size * info.itemsize) == expected, "blocks ", start, " .. ", stop, " take ",
          expected, " bytes; got ", info.size * info.itemsize);
  return static_cast<const std::uint8_t*>(info.ptr);
}

bool unpack(const Scheme& scheme, std::uint64_t length, bool cut, std::uint64_t start, std::uint64_t stop,
            const py::buffer& packed, py::array out) {
  const Extent extent{length, cut};
  const py::buffer_info info = packed.request();
  const std::uint8_t* in = packed_in(scheme, info, extent, start, stop);
  void* words = polynomial_out(scheme, out, extent, "out");
  py::gil_scoped_release unlocked;
  return scheme.unpack(extent, start, stop, in, words);
}

py::object hop(const Scheme& scheme, std::uint64_t length, bool cut, std::uint64_t start, std::uint64_t stop,
               const py::buffer& packed, const py::array& mine) {
  const Extent extent{length, cut};
  const py::buffer_info info = packed.request();
  const std::uint8_t* in = packed_in(scheme, info, extent, start, stop);
  const void* words = polynomial(scheme, mine, extent, "mine");
  py::bytes result(nullptr, scheme.packed_bytes(extent, start, stop));
  auto* out = reinterpret_cast<std::uint8_t*>(PyBytes_AS_STRING(result.ptr()));
  bool valid = false;
  {
    py::gil_scoped_release unlocked;
    valid = scheme.hop(extent, start, stop, in, words, out);
  }
  return valid ? py::object(result) : py::none();
}

py::array tag(const Scheme& scheme, std::uint64_t length, const py::bytes& key, const py::array& words) {
  const Extent extent{length, true};
  const std::size_t count =
      kernels::kTagRows * scheme.parameters().primes().size() * scheme.parameters().ring_dimension();
  py::array tags = new_words(scheme, count);
  std::memset(tags.mutable_data(), 0, count * scheme.word_bytes());
  scheme.tag(extent, key_bytes(key, "sum check key"), polynomial(scheme, words, extent, "words"), tags.mutable_data());
  return tags;
}

py::tuple quantize(const Scheme& scheme, const py::list& arrays, double weight) {
  const Tensors tensors(arrays);
  Integers out(static_cast<py::ssize_t>(tensors.length()));
  std::int64_t* data = out.mutable_data();
  std::uint64_t clipped = 0;
  {
    py::gil_scoped_release unlocked;
    clipped = scheme.quantize(tensors.list(), tensors.length(), weight, data).clipped;
  }
  return py::make_tuple(out, clipped);
}

py::array generate_public(const Scheme& scheme, const ckks::SecretKey& secret, const ring::StreamKey& error,
                          const py::bytes& seed) {
  py::array pk0 = new_words(scheme, scheme.parameters().primes().size() * scheme.parameters().ring_dimension());
  scheme.generate_public(secret, error, key_bytes(seed, "public seed"), pk0.mutable_data());
  return pk0;
}

std::unique_ptr<ckks::PublicKey> load_public(const Scheme& scheme, const py::array& pk0, const py::bytes& seed) {
  const std::size_t count = scheme.parameters().primes().size() * scheme.parameters().ring_dimension();
  return scheme.load_public(words_in(pk0, scheme.word_bytes(), count, "pk0"), key_bytes(seed, "public seed"));
}

}  // namespace

void register_scheme(py::module_& module) {
  py::class_<Scheme>(module, "Scheme")
      .def(py::init([](const ckks::Parameters& parameters, const std::string& backend) {
             return Scheme::create(parameters, backend);
           }),
           py::arg("parameters"), py::arg("backend") = "")
      .def_property_readonly("backend", &Scheme::backend)
      .def_property_readonly("word_bytes", &Scheme::word_bytes)
      .def("words", [](const Scheme& s, std::uint64_t length, bool cut) { return s.words({length, cut}); })
      .def("packed_bytes", [](const Scheme& s, std::uint64_t length, bool cut, std::uint64_t start,
                              std::uint64_t stop) { return s.packed_bytes({length, cut}, start, stop); })
      .def("generate_secret", &Scheme::generate_secret, py::arg("seed"))
      .def("secret_from_coefficients",
           [](const Scheme& s, const Integers& coefficients) {
             require(coefficients.ndim() == 1 &&
                         static_cast<std::uint64_t>(coefficients.size()) == s.parameters().ring_dimension(),
                     "a key has ", s.parameters().ring_dimension(), " coefficients; got ", coefficients.size());
             return s.secret_from_coefficients(coefficients.data());
           })
      .def("generate_public", &generate_public)
      .def("load_public", &load_public)
      .def("quantize", &quantize)
      .def("encrypt", &encrypt)
      .def("encrypt_public", &encrypt_public)
      .def("add", &add)
      .def("expand",
           [](const Scheme& s, std::uint64_t length, const py::bytes& seed) {
             py::array out = new_words(s, s.words({length, false}));
             s.expand(length, key_bytes(seed, "public seed"), out.mutable_data());
             return out;
           })
      .def("mask",
           [](const Scheme& s, std::uint64_t length, const py::bytes& seed, bool subtract, const py::array& words) {
             const Extent extent{length, true};
             py::array out = new_words(s, s.words(extent));
             s.mask(extent, key_bytes(seed, "mask seed"), subtract, polynomial(s, words, extent, "words"),
                    out.mutable_data());
             return out;
           })
      .def("open", &open)
      .def("pack", &pack)
      .def("unpack", &unpack)
      .def("hop", &hop)
      .def("tag", &tag);
}

}  // namespace pppml::bindings
