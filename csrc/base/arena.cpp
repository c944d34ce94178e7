#include "base/arena.hpp"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <new>
#include <vector>

namespace pppml {
namespace {

constexpr std::size_t kDefaultLimit = std::size_t{1} << 30;
constexpr std::size_t kLargestCapacity = std::size_t{1} << 46;  // half of what an x86-64 process can address

struct Region {
  void* data;
  std::size_t capacity;
};

std::size_t default_limit() {
  const long pages = sysconf(_SC_PHYS_PAGES);
  const long page_bytes = sysconf(_SC_PAGESIZE);
  if (pages <= 0 || page_bytes <= 0) return kDefaultLimit;
  return std::min(kDefaultLimit, static_cast<std::size_t>(pages) / 4 * static_cast<std::size_t>(page_bytes));
}

// A private zeroed mapping at a huge page's alignment, or null.
void* map_aligned(std::size_t capacity) {
  const std::size_t length = capacity + kHugePageBytes;
  void* const mapped = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  auto* const first = static_cast<std::byte*>(mapped);
  const std::size_t excess = reinterpret_cast<std::uintptr_t>(mapped) % kHugePageBytes;
  const std::size_t before = excess == 0 ? 0 : kHugePageBytes - excess;
  std::byte* const data = first + before;
  if (before != 0) munmap(first, before);
  munmap(data + capacity, kHugePageBytes - before);
#if defined(MADV_HUGEPAGE)
  madvise(data, capacity, MADV_HUGEPAGE);  // a wish: without huge pages the block is as good as any memory
#endif
  return data;
}

class Arena {
 public:
  static Arena& instance() {
    // Never destroyed: arrays may outlive every static object.
    static Arena* const arena = new Arena();
    return *arena;
  }

  // `fresh` tells whether the memory is zero.
  Region take(std::size_t capacity, bool& fresh) {
    const std::lock_guard<std::mutex> lock(mutex_);
    // The last one given back is the likeliest to be in a cache.
    const auto found =
        std::find_if(kept_.rbegin(), kept_.rend(), [&](const Region& region) { return region.capacity == capacity; });
    fresh = found == kept_.rend();
    Region region{nullptr, capacity};
    if (fresh) {
      region.data = map_aligned(capacity);
      if (region.data == nullptr) {
        release();
        region.data = map_aligned(capacity);
      }
      if (region.data == nullptr) throw std::bad_alloc();
      ++statistics_.mapped;
    } else {
      region = *found;
      kept_.erase(std::next(found).base());
      statistics_.kept_bytes -= capacity;
      ++statistics_.reused;
    }
    ++statistics_.used_blocks;
    statistics_.used_bytes += capacity;
    return region;
  }

  void give(const Region& region) noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    --statistics_.used_blocks;
    statistics_.used_bytes -= region.capacity;
    if (region.capacity > statistics_.limit) {
      munmap(region.data, region.capacity);
      return;
    }
    shrink(statistics_.limit - region.capacity);
    try {
      kept_.push_back(region);
    } catch (const std::bad_alloc&) {
      munmap(region.data, region.capacity);
      return;
    }
    statistics_.kept_bytes += region.capacity;
  }

  ArenaStatistics statistics() {
    const std::lock_guard<std::mutex> lock(mutex_);
    ArenaStatistics result = statistics_;
    result.kept_blocks = kept_.size();
    return result;
  }

  void set_limit(std::size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    statistics_.limit = bytes;
    shrink(bytes);
  }

  std::size_t release_all() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return release();
  }

 private:
  Arena() {
    statistics_.limit = default_limit();
    // A fork finds the mutex free and the list whole, whatever other threads were at.
    pthread_atfork([] { instance().mutex_.lock(); }, [] { instance().mutex_.unlock(); },
                   [] {
                     instance().release();
                     instance().mutex_.unlock();
                   });
  }

  std::size_t release() noexcept {
    const std::size_t released = statistics_.kept_bytes;
    shrink(0);
    return released;
  }

  // Gives back the blocks that lay unused the longest until at most `bytes` are kept.
  void shrink(std::size_t bytes) noexcept {
    auto end = kept_.begin();
    for (; statistics_.kept_bytes > bytes; ++end) {
      munmap(end->data, end->capacity);
      statistics_.kept_bytes -= end->capacity;
    }
    kept_.erase(kept_.begin(), end);
  }

  std::mutex mutex_;
  std::vector<Region> kept_;  // in the order they were given back
  ArenaStatistics statistics_;
};

// Made while the library is loaded: a fork during its making by another thread would leave the child waiting for ever.
[[maybe_unused]] const Arena& kMade = Arena::instance();

}  // namespace

std::size_t arena_capacity(std::size_t bytes) {
  if (bytes > kLargestCapacity) throw std::bad_alloc();
  std::size_t power = kHugePageBytes;
  while (power <= bytes / 2) power *= 2;
  const std::size_t step = std::max(kHugePageBytes, power / 8);
  return std::max<std::size_t>((bytes + step - 1) / step, 1) * step;
}

ArenaBlock::ArenaBlock(std::size_t bytes, Contents contents) {
  bool fresh = false;
  const Region region = Arena::instance().take(arena_capacity(bytes), fresh);
  data_ = region.data;
  capacity_ = region.capacity;
  if (contents == Contents::kZero && !fresh) std::memset(data_, 0, bytes);
}

ArenaBlock::~ArenaBlock() {
  Arena::instance().give({data_, capacity_});
}

ArenaStatistics arena_statistics() {
  return Arena::instance().statistics();
}

void set_arena_limit(std::size_t bytes) {
  Arena::instance().set_limit(bytes);
}

std::size_t release_arena() {
  return Arena::instance().release_all();
}

}  // namespace pppml
