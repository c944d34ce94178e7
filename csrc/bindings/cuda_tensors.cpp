#include "bindings/cuda_tensors.hpp"

#include <pybind11/typing.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "base/check.hpp"

namespace pppml::bindings {
namespace {

namespace py = pybind11;

// The structures of DLPack 1.0 (https://dmlc.github.io/dlpack), field by field; those before it are a part of them.
struct DlDevice {
  std::int32_t type, id;
};
struct DlType {
  std::uint8_t code, bits;
  std::uint16_t lanes;
};
struct DlTensor {
  void* data;
  DlDevice device;
  std::int32_t ndim;
  DlType dtype;
  std::int64_t* shape;
  std::int64_t* strides;
  std::uint64_t byte_offset;
};
struct DlManaged {
  DlTensor tensor;
  void* context;
  void (*deleter)(DlManaged*);
};
struct DlVersioned {
  std::uint32_t major, minor;
  void* context;
  void (*deleter)(DlVersioned*);
  std::uint64_t flags;
  DlTensor tensor;
};
constexpr std::uint64_t kReadOnly = 1;
enum DlCode : std::uint8_t { kInt = 0, kUInt = 1, kFloat = 2, kBfloat = 4 };
constexpr char kName[] = "dltensor", kVersionedName[] = "dltensor_versioned";
constexpr char kUsed[] = "used_dltensor", kVersionedUsed[] = "used_dltensor_versioned";

std::string type_name(const DlType& type) {
  const char* kind = type.code == kInt      ? "int"
                     : type.code == kUInt   ? "uint"
                     : type.code == kFloat  ? "float"
                     : type.code == kBfloat ? "bfloat"
                                            : "type";
  std::string name = kind + std::to_string(type.bits);
  return type.lanes == 1 ? name : name + "x" + std::to_string(type.lanes);
}

// A tensor that a capsule brought; given back to its owner at the end.
class ForeignTensor {
 public:
  explicit ForeignTensor(const py::object& capsule) {
    PyObject* const object = capsule.ptr();
    if (PyCapsule_IsValid(object, kVersionedName) != 0) {
      versioned_ = static_cast<DlVersioned*>(PyCapsule_GetPointer(object, kVersionedName));
      require(versioned_->major == 1, "the tensor comes as DLPack ", versioned_->major, "; this library reads 0 and 1");
      PyCapsule_SetName(object, kVersionedUsed);
      tensor_ = &versioned_->tensor;
    } else {
      require(PyCapsule_IsValid(object, kName) != 0, "no DLPack capsule, or one that was used before");
      managed_ = static_cast<DlManaged*>(PyCapsule_GetPointer(object, kName));
      PyCapsule_SetName(object, kUsed);
      tensor_ = &managed_->tensor;
    }
  }
  ForeignTensor(const ForeignTensor&) = delete;
  ForeignTensor& operator=(const ForeignTensor&) = delete;
  ~ForeignTensor() {
    if (managed_ != nullptr && managed_->deleter != nullptr) managed_->deleter(managed_);
    if (versioned_ != nullptr && versioned_->deleter != nullptr) versioned_->deleter(versioned_);
  }

  std::uintptr_t address() const {
    return reinterpret_cast<std::uintptr_t>(tensor_->data) + static_cast<std::uintptr_t>(tensor_->byte_offset);
  }
  int device_type() const { return tensor_->device.type; }
  int device() const { return tensor_->device.id; }
  std::string dtype() const { return type_name(tensor_->dtype); }
  py::typing::Tuple<std::int64_t, py::ellipsis> shape() const {
    py::tuple shape(static_cast<std::size_t>(tensor_->ndim));
    for (std::int32_t i = 0; i < tensor_->ndim; ++i) shape[static_cast<std::size_t>(i)] = tensor_->shape[i];
    return shape;
  }
  std::uint64_t length() const {
    std::uint64_t length = 1;
    for (std::int32_t i = 0; i < tensor_->ndim; ++i) length *= static_cast<std::uint64_t>(tensor_->shape[i]);
    return length;
  }
  // In C order without gaps.
  bool contiguous() const {
    if (tensor_->strides == nullptr || length() == 0) return true;
    std::int64_t step = 1;
    for (std::int32_t i = tensor_->ndim; i-- > 0;) {
      if (tensor_->shape[i] != 1 && tensor_->strides[i] != step) return false;
      step *= tensor_->shape[i];
    }
    return true;
  }
  bool read_only() const { return versioned_ != nullptr && (versioned_->flags & kReadOnly) != 0; }

