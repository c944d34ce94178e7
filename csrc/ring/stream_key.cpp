#include "ring/stream_key.hpp"

#include <sys/random.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/check.hpp"

namespace pppml::ring {

OwnerProcess::OwnerProcess() : id_(getpid()) {}

bool OwnerProcess::here() const {
  return id_ == getpid();
}

void OwnerProcess::check() const {
  require(here(), "a key made in process ", id_, " was used in its fork ", getpid(),
          ": both would draw the same randomness; make the key after the fork");
}

StreamKey::StreamKey() : bytes_(kernels::kStreamKeyBytes) {}

StreamKey StreamKey::from_system() {
  StreamKey key;
  std::size_t filled = 0;
  while (filled < key.bytes_.size()) {
    const ssize_t got = getrandom(key.bytes_.data() + filled, key.bytes_.size() - filled, 0);
    if (got < 0 && errno == EINTR) continue;
    require(got > 0, "the system gave no random bytes: ", std::strerror(errno));
    filled += static_cast<std::size_t>(got);
  }
  return key;
}

StreamKey StreamKey::from_bytes(const std::uint8_t* bytes) {
  StreamKey key;
  std::memcpy(key.bytes_.data(), bytes, key.bytes_.size());
  return key;
}

const std::uint8_t* StreamKey::data() const {
  owner_.check();
  return bytes_.data();
}

}  // namespace pppml::ring
