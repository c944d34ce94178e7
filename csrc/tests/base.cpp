// Threads, the arena and pages for secrets, used from many threads at once.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <fstream>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "base/arena.hpp"
#include "base/key_buffer.hpp"
#include "base/parallel.hpp"
#include "base/secret_memory.hpp"
#include "base/yardsticks.hpp"
#include "tests/check.hpp"

using namespace pppml;

namespace {

constexpr unsigned kThreads = 4;

// body(i) on so many threads at once.
template <class Body>
void at_once(unsigned count, Body body) {
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < count; ++i) threads.emplace_back([&body, i] { body(i); });
  for (std::thread& thread : threads) thread.join();
}

// The kernel's flags of the mapping that holds an address, such as " rd wr dd wf lo ".
std::string mapping_flags(const void* address) {
  const auto wanted = reinterpret_cast<std::uintptr_t>(address);
  std::ifstream maps("/proc/self/smaps");
  bool inside = false;
  for (std::string line; std::getline(maps, line);) {
    unsigned long long from = 0, to = 0;
    if (std::sscanf(line.c_str(), "%llx-%llx ", &from, &to) == 2) inside = from <= wanted && wanted < to;
    if (inside && line.rfind("VmFlags:", 0) == 0) return line.substr(8) + " ";
  }
  return "";
}

}  // namespace

TEST(parallel_for_covers_every_index_once) {
  for (unsigned threads : {1u, 2u, 3u, 8u}) {
    set_thread_count(threads);
    for (std::size_t count : {0u, 1u, 2u, 15u, 16u, 17u, 1000u}) {
      for (std::size_t grain : {0u, 1u, 16u, 5000u}) {
        std::vector<int> seen(count);  // parts that overlapped would race here
        parallel_for(count, grain, [&](std::size_t begin, std::size_t end) {
          CHECK(begin <= end && end <= count);
          for (std::size_t i = begin; i < end; ++i) ++seen[i];
        });
        CHECK(std::count(seen.begin(), seen.end(), 1) == static_cast<std::ptrdiff_t>(count));
      }
    }
  }
}

TEST(the_first_exception_comes_back_when_every_part_has_ended) {
  set_thread_count(kThreads);
  std::atomic<int> ended{0};
  bool caught = false;
  try {
    parallel_for(kThreads, 1, [&](std::size_t begin, std::size_t) {
      ++ended;
      if (begin > 0) throw std::out_of_range(std::to_string(begin));
    });
  } catch (const std::out_of_range& error) {
    caught = true;
    CHECK_EQUAL(std::string(error.what()), "1");
  }
  CHECK(caught);
  CHECK_EQUAL(ended.load(), static_cast<int>(kThreads));
}

TEST(the_number_of_threads_changes_while_others_run) {
  std::atomic<bool> done{false};
  std::thread changer([&] {
    for (unsigned i = 0; !done; ++i) set_thread_count(1 + i % kThreads);
  });
  std::vector<std::uint32_t> in(std::size_t{1} << 18, 5), out(in.size());
  const std::uint32_t* const inputs[] = {in.data(), in.data(), in.data()};
  for (int repeat = 0; repeat < 20; ++repeat) {
    add_loop(inputs, 3, in.size(), out.data());
    CHECK(std::all_of(out.begin(), out.end(), [](std::uint32_t x) { return x == 15; }));
    CHECK(thread_count() >= 1 && thread_count() <= kThreads);
  }
  done = true;
  changer.join();
  CHECK_REFUSES(set_thread_count(0));
  CHECK_REFUSES(set_thread_count(1025));
}

