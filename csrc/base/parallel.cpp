#include "base/parallel.hpp"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <exception>
#include <system_error>
#include <thread>
#include <vector>

#include "base/check.hpp"

namespace pppml {
namespace {

constexpr unsigned kMostThreads = 1024;

unsigned initial_thread_count() {
  const char* wanted = std::getenv("OMP_NUM_THREADS");
  const long parsed = wanted == nullptr ? 0 : std::strtol(wanted, nullptr, 10);
  if (parsed >= 1) return static_cast<unsigned>(std::min<long>(parsed, kMostThreads));
  return std::clamp(std::thread::hardware_concurrency(), 1u, kMostThreads);
}

// Known before there are threads: a fork while one of them found it out would leave the child waiting for ever.
std::atomic<unsigned> threads{initial_thread_count()};

}  // namespace

unsigned thread_count() {
  return threads;
}

void set_thread_count(unsigned count) {
  require(count >= 1 && count <= kMostThreads, "thread count ", count, " is outside 1 .. ", kMostThreads);
  threads = count;
}

void parallel_for(std::size_t count, std::size_t grain, const std::function<void(std::size_t, std::size_t)>& body) {
  const std::size_t parts = std::clamp<std::size_t>(count / std::max<std::size_t>(grain, 1), 1, thread_count());
  const auto bound = [&](std::size_t part) { return count * part / parts; };
  std::vector<std::exception_ptr> failures(parts);
  const auto run = [&](std::size_t part) {
    try {
      body(bound(part), bound(part + 1));
    } catch (...) {
      failures[part] = std::current_exception();
    }
  };
  std::vector<std::thread> helpers;
  helpers.reserve(parts);
  std::size_t started = 1;
  try {
    for (; started < parts; ++started) helpers.emplace_back(run, started);
  } catch (const std::system_error&) {
    // The system has no thread to give: the parts without one are done here.
  }
  run(0);
  for (std::size_t part = started; part < parts; ++part) run(part);
  for (std::thread& helper : helpers) helper.join();
  for (const std::exception_ptr& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
}

}  // namespace pppml
