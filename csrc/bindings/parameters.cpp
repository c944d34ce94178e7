#include <pybind11/stl.h>

#include "bindings/register.hpp"
#include "ckks/parameters.hpp"

namespace pppml::bindings {

namespace py = pybind11;
using ckks::KeyMode;
using ckks::Packing;
using ckks::Parameters;
using ckks::Rounding;
using ckks::WeightPolicy;

void register_parameters(py::module_& module) {
  py::enum_<KeyMode>(module, "KeyMode")
      .value("public", KeyMode::kPublic)
      .value("secret", KeyMode::kSecret)
      .value("collective", KeyMode::kCollective);
  py::enum_<WeightPolicy>(module, "WeightPolicy")
      .value("free", WeightPolicy::kFree)
      .value("public", WeightPolicy::kPublicWeights);

  py::enum_<Rounding>(module, "Rounding")
      .value("nearest", Rounding::kNearest)
      .value("stochastic", Rounding::kStochastic);

  py::enum_<Packing>(module, "Packing")
      .value("coefficients", Packing::kCoefficients)
      .value("slots", Packing::kSlots)
      .value("real_slots", Packing::kRealSlots);

  py::class_<Parameters>(module, "Parameters", "A checked parameter set and what follows from it.")
      .def(py::init([](std::uint64_t ring_dimension, std::vector<std::uint64_t> primes, std::uint64_t parties,
                       double clip, KeyMode keys, WeightPolicy weights, unsigned values_per_coefficient,
                       Rounding rounding, Packing packing, double slot_scale, bool insecure_for_comparison) {
             return Parameters({ring_dimension, std::move(primes), parties, clip, keys, weights, values_per_coefficient,
                                rounding, packing, slot_scale, insecure_for_comparison});
           }),
           py::kw_only(), py::arg("ring_dimension"), py::arg("primes"), py::arg("parties"), py::arg("clip"),
           py::arg("keys"), py::arg("weights"), py::arg("values_per_coefficient"),
           py::arg_v("rounding", Rounding::kNearest, "Rounding.nearest"),
           py::arg_v("packing", Packing::kCoefficients, "Packing.coefficients"), py::arg("slot_scale") = 0.0,
           py::arg("insecure_for_comparison") = false)
      .def_property_readonly("ring_dimension", &Parameters::ring_dimension)
      .def_property_readonly("primes", &Parameters::primes)
      .def_property_readonly("log2_modulus", &Parameters::log2_modulus)
      .def_property_readonly("level",
                             [](const Parameters& p) { return py::make_tuple(p.level().classical, p.level().quantum); })
      .def_property_readonly("delta", [](const Parameters& p) { return p.headroom().delta; })
      .def_property_readonly("noise_bound", [](const Parameters& p) { return p.headroom().noise_bound; })
      .def_property_readonly("max_magnitude", [](const Parameters& p) { return p.headroom().max_magnitude; })
      .def_property_readonly("sum_bound", [](const Parameters& p) { return p.headroom().sum_bound; })
      .def_property_readonly("base", [](const Parameters& p) { return p.headroom().base; })
      .def_property_readonly("step", &Parameters::step)
      .def_property_readonly("total_scale", &Parameters::total_scale)
      .def_property_readonly("max_error", &Parameters::max_error)
      .def_property_readonly("release_step", &Parameters::release_step)
      .def_property_readonly("approximate", &Parameters::approximate)
      .def_property_readonly("opening_primes", &Parameters::opening_primes)
      .def_property_readonly("exact_bits", &Parameters::exact_bits)
      .def_property_readonly("single_precision", &Parameters::single_precision)
      .def_property_readonly("noise_variance",
                             [](const Parameters& p) { return ckks::noise_variance(p.keys(), p.ring_dimension()); })
      .def_property_readonly("failure_log2", [](const Parameters& p) { return ckks::failure_log2(p.keys()); })
      .def_property_readonly("block_weights", &Parameters::block_weights)
      .def_property_readonly("block_integers", &Parameters::block_integers)
      .def("block_count", &Parameters::block_count, py::arg("length"))
      .def("integer_count", &Parameters::integer_count, py::arg("length"))
      .def("last_row_length", &Parameters::last_row_length, py::arg("length"));

  module.def("largest_modulus_bits", &ckks::largest_modulus_bits, py::arg("ring_dimension"));
  module.def(
      "security_level",
      [](std::uint64_t ring_dimension, double log2_modulus) {
        const auto level = ckks::security_level(ring_dimension, log2_modulus);
        return py::make_tuple(level.classical, level.quantum);
      },
      py::arg("ring_dimension"), py::arg("log2_modulus"));
}

}  // namespace pppml::bindings
