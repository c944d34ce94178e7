// Always-on requirements, cheap enough (O(1) per call) for release builds.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace pppml {

// A caller handed in something that cannot be used; the text names value, limit and remedy.
class RequirementError : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

// A tensor holds NaN or Inf. `index` counts in the flat vector of all tensors.
class NonFiniteError : public RequirementError {
 public:
  NonFiniteError(const std::string& text, std::size_t index) : RequirementError(text), index_(index) {}
  std::size_t index() const { return index_; }

 private:
  std::size_t index_;
};

template <class... Parts>
std::string concatenate(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return text.str();
}

template <class... Parts>
void require(bool condition, const Parts&... parts) {
  if (!condition) throw RequirementError(concatenate(parts...));
}

}  // namespace pppml
