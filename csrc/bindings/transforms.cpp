// Rows of residues between coefficient form and NTT form, in batches, with tables that are made once.
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "base/parallel.hpp"
#include "bindings/arrays.hpp"
#include "bindings/register.hpp"
#include "kernels/registry.hpp"
#include "ring/ring.hpp"

namespace pppml::bindings {
namespace {

using Residues = py::array_t<std::uint64_t, py::array::c_style>;

// One prime per ring: so any number of them is served, and none must fit another.
class Transform {
 public:
  Transform(std::size_t ring_dimension, const std::vector<std::uint64_t>& primes, const std::string& backend)
      : kernels_(kernels::kernels<std::uint64_t>(kernels::choose_backend(backend))) {
    require(ring_dimension >= 16 && ring_dimension <= 65536 && (ring_dimension & (ring_dimension - 1)) == 0,
            "ring dimension ", ring_dimension, " is not a power of two within 16 .. 65536");
    require(!primes.empty(), "a transform needs at least one prime");
    unsigned log_degree = 0;
    while (std::size_t{1} << log_degree < ring_dimension) ++log_degree;
    for (std::uint64_t q : primes) {
      rings_.push_back(std::make_unique<ring::Ring<std::uint64_t>>(log_degree, std::vector<std::uint64_t>{q}));
    }
  }

  // residues: (..., primes, N), row l below prime l. Returns an array of that shape.
  Residues apply(const Residues& residues, bool inverse) const {
    const std::size_t degree = rings_[0]->degree();
    const py::ssize_t axes = residues.ndim();
    require(axes >= 2 && static_cast<std::size_t>(residues.shape(axes - 1)) == degree &&
                static_cast<std::size_t>(residues.shape(axes - 2)) == rings_.size(),
            "residues must have the shape (..., ", rings_.size(), ", ", degree, ")");
    Residues out(std::vector<py::ssize_t>(residues.shape(), residues.shape() + axes));
    const std::uint64_t* from = residues.data();
    std::uint64_t* to = out.mutable_data();
    const std::size_t rows = static_cast<std::size_t>(residues.size()) / degree;
    const py::gil_scoped_release unlocked;
    parallel_for(rows, 4, [&](std::size_t begin, std::size_t end) { transform_rows(begin, end, inverse, from, to); });
    return out;
  }

 private:
  // By way of a row that is wiped: secret keys come along here.
  void transform_rows(std::size_t begin, std::size_t end, bool inverse, const std::uint64_t* from,
                      std::uint64_t* to) const {
    const std::size_t degree = rings_[0]->degree();
    SecretBuffer<std::uint64_t> row(degree);
    for (std::size_t r = begin; r < end; ++r) {
      const kernels::RingTable<std::uint64_t>& table = rings_[r % rings_.size()]->table();
      std::copy_n(from + r * degree, degree, row.data());
      const std::uint64_t largest = *std::max_element(row.begin(), row.end());
      require(largest < table.primes[0].modulus, "a residue ", largest, " is not below its prime ",
              table.primes[0].modulus);
      (inverse ? kernels_.inverse_ntt : kernels_.forward_ntt)(table.primes[0], table.log_degree, row.data());
      std::copy_n(row.data(), degree, to + r * degree);
    }
  }

  const kernels::KernelTable<std::uint64_t>& kernels_;
  std::vector<std::unique_ptr<ring::Ring<std::uint64_t>>> rings_;
};

}  // namespace

void register_transforms(py::module_& module) {
  py::class_<Transform>(module, "Transform")
      .def(py::init<std::size_t, const std::vector<std::uint64_t>&, const std::string&>(), py::arg("ring_dimension"),
           py::arg("primes"), py::arg("backend") = "")
      .def(
          "forward", [](const Transform& self, const Residues& residues) { return self.apply(residues, false); },
          py::arg("residues"))
      .def(
          "inverse", [](const Transform& self, const Residues& residues) { return self.apply(residues, true); },
          py::arg("residues"));
}

}  // namespace pppml::bindings
