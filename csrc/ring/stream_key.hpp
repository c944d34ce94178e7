// A 32-byte key of a private random stream: drawn from the system, wiped at its end, useless after a fork.
#pragma once

#include <cstdint>

#include "base/key_buffer.hpp"
#include "kernels/contract.hpp"

namespace pppml::ring {

// Remembers which process made a secret. A fork copies the secret's memory; the copy must not be used.
class OwnerProcess {
 public:
  OwnerProcess();
  // Throws RequirementError in any other process.
  void check() const;
  bool here() const;

 private:
  std::int64_t id_;
};

class StreamKey {
 public:
  // From the system's generator; throws RequirementError when it fails.
  static StreamKey from_system();
  // From the caller's bytes: known answers and tests against the oracle, nothing else.
  static StreamKey from_bytes(const std::uint8_t* bytes);

  // The key bytes; throws RequirementError in a forked child, which must draw keys of its own.
  const std::uint8_t* data() const;

 private:
  StreamKey();

  KeyBuffer<std::uint8_t> bytes_;
  OwnerProcess owner_;
};

}  // namespace pppml::ring
