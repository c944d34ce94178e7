#include "bindings/arrays.hpp"

#include <algorithm>

namespace pppml::bindings {
namespace {

kernels::Dtype dtype_of(const py::array& array) {
  const char kind = array.dtype().kind();
  if (kind == 'f' && array.itemsize() == 4) return kernels::Dtype::kFloat32;
  if (kind == 'f' && array.itemsize() == 8) return kernels::Dtype::kFloat64;
  if (kind == 'f' && array.itemsize() == 2) return kernels::Dtype::kFloat16;
  throw RequirementError(concatenate("dtype ", std::string(py::str(array.dtype())),
                                     " is not supported; use float32, float64, float16 or bfloat16"));
}

}  // namespace

Tensors::Tensors(const py::list& arrays) {
  for (const py::handle& item : arrays) {
    const bool tagged = py::isinstance<py::tuple>(item);
    py::array array = py::array::ensure(tagged ? item.cast<py::tuple>()[1] : py::reinterpret_borrow<py::object>(item));
    require(static_cast<bool>(array) && (array.flags() & py::array::c_style) != 0,
            "a tensor is not a contiguous array");
    const kernels::Dtype dtype = tagged ? kernels::Dtype::kBfloat16 : dtype_of(array);
    const auto size = static_cast<std::size_t>(array.size());
    spans_.push_back({array.data(), size, dtype, std::max<std::size_t>(size, 1), std::max<std::size_t>(size, 1)});
    length_ += static_cast<std::uint64_t>(array.size());
    keep_alive_.push_back(std::move(array));
  }
}

}  // namespace pppml::bindings
