#include <atomic>
#include <cstdio>
#include <exception>
#include <vector>

#include "tests/check.hpp"

namespace pppml::tests {
namespace {

struct Entry {
  const char* name;
  void (*body)();
};

std::vector<Entry>& entries() {
  static std::vector<Entry> all;
  return all;
}

std::atomic<int> failures{0};

bool wanted(const Entry& entry, int count, char** names) {
  bool any = count == 0;
  for (int i = 0; i < count; ++i) any |= entry.name == std::string(names[i]);
  return any;
}

}  // namespace

Case::Case(const char* name, void (*body)()) {
  entries().push_back({name, body});
}

void fail(const char* file, int line, const std::string& text) {
  ++failures;
  std::fprintf(stderr, "%s:%d: %s\n", file, line, text.c_str());
}

}  // namespace pppml::tests

int main(int count, char** arguments) {
  using namespace pppml::tests;
  int run = 0;
  for (const Entry& entry : entries()) {
    if (!wanted(entry, count - 1, arguments + 1)) continue;
    ++run;
    try {
      entry.body();
    } catch (const std::exception& error) {
      fail(entry.name, 0, error.what());
    }
  }
  std::printf("%d cases, %d failures\n", run, failures.load());
  // A name that no case has is a mistake, not a success.
  return failures == 0 && run > 0 && (count == 1 || run == count - 1) ? 0 : 1;
}
