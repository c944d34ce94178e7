// NumPy arrays and Python bytes as the spans that the core works on.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/typing.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/arena.hpp"
#include "base/check.hpp"
#include "kernels/contract.hpp"

namespace pppml::bindings {

namespace py = pybind11;

using Integers = py::array_t<std::int64_t, py::array::c_style>;
// Arrays, and pairs that mark bits which NumPy has no dtype for: what `Tensors` takes.
using TensorObjects = py::typing::List<py::object>;

// Contiguous memory that a caller hands in. Its name in signatures has arrays too: NumPy declares the buffer protocol
// to type checkers from Python 3.12 on only.
class Memory : public py::buffer {
 public:
  PYBIND11_OBJECT_DEFAULT(Memory, py::buffer, PyObject_CheckBuffer)
};

// A 32-byte key or seed; `name` says which in the error.
inline const std::uint8_t* key_bytes(const py::bytes& bytes, const char* name) {
  char* data = nullptr;
  Py_ssize_t size = 0;
  if (PyBytes_AsStringAndSize(bytes.ptr(), &data, &size) != 0) throw py::error_already_set();
  require(size == static_cast<Py_ssize_t>(kernels::kStreamKeyBytes), name, " has ", size, " bytes; it takes 32");
  return reinterpret_cast<const std::uint8_t*>(data);
}

// One-dimensional contiguous residue words of the right width and number.
inline const void* words_in(const py::array& array, std::size_t word_bytes, std::size_t count, const char* name) {
  require(array.ndim() == 1 && array.dtype().kind() == 'u' &&
              static_cast<std::size_t>(array.itemsize()) == word_bytes && (array.flags() & py::array::c_style) != 0,
          name, " must be a contiguous one-dimensional uint", 8 * word_bytes, " array");
  require(static_cast<std::size_t>(array.size()) == count, name, " has ", array.size(), " words; expected ", count);
  return array.data();
}

inline void* words_out(py::array& array, std::size_t word_bytes, std::size_t count, const char* name) {
  words_in(array, word_bytes, count, name);
  require(array.writeable(), name, " is read-only");
  return array.mutable_data();
}

// A new one-dimensional array of plain numbers; a large one owns a block of the arena.
py::array new_array(const py::dtype& dtype, std::size_t count, Contents contents);

// Whether the core reads an array where it lies: a sequence of contiguous rows at equal distances, in C order.
bool reads_in_place(const py::array& array);

// The tensors of a list of float arrays that `reads_in_place`; a bfloat16 tensor comes as ("bfloat16", uint16 array).
class Tensors {
 public:
  explicit Tensors(const py::list& arrays);
  kernels::TensorList list() const { return {spans_.data(), spans_.size()}; }
  std::uint64_t length() const { return length_; }

 private:
  std::vector<py::array> keep_alive_;
  std::vector<kernels::TensorSpan> spans_;
  std::uint64_t length_ = 0;
};

}  // namespace pppml::bindings

namespace pybind11::detail {
template <>
struct handle_type_name<pppml::bindings::Memory> {
  static constexpr auto name =
      const_name("typing_extensions.Buffer | numpy.ndarray[typing.Any, numpy.dtype[typing.Any]]");
};
}  // namespace pybind11::detail
