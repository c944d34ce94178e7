// Rows of residues between coefficient form and NTT form, in batches, with tables that are made once.
#include <pybind11/stl.h>

#include <algorithm>
#include <string>
#include <vector>

#include "bindings/arrays.hpp"
#include "bindings/register.hpp"
#include "kernels/registry.hpp"
#include "ring/ring.hpp"
#include "ring/transforms.hpp"

namespace pppml::bindings {
namespace {

using Residues = py::array_t<std::uint64_t, py::array::c_style>;

// The tables of a ring, of any primes, on one backend.
class Transform {
 public:
  Transform(std::size_t ring_dimension, const std::vector<std::uint64_t>& primes, const std::string& backend)
      : ring_(log2_of(ring_dimension), primes),
        kernels_(kernels::kernels<std::uint64_t>(kernels::choose_backend(backend))) {}

  // residues: (..., primes, N), row l below prime l. Returns an array of that shape.
  Residues apply(const Residues& residues, ring::Direction direction) const {
    const py::ssize_t axes = residues.ndim();
    require(axes >= 2 && static_cast<std::size_t>(residues.shape(axes - 1)) == ring_.degree() &&
                static_cast<std::size_t>(residues.shape(axes - 2)) == ring_.prime_count(),
            "residues must have the shape (..., ", ring_.prime_count(), ", ", ring_.degree(), ")");
    Residues out(std::vector<py::ssize_t>(residues.shape(), residues.shape() + axes));
    const std::uint64_t* from = residues.data();
    std::uint64_t* to = out.mutable_data();
    const std::size_t rows = static_cast<std::size_t>(residues.size()) / ring_.degree();
    const py::gil_scoped_release unlocked;
    for (std::size_t r = 0; r < rows; ++r) check_row(from + r * ring_.degree(), r % ring_.prime_count());
    std::copy_n(from, rows * ring_.degree(), to);
    ring::transform_rows(ring_, kernels_, direction, rows / ring_.prime_count(), ring_.prime_count(), to);
    return out;
  }

 private:
  static unsigned log2_of(std::size_t ring_dimension) {
    require(ring_dimension >= 16 && ring_dimension <= 65536 && (ring_dimension & (ring_dimension - 1)) == 0,
            "ring dimension ", ring_dimension, " is not a power of two within 16 .. 65536");
    unsigned log_degree = 0;
    while (std::size_t{1} << log_degree < ring_dimension) ++log_degree;
    return log_degree;
  }

  void check_row(const std::uint64_t* row, std::size_t l) const {
    const std::uint64_t largest = *std::max_element(row, row + ring_.degree()), q = ring_.table().primes[l].modulus;
    require(largest < q, "a residue ", largest, " is not below its prime ", q);
  }

  ring::Ring<std::uint64_t> ring_;
  const kernels::KernelTable<std::uint64_t>& kernels_;
};

}  // namespace

void register_transforms(py::module_& module) {
  py::class_<Transform>(module, "Transform")
      .def(py::init<std::size_t, const std::vector<std::uint64_t>&, const std::string&>(), py::arg("ring_dimension"),
           py::arg("primes"), py::arg("backend") = "")
      .def(
          "forward",
          [](const Transform& self, const Residues& residues) {
            return self.apply(residues, ring::Direction::kForward);
          },
          py::arg("residues"))
      .def(
          "inverse",
          [](const Transform& self, const Residues& residues) {
            return self.apply(residues, ring::Direction::kInverse);
          },
          py::arg("residues"));
}

}  // namespace pppml::bindings
