#include <pybind11/stl.h>

#include <cmath>
#include <optional>
#include <string_view>
#include <tuple>

#include "bindings/arrays.hpp"
#include "bindings/cuda_tensors.hpp"
#include "bindings/register.hpp"
#include "ckks/device_identity.hpp"
#include "ckks/device_scheme.hpp"

namespace pppml::bindings {
namespace {

namespace cuda = kernels::cuda;
using ckks::DeviceScheme;
using ckks::PendingReport;
// Addresses of device memory, and handles of streams, as Python has them.
using Address = std::uintptr_t;
using TensorRow = std::tuple<Address, std::uint64_t, std::string>;

template <class T = void>
T* pointer(Address address) {
  return reinterpret_cast<T*>(address);
}

cuda::Stream stream_of(int device, Address handle) {
  return {device, pointer(handle)};
}

std::vector<ckks::DeviceTensor> tensors_of(const std::vector<TensorRow>& rows) {
  std::vector<ckks::DeviceTensor> tensors;
  for (const auto& [address, length, dtype] : rows) tensors.push_back({pointer(address), length, float_dtype(dtype)});
  return tensors;
}

ckks::RowTarget target_of(Address address, bool packed) {
  if (packed) return {nullptr, pointer<std::uint8_t>(address)};
  return {pointer(address), nullptr};
}

ckks::RowSource source_of(Address address, bool packed) {
  if (packed) return {nullptr, pointer<std::uint8_t>(address)};
  return {pointer(address), nullptr};
}

ckks::Range range_of(const DeviceScheme& scheme, std::uint64_t length, std::uint64_t start,
                     std::optional<std::uint64_t> stop) {
  return {length, start, stop.value_or(scheme.host().parameters().block_count(length))};
}

std::unique_ptr<PendingReport> encrypt(const DeviceScheme& scheme, const ckks::SecretKey& secret,
                                       const ring::StreamKey& noise, const py::bytes& public_seed, std::uint64_t length,
                                       const std::vector<TensorRow>& tensors, double weight, Address out, bool packed,
                                       Address stream, const std::vector<TensorRow>& reference, Address incoming,
                                       std::uint64_t start, std::optional<std::uint64_t> stop) {
  const std::uint8_t* expansion = key_bytes(public_seed, "public seed");
  const ckks::DevicePlain plain{tensors_of(tensors), tensors_of(reference), weight};
  const ckks::Range range = range_of(scheme, length, start, stop);
  py::gil_scoped_release unlocked;
  return scheme.encrypt(secret, noise, expansion, plain, range, pointer<std::uint8_t>(incoming), target_of(out, packed),
                        stream_of(scheme.device(), stream));
}

std::unique_ptr<PendingReport> encrypt_public(const DeviceScheme& scheme, const ckks::PublicKey& key,
                                              const ring::StreamKey& noise, std::uint64_t length,
                                              const std::vector<TensorRow>& tensors, double weight, Address c0,
                                              Address c1, bool packed, Address stream,
                                              const std::vector<TensorRow>& reference) {
  const ckks::DevicePlain plain{tensors_of(tensors), tensors_of(reference), weight};
  const ckks::Range range = range_of(scheme, length, 0, std::nullopt);
  py::gil_scoped_release unlocked;
  return scheme.encrypt_public(key, noise, plain, range, target_of(c0, packed), target_of(c1, packed),
                               stream_of(scheme.device(), stream));
}

void add(const DeviceScheme& scheme, std::uint64_t length, bool cut, const std::vector<Address>& inputs, Address out,
         Address stream) {
  std::vector<const void*> rows;
  for (const Address input : inputs) rows.push_back(pointer(input));
  py::gil_scoped_release unlocked;
  scheme.add({length, cut}, rows, pointer(out), stream_of(scheme.device(), stream));
}

std::unique_ptr<PendingReport> move(const DeviceScheme& scheme, std::uint64_t length, bool cut, std::uint64_t start,
                                    std::uint64_t stop, Address in, bool in_packed, Address mine, Address out,
                                    bool out_packed, Address stream) {
  py::gil_scoped_release unlocked;
  return scheme.move({length, cut}, start, stop, source_of(in, in_packed), pointer(mine), target_of(out, out_packed),
                     stream_of(scheme.device(), stream));
}

std::unique_ptr<PendingReport> open(const DeviceScheme& scheme, const ckks::SecretKey& secret, std::uint64_t length,
                                    std::uint64_t terms, Address c0, std::optional<Address> c1, bool packed,
                                    const std::optional<py::bytes>& public_seed, Address integers,
                                    const std::vector<TensorRow>& tensors, Address stream, std::uint64_t start,
                                    std::optional<std::uint64_t> stop, double divisor) {
  require(std::isfinite(divisor) && divisor > 0, "a sum is divided by a positive number, not by ", divisor);
  require(c1 || public_seed, "a ciphertext of one polynomial opens with its public seed");
  const std::uint8_t* expansion = c1 ? nullptr : key_bytes(*public_seed, "public seed");
  const ckks::Range range = range_of(scheme, length, start, stop);
  const std::vector<ckks::DeviceTensor> targets = tensors_of(tensors);
  py::gil_scoped_release unlocked;
  return scheme.open(secret, range, terms, source_of(c0, packed), c1 ? source_of(*c1, packed) : ckks::RowSource{},
                     expansion, pointer<std::int64_t>(integers), targets, divisor, stream_of(scheme.device(), stream));
}

// Tags of the pieces, and the first value that is NaN or Inf.
std::tuple<py::bytes, std::optional<std::uint64_t>> tag_pieces(int device, Address stream,
                                                               const std::vector<TensorRow>& tensors,
                                                               const py::bytes& hash_key, std::uint64_t piece) {
  const std::string_view key = hash_key;
  require(key.size() == ckks::kHashKeyBytes, "a hash key has ", ckks::kHashKeyBytes, " bytes, not ", key.size());
  const std::vector<ckks::DeviceTensor> values = tensors_of(tensors);
  ckks::PieceTags found;
  {
    py::gil_scoped_release unlocked;
    found =
        ckks::tag_pieces(values, reinterpret_cast<const std::uint8_t*>(key.data()), piece, stream_of(device, stream));
  }
  return {py::bytes(reinterpret_cast<const char*>(found.tags.data()), found.tags.size()), found.first_non_finite};
}

using Found =
    std::tuple<std::uint64_t, std::optional<std::uint64_t>, std::uint64_t, std::uint64_t, std::optional<std::uint64_t>>;

// (clipped values, first value that is NaN or Inf, residues not below their prime, largest residual, refused block)
Found wait_for(const PendingReport& pending) {
  cuda::DeviceReport report;
  {
    py::gil_scoped_release unlocked;
    report = pending.wait();
  }
  const auto none = [](std::uint64_t value) { return value == UINT64_MAX ? std::nullopt : std::optional(value); };
  return {report.clipped, none(report.first_non_finite), report.invalid_residues, report.largest_residual,
          none(report.worst_block)};
}

void to_device(int device, Address stream, Address address, const Memory& data) {
  const py::buffer_info info = data.request();
  require(info.ndim == 1 && (info.size == 0 || info.strides[0] == info.itemsize), "data must be contiguous");
  py::gil_scoped_release unlocked;
  cuda::copy_to_device(stream_of(device, stream), pointer(address), info.ptr,
                       static_cast<std::size_t>(info.size * info.itemsize));
}

void to_host(int device, Address stream, const Memory& out, Address address) {
  const py::buffer_info info = out.request(true);
  require(info.ndim == 1 && (info.size == 0 || info.strides[0] == info.itemsize), "out must be contiguous");
  py::gil_scoped_release unlocked;
  cuda::copy_to_host(stream_of(device, stream), info.ptr, pointer(address),
                     static_cast<std::size_t>(info.size * info.itemsize));
}

void register_device_errors(py::module_& module) {
  static py::exception<cuda::DeviceError> device(module, "DeviceError", PyExc_RuntimeError);
  static py::exception<cuda::DeviceMemoryError> memory(module, "DeviceMemoryError", device.ptr());
  py::register_exception_translator([](std::exception_ptr thrown) {
    try {
      if (thrown) std::rethrow_exception(thrown);
    } catch (const cuda::DeviceMemoryError& error) {
      PyErr_SetString(memory.ptr(), error.what());
    } catch (const cuda::DeviceError& error) {
      PyErr_SetString(device.ptr(), error.what());
    }
  });
}

void register_devices(py::module_& module) {
  module.def("built", &cuda::built, "Whether this build can use a device where there is one.");
  module.def("why_unusable", &cuda::why_unusable, "Why no device can be used here; empty where one can.");
  module.def("device_count", &cuda::device_count);
  module.def(
      "describe",
      [](int device) {
        const cuda::DeviceDescription d = cuda::describe(device);
        return std::make_tuple(d.name, d.major, d.minor, d.memory, d.free_memory);
      },
      py::arg("device"), "(name, compute capability, total and free bytes) of a device.");
  module.def(
      "device_of", [](Address address) { return cuda::device_of(pointer(address)); }, py::arg("address"),
      "The device whose memory an address lies in, or -1.");
  module.def(
      "synchronize",
      [](int device, Address stream) {
        py::gil_scoped_release unlocked;
        cuda::synchronize(stream_of(device, stream));
      },
      py::arg("device"), py::arg("stream"));
  module.def(
      "wait",
      [](int device, Address stream, Address producer) {
        cuda::wait(stream_of(device, stream), stream_of(device, producer));
      },
      py::arg("device"), py::arg("stream"), py::arg("producer"), "Lets a stream wait for another one.");
  module.def("to_device", &to_device, py::arg("device"), py::arg("stream"), py::arg("address"), py::arg("data"));
  module.def("to_host", &to_host, py::arg("device"), py::arg("stream"), py::arg("out"), py::arg("address"));
  py::class_<cuda::PinnedMemory>(module, "PinnedMemory", py::buffer_protocol(),
                                 "Memory of the host that devices copy to and from by themselves.")
      .def(py::init<int, std::size_t>(), py::arg("device"), py::arg("nbytes"))
      .def_property_readonly("nbytes", &cuda::PinnedMemory::bytes)
      .def_buffer([](const cuda::PinnedMemory& memory) {
        return py::buffer_info(static_cast<std::uint8_t*>(memory.data()), static_cast<py::ssize_t>(memory.bytes()));
      });
  module.def(
      "queue_to_host",
      [](int device, Address stream, const cuda::PinnedMemory& out, Address address, std::size_t bytes) {
        require(bytes <= out.bytes(), bytes, " bytes do not fit pinned memory of ", out.bytes());
        cuda::queue_to_host(stream_of(device, stream), out.data(), pointer(address), bytes);
      },
      py::arg("device"), py::arg("stream"), py::arg("out"), py::arg("address"), py::arg("nbytes"),
      "Queues a copy: `out` holds it once the stream has come so far.");
  module.def(
      "zero",
      [](int device, Address stream, Address address, std::size_t bytes) {
        cuda::zero(stream_of(device, stream), pointer(address), bytes);
      },
      py::arg("device"), py::arg("stream"), py::arg("address"), py::arg("nbytes"), "Queues zeros.");
  py::class_<cuda::DeviceMemory>(module, "DeviceMemory", "Memory of a device, given back in the order of its stream.")
      .def(py::init([](int device, Address stream, std::size_t bytes) {
             return cuda::DeviceMemory(stream_of(device, stream), bytes, cuda::Secrecy::kPublic);
           }),
           py::arg("device"), py::arg("stream"), py::arg("nbytes"))
      .def_property_readonly("address", [](const cuda::DeviceMemory& m) { return reinterpret_cast<Address>(m.data()); })
      .def_property_readonly("nbytes", &cuda::DeviceMemory::bytes)
      .def_property_readonly("device", [](const cuda::DeviceMemory& m) { return m.stream().device; });
}

}  // namespace

void register_cuda(py::module_& parent) {
  py::module_ module = parent.def_submodule("cuda", "The core on CUDA devices; see csrc/ckks/device_scheme.hpp.");
  register_device_errors(module);
  register_devices(module);
  register_cuda_tensors(module);
  module.def("tag_pieces", &tag_pieces, py::arg("device"), py::arg("stream"), py::arg("tensors"), py::arg("hash_key"),
             py::arg("piece"), "GHASH of each piece of a vector, and its first value that is NaN or Inf.");
  py::class_<PendingReport>(module, "PendingReport", "What an operation found out, still on its device.")
      .def("wait", &wait_for);
  py::class_<DeviceScheme>(module, "DeviceScheme", "The operations of one parameter set on one device.")
      .def(py::init(&DeviceScheme::create), py::arg("scheme"), py::arg("device"), py::keep_alive<1, 2>())
      .def_property_readonly("device", &DeviceScheme::device)
      .def("encrypt", &encrypt, py::arg("secret"), py::arg("noise"), py::arg("public_seed"), py::arg("length"),
           py::arg("tensors"), py::arg("weight"), py::arg("out"), py::arg("packed"), py::arg("stream"), py::kw_only(),
           py::arg("reference") = std::vector<TensorRow>(), py::arg("incoming") = 0, py::arg("start") = 0,
           py::arg("stop") = py::none())
      .def("encrypt_public", &encrypt_public, py::arg("key"), py::arg("noise"), py::arg("length"), py::arg("tensors"),
           py::arg("weight"), py::arg("c0"), py::arg("c1"), py::arg("packed"), py::arg("stream"), py::kw_only(),
           py::arg("reference") = std::vector<TensorRow>())
      .def("add", &add, py::arg("length"), py::arg("cut"), py::arg("inputs"), py::arg("out"), py::arg("stream"))
      .def("move", &move, py::arg("length"), py::arg("cut"), py::arg("start"), py::arg("stop"), py::arg("source"),
           py::arg("source_packed"), py::arg("mine"), py::arg("out"), py::arg("out_packed"), py::arg("stream"))
      .def("open", &open, py::arg("secret"), py::arg("length"), py::arg("terms"), py::arg("c0"), py::arg("c1"),
           py::arg("packed"), py::arg("public_seed"), py::arg("integers"), py::arg("tensors"), py::arg("stream"),
           py::kw_only(), py::arg("start") = 0, py::arg("stop") = py::none(), py::arg("divisor") = 1.0);
}

}  // namespace pppml::bindings