TEST(arena_blocks_belong_to_one_thread_at_a_time) {
  const ArenaStatistics before = arena_statistics();
  at_once(kThreads, [](unsigned thread) {
    for (unsigned i = 0; i < 24; ++i) {
      const std::size_t bytes = (1 + i % 3) * kHugePageBytes;
      const ArenaBlock block(bytes, i % 2 == 0 ? Contents::kZero : Contents::kAny);
      auto* const words = static_cast<std::uint32_t*>(block.data());
      CHECK(reinterpret_cast<std::uintptr_t>(words) % kHugePageBytes == 0);
      for (std::size_t k = 0; k < bytes / 4; k += 1024) {
        CHECK(i % 2 == 1 || words[k] == 0);
        words[k] = 1000 * thread + i;  // another owner would race here
      }
      for (std::size_t k = 0; k < bytes / 4; k += 1024) CHECK_EQUAL(words[k], 1000 * thread + i);
    }
  });
  const ArenaStatistics after = arena_statistics();
  CHECK_EQUAL(after.used_blocks, before.used_blocks);
  CHECK_EQUAL(after.mapped + after.reused - before.mapped - before.reused, std::uint64_t{24 * kThreads});
  CHECK(after.kept_bytes <= after.limit);
}

TEST(arena_limits_hold_while_others_take_and_give) {
  const std::size_t limit = arena_statistics().limit;
  std::atomic<bool> done{false};
  std::thread tuner([&] {
    for (unsigned i = 0; !done; ++i) {
      set_arena_limit(i % 3 * kHugePageBytes);
      if (i % 5 == 0) release_arena();
      const ArenaStatistics now = arena_statistics();
      CHECK(now.kept_bytes <= now.limit);
    }
  });
  at_once(2, [](unsigned) {
    for (int i = 0; i < 64; ++i) {
      const ArenaBlock first(kHugePageBytes, Contents::kAny), second(2 * kHugePageBytes, Contents::kAny);
      std::memset(first.data(), i, 4096);
      std::memset(second.data(), i, 4096);
    }
  });
  done = true;
  tuner.join();
  release_arena();
  CHECK_EQUAL(arena_statistics().kept_bytes, std::size_t{0});
  set_arena_limit(limit);
}

TEST(a_fork_finds_the_arena_whole_whatever_other_threads_do) {
  std::atomic<bool> done{false};
  std::thread user([&] {
    while (!done) const ArenaBlock block(kHugePageBytes, Contents::kAny);
  });
  for (int i = 0; i < 8; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      const bool empty = arena_statistics().kept_bytes == 0;
      const ArenaBlock block(kHugePageBytes, Contents::kZero);
      _exit(empty && *static_cast<char*>(block.data()) == 0 ? 0 : 1);
    }
    int status = -1;
    CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
  }
  done = true;
  user.join();
}

TEST(pages_for_secrets_are_zero_at_birth_after_a_wipe_and_in_a_fork) {
  constexpr std::size_t kBytes = 3 * 4096;
  SecretMemory memory(kBytes);
  auto* const bytes = static_cast<unsigned char*>(memory.data());
  const auto zero = [&] { return std::all_of(bytes, bytes + kBytes, [](unsigned char b) { return b == 0; }); };
  CHECK(zero());
  std::memset(bytes, 0xa5, kBytes);
  const pid_t child = fork();
  if (child == 0) _exit(zero() ? 0 : 1);
  int status = -1;
  CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
  memory.wipe(0, kBytes);
  CHECK(zero());
  const SecretMemory none(0);
  CHECK(none.data() == nullptr && none.size() == 0);
}

TEST(pages_of_keys_are_in_no_core_dump_and_no_swap_and_zero_in_a_fork) {
  KeyBuffer<std::uint32_t> key(1000), other(10);
  std::fill(key.begin(), key.end(), 7u);
  const std::string flags = mapping_flags(key.data());
  CHECK(flags.find(" dd ") != std::string::npos && flags.find(" wf ") != std::string::npos);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // which make nothing of mlock
  rlimit limit{};
  getrlimit(RLIMIT_MEMLOCK, &limit);
  CHECK(limit.rlim_cur < 1 << 20 || flags.find(" lo ") != std::string::npos);
#endif
  const std::uint32_t* const place = key.data();
  other = std::move(key);
  CHECK(other.data() == place && other.size() == 1000 && other[999] == 7u);
  CHECK(key.data() == nullptr && key.size() == 0);
}
