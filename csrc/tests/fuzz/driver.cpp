// Where there is no libFuzzer: a deterministic mutation driver that takes the same options and links the same targets.
//
//   TARGET -runs=N -seed=S [-max_len=B] [-timeout=SECONDS] [-artifact_prefix=PATH] CORPUS_FOLDER
//   TARGET FILE        one input: how a finding is reproduced
//
// Inputs are changes of earlier ones, which are the corpus and, as nothing measures coverage here, a sample of what was
// made since. The same seed gives the same inputs. A finding (sanitizer, abort, hang) saves the input it came from.
#include <algorithm>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
extern "C" void __sanitizer_set_death_callback(void (*callback)());
// An abort is reported like a fault, and an allocation no small input can justify is a finding. The sanitizer's library
// looks the function up, so that it must be visible.
extern "C" __attribute__((visibility("default"))) const char* __asan_default_options() {
  return "handle_abort=1:allocator_may_return_null=0:max_allocation_size_mb=256";
}

namespace {

using Bytes = std::vector<std::uint8_t>;

struct Options {
  std::uint64_t runs = 0, seed = 1, max_len = 4096, timeout = 10;
  std::string artifact_prefix, path;
};

const Bytes* current = nullptr;
std::string finding_path;

void save_finding() {
  if (current == nullptr || finding_path.empty()) return;
  const int file = open(finding_path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
  if (file < 0) return;
  const bool written = write(file, current->data(), current->size()) == static_cast<ssize_t>(current->size());
  close(file);
  std::fprintf(stderr, "%s %s\n", written ? "Test unit written to" : "cannot write", finding_path.c_str());
}

void on_alarm(int) {
  std::fprintf(stderr, "FINDING: an input takes longer than its limit\n");
  save_finding();
  _exit(70);
}

bool option(const char* argument, const char* name, std::string* value) {
  const std::size_t length = std::strlen(name);
  if (std::strncmp(argument, name, length) != 0 || argument[length] != '=') return false;
  *value = argument + length + 1;
  return true;
}

Options parse(int count, char** arguments) {
  Options options;
  std::string value;
  for (int i = 1; i < count; ++i) {
    if (option(arguments[i], "-runs", &value)) {
      options.runs = std::stoull(value);
    } else if (option(arguments[i], "-seed", &value)) {
      options.seed = std::stoull(value);
    } else if (option(arguments[i], "-max_len", &value)) {
      options.max_len = std::stoull(value);
    } else if (option(arguments[i], "-timeout", &value)) {
      options.timeout = std::stoull(value);
    } else if (option(arguments[i], "-artifact_prefix", &value)) {
      options.artifact_prefix = value;
    } else if (arguments[i][0] != '-') {
      options.path = arguments[i];
    }
  }
  return options;
}

Bytes read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

class Mutator {
 public:
  Mutator(std::uint64_t seed, std::size_t max_len) : random_(seed), max_len_(max_len) {}

  std::uint64_t below(std::uint64_t bound) { return random_() % bound; }  // the bias is of no matter here

  Bytes mutate(const std::vector<Bytes>& pool) {
    Bytes input = pool[below(pool.size())];
    const std::uint64_t edits = 1 + below(6);
    for (std::uint64_t i = 0; i < edits; ++i) edit(input, pool);
    if (input.size() > max_len_) input.resize(max_len_);
    return input;
  }

 private:
  void edit(Bytes& input, const std::vector<Bytes>& pool) {
    const std::uint64_t kind = below(8);
    if (input.empty() || kind == 0) return insert(input);
    const std::size_t at = below(input.size());
    if (kind == 1) {
      input[at] ^= static_cast<std::uint8_t>(1u << below(8));
    } else if (kind == 2) {
      input[at] = static_cast<std::uint8_t>(below(256));
    } else if (kind == 3) {
      for (std::size_t i = at, end = std::min(input.size(), at + 1 + below(8)); i < end; ++i) {
        input[i] = below(2) != 0 ? 0xFF : 0x00;
      }
    } else if (kind == 4) {
      input.erase(input.begin() + static_cast<std::ptrdiff_t>(at),
                  input.begin() + static_cast<std::ptrdiff_t>(std::min(input.size(), at + 1 + below(16))));
    } else if (kind == 5) {
      input.resize(at);
    } else if (kind == 6) {
      input[at] = static_cast<std::uint8_t>(input[at] + below(35) - 17);
    } else {
      splice(input, at, pool[below(pool.size())]);
    }
  }

  void insert(Bytes& input) {
    Bytes extra(1 + below(32));
    const bool random = below(2) != 0;
    for (std::uint8_t& byte : extra) byte = random ? static_cast<std::uint8_t>(below(256)) : 0;
    const auto at = static_cast<std::ptrdiff_t>(below(input.size() + 1));
    input.insert(input.begin() + at, extra.begin(), extra.end());
  }

  void splice(Bytes& input, std::size_t at, const Bytes& other) {
    if (other.empty()) return;
    const std::size_t from = below(other.size());
    input.resize(at);
    input.insert(input.end(), other.begin() + static_cast<std::ptrdiff_t>(from), other.end());
  }

  std::mt19937_64 random_;
  std::size_t max_len_;
};

void run(const Bytes& input, std::uint64_t timeout) {
  // A copy of its exact size, so that reading past it is seen.
  const Bytes exact(input.begin(), input.end());
  current = &input;
  alarm(static_cast<unsigned>(timeout));
  LLVMFuzzerTestOneInput(exact.data(), exact.size());
  alarm(0);
  current = nullptr;
}

}  // namespace

int main(int count, char** arguments) {
  const Options options = parse(count, arguments);
  std::signal(SIGALRM, on_alarm);
  if (!options.path.empty() && !std::filesystem::is_directory(options.path)) {
    run(read(options.path), options.timeout);
    std::printf("%s: no finding\n", options.path.c_str());
    return 0;
  }
  finding_path = options.artifact_prefix + "crash-" + std::to_string(options.seed);
  __sanitizer_set_death_callback(save_finding);
  std::vector<Bytes> pool{{}};
  if (!options.path.empty()) {
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::directory_iterator(options.path)) files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    for (const auto& file : files) pool.push_back(read(file));
  }
  const std::size_t corpus = pool.size();
  constexpr std::size_t kSampled = 256;
  Mutator mutator(options.seed, options.max_len);
  for (std::uint64_t done = 0; done < options.runs; ++done) {
    if (done < corpus) {
      run(pool[done], options.timeout);
      continue;
    }
    const Bytes input = mutator.mutate(pool);
    run(input, options.timeout);
    if (pool.size() < corpus + kSampled) {
      pool.push_back(input);
    } else if (mutator.below(64) == 0) {
      pool[corpus + mutator.below(kSampled)] = input;
    }
  }
  std::printf("stat::number_of_executed_units: %llu\n", static_cast<unsigned long long>(options.runs));
  return 0;
}
