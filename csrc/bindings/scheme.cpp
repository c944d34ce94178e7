#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <tuple>

#include "bindings/arrays.hpp"
#include "bindings/register.hpp"
#include "ckks/scheme.hpp"

namespace pppml::bindings {
namespace {

using ckks::Extent;
using ckks::Scheme;

py::array new_words(const Scheme& scheme, std::size_t count) {
  return new_array(py::dtype(scheme.word_bytes() == 4 ? "uint32" : "uint64"), count, Contents::kAny);
}

const void* polynomial(const Scheme& scheme, const py::array& words, const Extent& extent, const char* name) {
  return words_in(words, scheme.word_bytes(), scheme.words(extent), name);
}

void* polynomial_out(const Scheme& scheme, py::array& words, const Extent& extent, const char* name) {
  return words_out(words, scheme.word_bytes(), scheme.words(extent), name);
}

// Blocks [start, stop) of a vector; without a stop, to its end.
ckks::Range range_of(const Scheme& scheme, std::uint64_t length, std::uint64_t start,
                     const std::optional<std::uint64_t>& stop) {
  const std::uint64_t blocks = scheme.parameters().block_count(length);
  const ckks::Range range{length, start, stop.value_or(blocks)};
  require(range.start <= range.stop && range.stop <= blocks, "block range ", range.start, " .. ", range.stop,
          " is outside the vector's ", blocks, " blocks");
  return range;
}

// A contiguous buffer that holds the rows of a range: residue words where its items are as wide as those, else bytes.
struct Rows {
  Rows(const Scheme& scheme, const Memory& buffer, const Extent& extent, const ckks::Range& range, bool writable,
       const char* name)
      : info(buffer.request(writable)) {
    require(info.ndim == 1 && (info.size == 0 || info.strides[0] == info.itemsize), name,
            " must be contiguous and one-dimensional");
    packed = info.itemsize == 1;
    require(packed || static_cast<std::size_t>(info.itemsize) == scheme.word_bytes(), name, " has items of ",
            info.itemsize, " bytes; it takes uint", 8 * scheme.word_bytes(), " words or bytes");
    const std::size_t expected =
        packed ? scheme.packed_bytes(extent, range.start, range.stop) : scheme.words(extent, range.start, range.stop);
    require(static_cast<std::size_t>(info.size) == expected, name, " has ", info.size, " items; blocks ", range.start,
            " .. ", range.stop, " take ", expected);
  }
  ckks::RowTarget target() const { return packed ? ckks::RowTarget{nullptr, bytes()} : ckks::RowTarget{info.ptr}; }
  ckks::RowSource source() const { return packed ? ckks::RowSource{nullptr, bytes()} : ckks::RowSource{info.ptr}; }
  std::uint8_t* bytes() const { return static_cast<std::uint8_t*>(info.ptr); }

  py::buffer_info info;
  bool packed = false;
};

// Weights, what is subtracted from them, and a share.
struct Message {
  Message(const TensorObjects& arrays, const TensorObjects& subtracted, double weight)
      : tensors(arrays), reference(subtracted), share(weight) {
    require(reference.list().count == 0 || reference.length() == tensors.length(), "the reference has ",
            reference.length(), " values; the tensors have ", tensors.length());
  }
  ckks::Plain plain() const { return {tensors.list(), reference.list(), share}; }

