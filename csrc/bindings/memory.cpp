// Arrays in the arena, and the plain loops that benchmarks hold operations against.
#include <pybind11/stl.h>

#include "base/arena.hpp"
#include "base/yardsticks.hpp"
#include "bindings/arrays.hpp"
#include "bindings/register.hpp"

namespace pppml::bindings {
namespace {

using Words32 = py::array_t<std::uint32_t, py::array::c_style>;

py::array new_numbers(const std::string& dtype, std::size_t count, Contents contents) {
  const py::dtype type(dtype);
  require(std::string("iuf").find(type.kind()) != std::string::npos, "dtype ", dtype, " is no plain number");
  return new_array(type, count, contents);
}

py::typing::Dict<py::str, py::int_> statistics() {
  const ArenaStatistics now = arena_statistics();
  py::typing::Dict<py::str, py::int_> result;
  result["used_blocks"] = now.used_blocks;
  result["used_bytes"] = now.used_bytes;
  result["kept_blocks"] = now.kept_blocks;
  result["kept_bytes"] = now.kept_bytes;
  result["limit"] = now.limit;
  result["mapped"] = now.mapped;
  result["reused"] = now.reused;
  return result;
}

std::uint32_t* loop_out(py::array& out, std::size_t length) {
  return static_cast<std::uint32_t*>(words_out(out, sizeof(std::uint32_t), length, "out"));
}

void add_words(const std::vector<Words32>& inputs, py::array out) {
  require(!inputs.empty(), "nothing to add: give at least one array");
  const auto length = static_cast<std::size_t>(inputs[0].size());
  std::vector<const std::uint32_t*> pointers;
  for (const Words32& input : inputs) {
    pointers.push_back(static_cast<const std::uint32_t*>(words_in(input, sizeof(std::uint32_t), length, "input")));
  }
  std::uint32_t* const target = loop_out(out, length);
  const py::gil_scoped_release unlocked;
  add_loop(pointers.data(), pointers.size(), length, target);
}

void copy_words(const Words32& input, py::array out) {
  const auto length = static_cast<std::size_t>(input.size());
  const std::uint32_t* const source = input.data();
  std::uint32_t* const target = loop_out(out, length);
  const py::gil_scoped_release unlocked;
  copy_loop(source, length, target);
}

}  // namespace

void register_memory(py::module_& module) {
  module.def(
      "empty", [](const std::string& dtype, std::size_t count) { return new_numbers(dtype, count, Contents::kAny); },
      py::arg("dtype"), py::arg("count"));
  module.def(
      "zeros", [](const std::string& dtype, std::size_t count) { return new_numbers(dtype, count, Contents::kZero); },
      py::arg("dtype"), py::arg("count"));
  module.def("release_memory", &release_arena);
  module.def("set_memory_limit", &set_arena_limit, py::arg("bytes"));
  module.def("arena_statistics", &statistics);
  module.def("arena_capacity", &arena_capacity, py::arg("bytes"));

  auto primitives = module.attr("primitives").cast<py::module_>();
  primitives.def("add_loop", &add_words, py::arg("inputs"), py::arg("out"));
  primitives.def("copy_loop", &copy_words, py::arg("input"), py::arg("out"));
}

}  // namespace pppml::bindings
