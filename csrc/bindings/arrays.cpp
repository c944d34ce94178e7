#include "bindings/arrays.hpp"

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>

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

py::array new_array(const py::dtype& dtype, std::size_t count, Contents contents) {
  const auto item_bytes = static_cast<std::size_t>(dtype.itemsize());
  if (count > static_cast<std::size_t>(PY_SSIZE_T_MAX) / item_bytes) throw std::bad_alloc();
  const std::size_t bytes = count * item_bytes;
  const std::vector<py::ssize_t> shape{static_cast<py::ssize_t>(count)};
  if (bytes < kLeastArenaBytes) {
    py::array array(dtype, shape);
    if (contents == Contents::kZero) std::memset(array.mutable_data(), 0, bytes);
    return array;
  }
  std::unique_ptr<ArenaBlock> block;
  {
    const py::gil_scoped_release unlocked;
    block = std::make_unique<ArenaBlock>(bytes, contents);
  }
  void* const data = block->data();
  const py::capsule owner(block.get(), [](void* owned) { delete static_cast<ArenaBlock*>(owned); });
  block.release();
  return py::array(dtype, shape, data, owner);
}

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
