#include "kernels/registry.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "base/check.hpp"
#include "kernels/scalar/fused.hpp"
#if defined(PPPML_AVX2)
#include "kernels/avx2/table.hpp"
#endif
#if defined(PPPML_AVX512)
#include "kernels/avx512/table.hpp"
#endif

namespace pppml::kernels {
namespace {

struct Backend {
  const char* name;
  bool (*supported)();
  const KernelTable<std::uint32_t>& (*narrow)();
  const KernelTable<std::uint64_t>& (*wide)();
};

constexpr Backend kBackends[] = {
#if defined(PPPML_AVX512)
    {"avx512", avx512::supported, avx512::table<std::uint32_t>, avx512::table<std::uint64_t>},
#endif
#if defined(PPPML_AVX2)
    {"avx2", avx2::supported, avx2::table<std::uint32_t>, avx2::table<std::uint64_t>},
#endif
    {"scalar", [] { return true; }, scalar::table<std::uint32_t>, scalar::table<std::uint64_t>},
};

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

const Backend& find(const std::string& name) {
  for (const Backend& backend : kBackends) {
    if (name == backend.name) return backend;
  }
  throw RequirementError(concatenate("backend '", name, "' was not built; built here: ", joined(built_backends())));
}

}  // namespace

std::vector<std::string> built_backends() {
  std::vector<std::string> names;
  for (const Backend& backend : kBackends) names.emplace_back(backend.name);
  return names;
}

std::vector<std::string> supported_backends() {
  std::vector<std::string> names;
  for (const Backend& backend : kBackends) {
    if (backend.supported()) names.emplace_back(backend.name);
  }
  return names;
}

std::string choose_backend(const std::string& name) {
  std::string wanted = name;
  if (wanted.empty()) {
    const char* forced = std::getenv("PPPML_BACKEND");
    if (forced == nullptr || *forced == '\0') return supported_backends().front();
    wanted = forced;
  }
  const Backend& backend = find(wanted);
  require(backend.supported(), "backend '", wanted,
          "' needs instructions this processor lacks; usable here: ", joined(supported_backends()));
  return wanted;
}

template <>
const KernelTable<std::uint32_t>& kernels(const std::string& backend) {
  return find(backend).narrow();
}

template <>
const KernelTable<std::uint64_t>& kernels(const std::string& backend) {
  return find(backend).wide();
}

double residual_limit(double variance, std::size_t coefficients) {
  constexpr double kTail = 120;
  const double c = static_cast<double>(coefficients);
  return variance * std::max(2 * c, c + 2 * std::sqrt(c * kTail) + 2 * kTail);
}

}  // namespace pppml::kernels
