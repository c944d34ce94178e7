// The one place that knows which backends exist and which of them this machine can run.
#pragma once

#include <string>
#include <vector>

#include "kernels/contract.hpp"

namespace pppml::kernels {

// Names of all backends that were built, best first.
std::vector<std::string> built_backends();

// Of those, the ones that this processor can run, best first.
std::vector<std::string> supported_backends();

// The backend to use: `name`, or if empty the variable PPPML_BACKEND, or if unset the best supported one.
// An unknown or unsupported name raises RequirementError.
std::string choose_backend(const std::string& name);

// The table of a supported backend.
template <class Word>
const KernelTable<Word>& kernels(const std::string& backend);

}  // namespace pppml::kernels