 private:
  DlManaged* managed_ = nullptr;
  DlVersioned* versioned_ = nullptr;
  DlTensor* tensor_ = nullptr;
};

// What an exported tensor keeps alive.
struct Exported {
  DlManaged managed;
  std::int64_t length;
  PyObject* owner;
};

void drop(DlManaged* managed) {
  const py::gil_scoped_acquire locked;
  auto* const exported = static_cast<Exported*>(managed->context);
  Py_DECREF(exported->owner);
  delete exported;
}

// A capsule of `length` numbers at `address` on a CUDA device; `owner` lives as long as it is in use.
py::capsule export_tensor(const py::object& owner, std::uintptr_t address, std::int64_t length,
                          const std::string& dtype, int device_type, int device) {
  const bool is_signed = dtype == "int64", is_unsigned = dtype.rfind("uint", 0) == 0;
  const bool is_bfloat = dtype == "bfloat16";
  require(is_signed || is_unsigned || is_bfloat || dtype.rfind("float", 0) == 0, "dtype ", dtype, " is not exported");
  const std::size_t digits = dtype.find_first_of("0123456789");
  const auto bits = static_cast<std::uint8_t>(std::stoi(dtype.substr(digits)));
  auto exported = std::make_unique<Exported>();
  exported->length = length;
  exported->owner = owner.inc_ref().ptr();
  const std::uint8_t code = is_signed ? kInt : is_unsigned ? kUInt : is_bfloat ? kBfloat : kFloat;
  exported->managed.tensor = {
      reinterpret_cast<void*>(address), {device_type, device}, 1, {code, bits, 1}, &exported->length, nullptr, 0};
  exported->managed.context = exported.get();
  exported->managed.deleter = drop;
  return py::capsule(&exported.release()->managed, kName, [](PyObject* capsule) {
    if (PyCapsule_IsValid(capsule, kName) == 0) return;  // whoever used it gives it back
    auto* const managed = static_cast<DlManaged*>(PyCapsule_GetPointer(capsule, kName));
    managed->deleter(managed);
  });
}

}  // namespace

kernels::Dtype float_dtype(const std::string& name) {
  if (name == "float32") return kernels::Dtype::kFloat32;
  if (name == "float64") return kernels::Dtype::kFloat64;
  if (name == "float16") return kernels::Dtype::kFloat16;
  require(name == "bfloat16", "dtype ", name, " is not supported; use float32, float64, float16 or bfloat16");
  return kernels::Dtype::kBfloat16;
}

void register_cuda_tensors(py::module_& module) {
  py::class_<ForeignTensor>(module, "ForeignTensor", "A tensor of another library, from its DLPack capsule.")
      .def(py::init<const py::object&>(), py::arg("capsule"))
      .def_property_readonly("address", &ForeignTensor::address)
      .def_property_readonly("device_type", &ForeignTensor::device_type)
      .def_property_readonly("device", &ForeignTensor::device)
      .def_property_readonly("dtype", &ForeignTensor::dtype)
      .def_property_readonly("shape", &ForeignTensor::shape)
      .def_property_readonly("length", &ForeignTensor::length)
      .def_property_readonly("contiguous", &ForeignTensor::contiguous)
      .def_property_readonly("read_only", &ForeignTensor::read_only);
  module.def("export_tensor", &export_tensor, py::arg("owner"), py::arg("address"), py::arg("length"), py::arg("dtype"),
             py::arg("device_type"), py::arg("device"));
}

}  // namespace pppml::bindings