  Tensors tensors, reference;
  double share;
};

// Packed rows to be added, or none.
std::optional<Rows> incoming_rows(const Scheme& scheme, const std::optional<Memory>& incoming,
                                  const ckks::Range& range) {
  if (!incoming) return std::nullopt;
  Rows rows(scheme, *incoming, {range.length, true}, range, false, "incoming");
  require(rows.packed, "incoming must be packed bytes");
  return rows;
}

// The number of clipped values, or None when an incoming residue is not below its prime.
std::optional<std::uint64_t> clipped_or_none(bool valid, const kernels::QuantizeReport& report) {
  return valid ? std::optional<std::uint64_t>(report.clipped) : std::nullopt;
}

std::optional<std::uint64_t> encrypt(const Scheme& scheme, const ckks::SecretKey& secret, const ring::StreamKey& noise,
                                     const py::bytes& public_seed, const TensorObjects& arrays, double weight,
                                     const Memory& out, const TensorObjects& reference, std::uint64_t start,
                                     std::optional<std::uint64_t> stop, const std::optional<Memory>& incoming) {
  const Message message(arrays, reference, weight);
  const ckks::Range range = range_of(scheme, message.tensors.length(), start, stop);
  const Rows rows(scheme, out, {range.length, true}, range, true, "out");
  const std::optional<Rows> added = incoming_rows(scheme, incoming, range);
  const std::uint8_t* expansion = key_bytes(public_seed, "public seed");
  kernels::QuantizeReport report;
  bool valid = false;
  {
    py::gil_scoped_release unlocked;
    valid = scheme.encrypt(secret, noise, expansion, message.plain(), range, added ? added->bytes() : nullptr,
                           rows.target(), &report);
  }
  return clipped_or_none(valid, report);
}

void make_pads(const Scheme& scheme, const ckks::SecretKey& secret, const ring::StreamKey& noise,
               const py::bytes& public_seed, std::uint64_t length, std::uint64_t start, std::uint64_t stop,
               const Memory& out) {
  const ckks::Range range = range_of(scheme, length, start, stop);
  const Rows rows(scheme, out, {length, true}, range, true, "pads");
  require(!rows.packed, "pads are residue words, not bytes");
  const std::uint8_t* expansion = key_bytes(public_seed, "public seed");
  py::gil_scoped_release unlocked;
  scheme.make_pads(secret, noise, expansion, range, rows.info.ptr);
}

std::optional<std::uint64_t> encrypt_prepared(const Scheme& scheme, const Memory& pads, const ring::StreamKey& noise,
                                              const TensorObjects& arrays, double weight, const Memory& out,
                                              const TensorObjects& reference, std::uint64_t start,
                                              std::optional<std::uint64_t> stop, const std::optional<Memory>& incoming,
                                              bool consume) {
  const Message message(arrays, reference, weight);
  const ckks::Range range = range_of(scheme, message.tensors.length(), start, stop);
  const Rows prepared(scheme, pads, {range.length, true}, range, consume, "pads");
  require(!prepared.packed, "pads are residue words, not bytes");
  const Rows rows(scheme, out, {range.length, true}, range, true, "out");
  require(!consume || rows.info.ptr != prepared.info.ptr, "pads that become the ciphertext are not consumed");
  const std::optional<Rows> added = incoming_rows(scheme, incoming, range);
  kernels::QuantizeReport report;
  bool valid = false;
  {
    py::gil_scoped_release unlocked;
    valid = scheme.encrypt_prepared(prepared.info.ptr, consume, noise, message.plain(), range,
                                    added ? added->bytes() : nullptr, rows.target(), &report);
  }
  return clipped_or_none(valid, report);
}

std::uint64_t encrypt_public(const Scheme& scheme, const ckks::PublicKey& key, const ring::StreamKey& noise,
                             const TensorObjects& arrays, double weight, const Memory& c0, const Memory& c1,
                             const TensorObjects& reference, std::uint64_t start, std::optional<std::uint64_t> stop) {
  const Message message(arrays, reference, weight);
  const ckks::Range range = range_of(scheme, message.tensors.length(), start, stop);
  const Rows first(scheme, c0, {range.length, true}, range, true, "c0");
  const Rows second(scheme, c1, {range.length, false}, range, true, "c1");
  py::gil_scoped_release unlocked;
  return scheme.encrypt_public(key, noise, message.plain(), range, first.target(), second.target()).clipped;
}

void add(const Scheme& scheme, std::uint64_t length, bool cut, const py::typing::List<py::array>& inputs,
         py::array out) {
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

using OpenResult = std::tuple<std::optional<std::uint64_t>, std::int64_t, bool>;

// `out` is an int64, float32 or float64 array of the range's values; it is zeroed again when a block or a residue is
// refused. Returns (first refused block or None, largest residual, whether every residue was below its prime).
OpenResult open(const Scheme& scheme, const ckks::SecretKey& secret, std::uint64_t length, std::uint64_t terms,
                const Memory& c0, const std::optional<Memory>& c1, const std::optional<py::bytes>& public_seed,
                py::array out, std::uint64_t start, std::optional<std::uint64_t> stop) {
  const ckks::Range range = range_of(scheme, length, start, stop);
  const Rows first(scheme, c0, {length, true}, range, false, "c0");
  std::optional<Rows> second;
  if (c1) second.emplace(scheme, *c1, Extent{length, false}, range, false, "c1");
  require(second || public_seed, "a ciphertext of one polynomial opens with its public seed");
  const std::uint8_t* expansion = second ? nullptr : key_bytes(*public_seed, "public seed");
  const bool integers = out.dtype().equal(py::dtype::of<std::int64_t>());
  const std::uint64_t count = integers ? scheme.integers(range) : scheme.weights(range);
  require(out.ndim() == 1 && static_cast<std::uint64_t>(out.size()) == count && out.writeable() &&
              (out.flags() & py::array::c_style) != 0,
          "out must be a contiguous writeable array of ", count, " values");
  ckks::Opened target;
  if (integers) target.integers = static_cast<std::int64_t*>(out.mutable_data());
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
      report = scheme.open(secret, range, terms, first.source(), second ? second->source() : ckks::RowSource{},
                           expansion, target);
    } catch (...) {
      std::memset(released, 0, bytes);
      throw;
    }
    if (report.block_refused || report.invalid_residue) std::memset(released, 0, bytes);
  }
  std::optional<std::uint64_t> refused;
  if (report.block_refused) refused = report.worst_block;
  return {refused, report.largest_residual, !report.invalid_residue};
}

// Where packed blocks go: the caller's buffer, or new bytes.
struct PackedOut {
  PackedOut(const Scheme& scheme, const Extent& extent, std::uint64_t start, std::uint64_t stop,
            const std::optional<Memory>& out) {
    const std::size_t bytes = scheme.packed_bytes(extent, start, stop);
    if (!out) {
      object = py::bytes(nullptr, bytes);
      data = reinterpret_cast<std::uint8_t*>(PyBytes_AS_STRING(object.ptr()));
      return;
    }
    object = *out;
    rows.emplace(scheme, *out, extent, ckks::Range{extent.length, start, stop}, true, "out");
    require(rows->packed, "out takes bytes");
    data = rows->bytes();
  }

