#include "bindings/arrays.hpp"

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

// Rows of a tensor in elements; row_length is 0 where it is no uniform sequence of contiguous rows.
struct RowShape {
  std::size_t row_length, row_stride;
};

RowShape rows_of(const py::array& array) {
  constexpr RowShape kNone{0, 0};
  const py::ssize_t item = array.itemsize();
  if (array.size() == 0) return {1, 1};
  py::ssize_t row = 1, rows = 1, stride = 0;
  for (py::ssize_t axis = array.ndim(); axis-- > 0;) {
    const py::ssize_t extent = array.shape(axis), step = array.strides(axis);
    if (extent == 1) continue;
    if (rows == 1 && step == row * item) {
      row *= extent;
      continue;
    }
    if (rows == 1) stride = step;
    if (step != rows * stride) return kNone;
    rows *= extent;
  }
  if (rows == 1) stride = row * item;
  // Short rows are read element by element: a copy is faster.
  constexpr py::ssize_t kShortestRow = 16;
  if (stride < 0 || stride % item != 0 || (rows > 1 && row < kShortestRow)) return kNone;
  return {static_cast<std::size_t>(row), static_cast<std::size_t>(stride / item)};
}

py::array untagged(const py::handle& item) {
  const bool tagged = py::isinstance<py::tuple>(item);
  return py::array::ensure(tagged ? item.cast<py::tuple>()[1] : py::reinterpret_borrow<py::object>(item));
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

bool reads_in_place(const py::array& array) {
  return rows_of(array).row_length > 0;
}

Tensors::Tensors(const py::list& arrays) {
  for (const py::handle& item : arrays) {
    py::array array = untagged(item);
    const RowShape rows = array ? rows_of(array) : RowShape{0, 0};
    require(rows.row_length > 0, "a tensor is no sequence of contiguous rows");
    const bool bits = py::isinstance<py::tuple>(item);
    const kernels::Dtype dtype = bits ? kernels::Dtype::kBfloat16 : dtype_of(array);
    const auto size = static_cast<std::size_t>(array.size());
    spans_.push_back({array.data(), size, dtype, rows.row_length, rows.row_stride});
    length_ += static_cast<std::uint64_t>(size);
    keep_alive_.push_back(std::move(array));
  }
}

}  // namespace pppml::bindings
