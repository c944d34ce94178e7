#include "ckks/pad_store.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>

#include "base/check.hpp"

namespace pppml::ckks {
namespace {

// Enough for several threads; a fraction of a millisecond, which is what an encryption may have to wait.
constexpr std::uint64_t kChunkBlocks = 64;

constexpr std::chrono::microseconds kPollInterval{50};

}  // namespace

PadStore::PadStore(const Scheme& scheme, const SecretKey& secret, const ring::StreamKey& noise,
                   const std::uint8_t* public_seed, const Range& range)
    : scheme_(scheme),
      secret_(secret),
      noise_(noise),
      range_(range),
      memory_(scheme.words({range.length, true}, 0, range.stop) * scheme.word_bytes()) {
  require(range.start == 0, "pads are stored from block 0 on, not ", range.start);
  std::memcpy(public_seed_, public_seed, sizeof public_seed_);
}

PadStore::~PadStore() {
  wipe();
}

std::size_t PadStore::bytes_before(std::uint64_t block) const {
  return scheme_.words({range_.length, true}, 0, block) * scheme_.word_bytes();
}

void PadStore::fill() {
  owner_.check();
  require(!filling_.exchange(true), "this store is being filled already");
  // Also when memory runs out within: whoever stops the store waits for this.
  struct Done {
    std::atomic<bool>& flag;
    ~Done() { flag = false; }
  } const done{filling_};
  // `filling_` was set before `stopped_` is read, and stop() does it the other way round: one of the two notices.
  for (std::uint64_t start = ready_; start < range_.stop && !stopped_;) {
    const std::uint64_t stop = std::min(start + kChunkBlocks, range_.stop);
    begun_ = stop;
    scheme_.make_pads(secret_, noise_, public_seed_, {range_.length, start, stop},
                      static_cast<std::uint8_t*>(memory_.data()) + bytes_before(start));
    ready_.store(stop, std::memory_order_release);
    start = stop;
  }
}

std::uint64_t PadStore::halt() {
  if (owner_.here()) stopped_ = true;
  return ready();
}

void PadStore::stop() {
  if (!owner_.here()) return;
  stopped_ = true;
  // A lock would be copied, locked, by a fork in between.
  while (filling_) std::this_thread::sleep_for(kPollInterval);
}

void PadStore::wipe(std::uint64_t first) {
  stop();
  if (!owner_.here()) return;
  ready_ = 0;
  if (const std::uint64_t begun = begun_.exchange(0); begun > 0) {
    memory_.wipe(bytes_before(std::min(first, begun)), bytes_before(begun));
  }
}

}  // namespace pppml::ckks