  py::buffer object;
  std::optional<Rows> rows;  // holds the caller's buffer
  std::uint8_t* data = nullptr;
};

py::buffer pack(const Scheme& scheme, std::uint64_t length, bool cut, std::uint64_t start, std::uint64_t stop,
                const py::array& words, const std::optional<Memory>& out) {
  const Extent extent{length, cut};
  const void* in = polynomial(scheme, words, extent, "words");
  const PackedOut packed(scheme, extent, start, stop, out);
  {
    py::gil_scoped_release unlocked;
    scheme.pack(extent, start, stop, in, packed.data);
  }
  return packed.object;
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
            const Memory& packed, py::array out) {
  const Extent extent{length, cut};
  const py::buffer_info info = packed.request();
  const std::uint8_t* in = packed_in(scheme, info, extent, start, stop);
  void* words = polynomial_out(scheme, out, extent, "out");
  py::gil_scoped_release unlocked;
  return scheme.unpack(extent, start, stop, in, words);
}

std::optional<py::buffer> hop(const Scheme& scheme, std::uint64_t length, bool cut, std::uint64_t start,
                              std::uint64_t stop, const Memory& packed, const py::array& mine,
                              const std::optional<Memory>& out) {
  const Extent extent{length, cut};
  const py::buffer_info info = packed.request();
  const std::uint8_t* in = packed_in(scheme, info, extent, start, stop);
  const void* words = polynomial(scheme, mine, extent, "mine");
  const PackedOut result(scheme, extent, start, stop, out);
  bool valid = false;
  {
    py::gil_scoped_release unlocked;
    valid = scheme.hop(extent, start, stop, in, words, result.data);
  }
  return valid ? std::optional<py::buffer>(result.object) : std::nullopt;
}

// The tags, new or `given` with those of the range added; None on a packed residue that is not below its prime.
std::optional<py::array> tag(const Scheme& scheme, std::uint64_t length, const py::bytes& key, const Memory& words,
                             std::uint64_t start, const std::optional<std::uint64_t>& stop,
                             const std::optional<py::array>& given) {
  const std::size_t count =
      kernels::kTagRows * scheme.parameters().primes().size() * scheme.parameters().ring_dimension();
  const ckks::Range range = range_of(scheme, length, start, stop);
  const Extent extent{length, true};
  const Rows rows(scheme, words, extent, range, false, "words");
  py::array tags = given ? *given : new_words(scheme, count);
  if (!given) std::memset(tags.mutable_data(), 0, count * scheme.word_bytes());
  require(tags.dtype().kind() == 'u' && static_cast<std::size_t>(tags.itemsize()) == scheme.word_bytes() &&
              tags.ndim() == 1 && static_cast<std::size_t>(tags.size()) == count && tags.writeable() &&
              (tags.flags() & py::array::c_style) != 0,
          "tags must be a contiguous writeable array of ", count, " words");
  const std::uint8_t* expansion = key_bytes(key, "sum check key");
  void* sums = tags.mutable_data();
  bool valid = false;
  {
    py::gil_scoped_release unlocked;
    valid = scheme.tag(extent, range.start, range.stop, expansion, rows.source(), sums);
  }
  return valid ? std::optional<py::array>(tags) : std::nullopt;
}

// The values go to `out`, an int64 array, or to a new one.
std::tuple<Integers, std::uint64_t> quantize(const Scheme& scheme, const TensorObjects& arrays, double weight,
                                             const TensorObjects& reference,
                                             const std::optional<const ring::StreamKey*>& rounding,
                                             const std::optional<py::array>& given) {
  const Message message(arrays, reference, weight);
  const std::uint64_t length = scheme.parameters().integer_count(message.tensors.length());
  py::array out = given ? *given : new_array(py::dtype::of<std::int64_t>(), length, Contents::kAny);
  require(out.dtype().equal(py::dtype::of<std::int64_t>()) && out.ndim() == 1 &&
              static_cast<std::uint64_t>(out.size()) == length && out.writeable() &&
              (out.flags() & py::array::c_style) != 0,
          "out must be a contiguous writeable int64 array of ", length, " values");
  const ckks::Range range = range_of(scheme, message.tensors.length(), 0, std::nullopt);
  auto* const data = static_cast<std::int64_t*>(out.mutable_data());
  std::uint64_t clipped = 0;
  {
    py::gil_scoped_release unlocked;
    clipped = scheme.quantize(message.plain(), rounding.value_or(nullptr), range, data).clipped;
  }
  return {out, clipped};
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

// a of a public key of this seed, in NTT form.
py::array expand_ntt(const Scheme& scheme, const py::bytes& seed) {
  py::array rows = new_words(scheme, scheme.parameters().primes().size() * scheme.parameters().ring_dimension());
  scheme.expand_ntt(key_bytes(seed, "public seed"), rows.mutable_data());
  return rows;
}

void restore_slots(const Scheme& scheme, const Integers& integers, py::array_t<double, py::array::c_style> out) {
  const auto length = static_cast<std::uint64_t>(out.size());
  const std::uint64_t count = scheme.parameters().integer_count(length);
  require(static_cast<std::uint64_t>(integers.size()) == count, length, " weights take ", count, " integers, not ",
          integers.size());
  const std::int64_t* from = integers.data();
  double* to = out.mutable_data();
  py::gil_scoped_release unlocked;
  scheme.restore_slots(length, from, {nullptr, nullptr, to});
}

std::unique_ptr<ckks::PublicKey> load_public_pair(const Scheme& scheme, const py::array& pk0, const py::array& pk1) {
  const std::size_t count = scheme.parameters().primes().size() * scheme.parameters().ring_dimension();
  return scheme.load_public_pair(words_in(pk0, scheme.word_bytes(), count, "pk0"),
                                 words_in(pk1, scheme.word_bytes(), count, "pk1"));
}

}  // namespace

void register_scheme(py::module_& module) {
  module.def("reads_in_place", &reads_in_place, py::arg("array"), "Whether the core reads an array where it lies.");
  py::class_<Scheme>(module, "Scheme", "The operations of one parameter set on one backend; see csrc/ckks/scheme.hpp.")
      .def(py::init([](const ckks::Parameters& parameters, const std::string& backend, const std::string& cipher) {
             return Scheme::create(parameters, backend, cipher);
           }),
           py::arg("parameters"), py::arg("backend") = "", py::arg("cipher") = "")
      .def_property_readonly(
          "private_cipher",
          [](const Scheme& s) { return s.private_cipher() == kernels::StreamCipher::kAes256 ? "aes256" : "chacha20"; })
      .def_property_readonly("backend", &Scheme::backend)
      .def_property_readonly("word_bytes", &Scheme::word_bytes)
      .def(
          "words", [](const Scheme& s, std::uint64_t length, bool cut) { return s.words({length, cut}); },
          py::arg("length"), py::arg("cut"))
      .def(
          "packed_bytes",
          [](const Scheme& s, std::uint64_t length, bool cut, std::uint64_t start, std::uint64_t stop) {
            return s.packed_bytes({length, cut}, start, stop);
          },
          py::arg("length"), py::arg("cut"), py::arg("start"), py::arg("stop"))
      .def("generate_secret", &Scheme::generate_secret, py::arg("seed"))
      .def(
          "secret_from_coefficients",
          [](const Scheme& s, const Integers& coefficients) {
            require(coefficients.ndim() == 1 &&
                        static_cast<std::uint64_t>(coefficients.size()) == s.parameters().ring_dimension(),
                    "a key has ", s.parameters().ring_dimension(), " coefficients; got ", coefficients.size());
            return s.secret_from_coefficients(coefficients.data());
          },
          py::arg("coefficients"))
      .def("generate_public", &generate_public, py::arg("secret"), py::arg("error"), py::arg("seed"))
      .def("load_public", &load_public, py::arg("pk0"), py::arg("seed"))
      .def("expand_ntt", &expand_ntt, py::arg("public_seed"))
      .def("restore_slots", &restore_slots, py::arg("integers").noconvert(), py::arg("out").noconvert())
      .def("load_public_pair", &load_public_pair, py::arg("pk0"), py::arg("pk1"))
      .def("quantize", &quantize, py::arg("tensors"), py::arg("weight"), py::kw_only(),
           py::arg("reference") = py::list(), py::arg("rounding") = py::none(), py::arg("out") = py::none())
      .def("encrypt", &encrypt, py::arg("secret"), py::arg("noise"), py::arg("public_seed"), py::arg("tensors"),
           py::arg("weight"), py::arg("out"), py::kw_only(), py::arg("reference") = py::list(), py::arg("start") = 0,
           py::arg("stop") = py::none(), py::arg("incoming") = py::none())
      .def("make_pads", &make_pads, py::arg("secret"), py::arg("noise"), py::arg("public_seed"), py::arg("length"),
           py::arg("start"), py::arg("stop"), py::arg("out"))
      .def("encrypt_prepared", &encrypt_prepared, py::arg("pads"), py::arg("noise"), py::arg("tensors"),
           py::arg("weight"), py::arg("out"), py::kw_only(), py::arg("reference") = py::list(), py::arg("start") = 0,
           py::arg("stop") = py::none(), py::arg("incoming") = py::none(), py::arg("consume") = false)
      .def("encrypt_public", &encrypt_public, py::arg("key"), py::arg("noise"), py::arg("tensors"), py::arg("weight"),
           py::arg("c0"), py::arg("c1"), py::kw_only(), py::arg("reference") = py::list(), py::arg("start") = 0,
           py::arg("stop") = py::none())
      .def("add", &add, py::arg("length"), py::arg("cut"), py::arg("inputs"), py::arg("out"))
      .def(
          "expand",
          [](const Scheme& s, std::uint64_t length, const py::bytes& seed) {
            py::array out = new_words(s, s.words({length, false}));
            s.expand(length, key_bytes(seed, "public seed"), out.mutable_data());
            return out;
          },
          py::arg("length"), py::arg("public_seed"))
      .def(
          "mask",
          [](const Scheme& s, std::uint64_t length, const py::bytes& seed, bool subtract, const py::array& words) {
            const Extent extent{length, true};
            py::array out = new_words(s, s.words(extent));
            s.mask(extent, key_bytes(seed, "mask seed"), subtract, polynomial(s, words, extent, "words"),
                   out.mutable_data());
            return out;
          },
          py::arg("length"), py::arg("seed"), py::arg("subtract"), py::arg("words"))
      .def("open", &open, py::arg("secret"), py::arg("length"), py::arg("terms"), py::arg("c0"), py::arg("c1"),
           py::arg("public_seed"), py::arg("out"), py::kw_only(), py::arg("start") = 0, py::arg("stop") = py::none())
      .def("pack", &pack, py::arg("length"), py::arg("cut"), py::arg("start"), py::arg("stop"), py::arg("words"),
           py::arg("out") = py::none())
      .def("unpack", &unpack, py::arg("length"), py::arg("cut"), py::arg("start"), py::arg("stop"), py::arg("packed"),
           py::arg("out"))
      .def("hop", &hop, py::arg("length"), py::arg("cut"), py::arg("start"), py::arg("stop"), py::arg("packed"),
           py::arg("mine"), py::arg("out") = py::none())
      .def("tag", &tag, py::arg("length"), py::arg("key"), py::arg("words"), py::arg("start") = 0,
           py::arg("stop") = py::none(), py::arg("tags") = py::none());
}

}  // namespace pppml::bindings
