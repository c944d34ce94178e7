#include "ckks/levelled.hpp"

#include "bindings/arrays.hpp"
#include "bindings/register.hpp"

namespace pppml::bindings {
namespace {

using ckks::Levelled;
using ckks::Shape;
using Rows = py::array_t<std::uint64_t, py::array::c_style>;
using Reals = py::array_t<double, py::array::c_style>;

// (blocks, level, N) residues
Shape shape_of(const Levelled& levelled, const Rows& rows) {
  require(rows.ndim() == 3 && static_cast<std::size_t>(rows.shape(2)) == levelled.degree() && rows.shape(1) >= 1 &&
              static_cast<std::size_t>(rows.shape(1)) <= levelled.levels(),
          "residues come as an array (blocks, level, ", levelled.degree(), "), level 1 .. ", levelled.levels());
  return {static_cast<std::size_t>(rows.shape(0)), static_cast<std::size_t>(rows.shape(1))};
}

Rows new_rows(const Levelled& levelled, const Shape& shape) {
  return Rows({shape.blocks, shape.level, levelled.degree()});
}

using InPlace = void (Levelled::*)(const Shape&, std::uint64_t*) const;

template <InPlace kOperation>
Rows transform(const Levelled& levelled, const Rows& rows) {
  const Shape shape = shape_of(levelled, rows);
  Rows out = new_rows(levelled, shape);
  const std::uint64_t* from = rows.data();
  std::uint64_t* to = out.mutable_data();
  py::gil_scoped_release unlocked;
  std::copy(from, from + levelled.words(shape), to);
  (levelled.*kOperation)(shape, to);
  return out;
}

using Binary = void (Levelled::*)(const Shape&, const std::uint64_t*, const std::uint64_t*, std::uint64_t*) const;

template <Binary kOperation>
Rows combine(const Levelled& levelled, const Rows& a, const Rows& b) {
  const Shape shape = shape_of(levelled, a), other = shape_of(levelled, b);
  require(shape.blocks == other.blocks && shape.level == other.level, "operands of ", shape.blocks, " blocks at level ",
          shape.level, " and of ", other.blocks, " at level ", other.level);
  Rows out = new_rows(levelled, shape);
  const std::uint64_t *left = a.data(), *right = b.data();
  std::uint64_t* to = out.mutable_data();
  py::gil_scoped_release unlocked;
  (levelled.*kOperation)(shape, left, right, to);
  return out;
}

Rows multiply_integer(const Levelled& levelled, const Rows& a, std::int64_t factor) {
  const Shape shape = shape_of(levelled, a);
  Rows out = new_rows(levelled, shape);
  const std::uint64_t* from = a.data();
  std::uint64_t* to = out.mutable_data();
  py::gil_scoped_release unlocked;
  levelled.multiply_integer(shape, from, factor, to);
  return out;
}

Rows encode(const Levelled& levelled, const Reals& values, std::size_t level, bool factors, double scale) {
  const std::size_t width = factors ? levelled.slots() : levelled.block_weights();
  require(values.ndim() == 2 && static_cast<std::size_t>(values.shape(1)) == width, "values come as an array (blocks, ",
          width, ")");
  require(level >= 1 && level <= levelled.levels(), "level ", level, " is outside 1 .. ", levelled.levels());
  const Shape shape{static_cast<std::size_t>(values.shape(0)), level};
  Rows out = new_rows(levelled, shape);
  const double* from = values.data();
  std::uint64_t* to = out.mutable_data();
  py::gil_scoped_release unlocked;
  levelled.encode(shape, from, factors, scale, to);
  return out;
}

Rows rescale(const Levelled& levelled, const Rows& in) {
  const Shape shape = shape_of(levelled, in);
  Rows out = new_rows(levelled, {shape.blocks, shape.level - 1});
  const std::uint64_t* from = in.data();
  std::uint64_t* to = out.mutable_data();
  py::gil_scoped_release unlocked;
  levelled.rescale(shape, from, to);
  return out;
}

Reals decrypt(const Levelled& levelled, const ckks::SecretKey& secret, const Rows& c0, const Rows& c1, double scale) {
  const Shape shape = shape_of(levelled, c0), other = shape_of(levelled, c1);
  require(shape.blocks == other.blocks && shape.level == other.level, "c0 and c1 differ in shape");
  Reals out({shape.blocks, levelled.block_weights()});
  const std::uint64_t *first = c0.data(), *second = c1.data();
  double* to = out.mutable_data();
  py::gil_scoped_release unlocked;
  levelled.decrypt(shape, first, second, levelled.transformed(secret), scale, to);
  return out;
}

}  // namespace

void register_levelled(py::module_& module) {
  py::class_<Levelled>(module, "Levelled")
      .def(py::init<const ckks::Parameters&, const std::string&>(), py::arg("parameters"), py::arg("backend") = "")
      .def("forward", &transform<&Levelled::forward>, py::arg("rows"))
      .def("inverse", &transform<&Levelled::inverse>, py::arg("rows"))
      .def("add", &combine<&Levelled::add>, py::arg("a"), py::arg("b"))
      .def("subtract", &combine<&Levelled::subtract>, py::arg("a"), py::arg("b"))
      .def("multiply", &combine<&Levelled::multiply>, py::arg("a"), py::arg("b"))
      .def("multiply_integer", &multiply_integer, py::arg("a"), py::arg("factor"))
      .def("encode", &encode, py::arg("values"), py::arg("level"), py::arg("factors"), py::arg("scale"))
      .def("rescale", &rescale, py::arg("rows"))
      .def("decrypt", &decrypt, py::arg("secret"), py::arg("c0"), py::arg("c1"), py::arg("scale"));
}

}  // namespace pppml::bindings
