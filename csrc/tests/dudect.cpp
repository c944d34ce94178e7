// Whether the time of an operation tells its secrets, by measurement [Reparaz, Balasch and Verbauwhede 2017, "Dude, is
// my code constant time?"]: two classes of inputs, one fixed and one random, in random order; Welch's t over their
// cycle counts, also with the slowest measurements cut off, where interrupts and neighbours are.
//
//   dudect [BACKEND ...]    measures on the backends named, or on all that this processor runs
//
// |t| below 4.5 shows nothing, above 10 a difference that more measurements would only confirm; between them, run it
// again. It proves no absence of leaks. Exits with an error only if a function that leaks on purpose is not found out.
#include <x86intrin.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "base/modular.hpp"
#include "kernels/gaussian_tables.hpp"
#include "kernels/registry.hpp"
#include "ring/ring.hpp"

using namespace pppml;

namespace {

constexpr double kSuspicious = 4.5, kLeak = 10;
constexpr std::size_t kMeasurements = 20000;
constexpr std::size_t kPool = 32;  // inputs per class, prepared in advance
constexpr double kCrops[] = {1.0, 0.999, 0.99, 0.95, 0.9, 0.75, 0.5};

std::mt19937_64 generator(1);

struct Measurement {
  std::uint64_t cycles;
  bool random;
};

// Welch's t between the classes, over measurements below `limit`.
double welch(const std::vector<Measurement>& all, double limit) {
  double count[2] = {}, mean[2] = {}, squares[2] = {};
  for (const Measurement& one : all) {
    const auto x = static_cast<double>(one.cycles);
    if (x > limit) continue;
    const double delta = x - mean[one.random];
    mean[one.random] += delta / ++count[one.random];
    squares[one.random] += delta * (x - mean[one.random]);
  }
  if (count[0] < 100 || count[1] < 100) return 0;
  const double variance = squares[0] / (count[0] - 1) / count[0] + squares[1] / (count[1] - 1) / count[1];
  // Equal times in every measurement are no difference.
  if (variance == 0) return mean[0] == mean[1] ? 0 : std::numeric_limits<double>::infinity();
  return (mean[0] - mean[1]) / std::sqrt(variance);
}

// prepare(random, i) puts input i of a class where `run` finds it, always in the same place.
double measure(const std::string& name, const std::function<void(bool, std::size_t)>& prepare,
               const std::function<void()>& run) {
  std::vector<Measurement> all(kMeasurements);
  for (Measurement& one : all) {
    one.random = generator() & 1;
    prepare(one.random, generator() % kPool);
    unsigned processor;
    _mm_lfence();
    const std::uint64_t start = __rdtsc();
    _mm_lfence();
    run();
    one.cycles = __rdtscp(&processor) - start;
    _mm_lfence();
  }
  std::vector<std::uint64_t> sorted;
  for (const Measurement& one : all) sorted.push_back(one.cycles);
  std::sort(sorted.begin(), sorted.end());
  double worst = 0, worst_crop = 1;
  for (const double crop : kCrops) {
    const auto last = static_cast<std::size_t>(crop * static_cast<double>(sorted.size() - 1));
    const double t = welch(all, static_cast<double>(sorted[last]));
    if (std::fabs(t) > std::fabs(worst)) worst = t, worst_crop = crop;
  }
  const char* const verdict = std::fabs(worst) > kLeak         ? "a difference"
                              : std::fabs(worst) > kSuspicious ? "again"
                                                               : "none seen";
  std::printf("%-34s %10llu %9.1f %8.1f%%   %s\n", name.c_str(),
              static_cast<unsigned long long>(sorted[sorted.size() / 2]), worst, 100 * worst_crop, verdict);
  std::fflush(stdout);
  return std::fabs(worst);
}

float random_weight() {
  return std::normal_distribution<float>(0, 0.3f)(generator);
}

template <class T>
using Pool = std::vector<std::vector<T>>;

// kPool inputs for each class; the fixed class holds one input kPool times, so that both are read from as much memory.
template <class T, class Make>
std::vector<Pool<T>> pools(const std::vector<T>& fixed, Make make) {
  std::vector<Pool<T>> both(2);
  for (std::size_t i = 0; i < kPool; ++i) {
    both[0].push_back(fixed);
    both[1].push_back(make());
  }
  return both;
}

std::vector<std::uint8_t> random_key() {
  std::vector<std::uint8_t> key(kernels::kStreamKeyBytes);
  for (auto& byte : key) byte = static_cast<std::uint8_t>(generator());
  return key;
}

// Compares until the first difference: what a check of a secret must not do.
bool leaks_on_purpose(const std::vector<std::uint8_t>& a, const std::vector<std::uint8_t>& b) {
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (static_cast<volatile const std::uint8_t&>(a[i]) != b[i]) return false;
  }
  return true;
}

double control() {
  const std::vector<std::uint8_t> secret = random_key();
  auto given = secret;
  const auto inputs = pools<std::uint8_t>(secret, random_key);
  volatile bool same = false;
  return measure(
      "control: leaks on purpose",
      [&](bool random, std::size_t i) { std::copy_n(inputs[random][i].begin(), given.size(), given.begin()); },
      [&] { same = leaks_on_purpose(secret, given); });
}

kernels::GaussianTable error_table() {
  namespace tables = kernels::tables;
  return {tables::kCollectiveErrorLargest, tables::kCollectiveErrorVariance, tables::kCollectiveErrorHigh,
          tables::kCollectiveErrorLow};
}

// One block of one prime: what goes in, and what is measured of it.
template <class Word>
class Block {
 public:
  Block(const std::string& backend, unsigned log_degree, std::uint64_t q, std::int64_t delta)
      : ring_(log_degree, {q}),
        kernels_(kernels::kernels<Word>(backend)),
        name_(backend + (sizeof(Word) == 4 ? ", 32-bit" : ", 64-bit")),
        weights_(ring_.degree(), 0.25f),
        values_(ring_.degree()),
        companions_(ring_.degree()),
        row_(ring_.degree()),
        restored_(ring_.degree()),
        key_(random_key()),
        table_(error_table()) {
    codec_.clip = 1;
    codec_.multiplier = sizeof(Word) == 4 ? 1000 : 1e9;
    codec_.single_precision = sizeof(Word) == 4;
    codec_.values_per_coefficient = 1;
    codec_.block_values = ring_.degree();
    codec_.delta = delta;
    set_secret(random_residues());
  }

  void measure_all() {
    measure_gaussian();
    measure_quantise("quantise", 0.25f);
    measure_quantise("quantise subnormals", 1e-40f);
    measure_encrypt();
    measure_open();
  }

 private:
  std::vector<Word> random_residues() const {
    std::vector<Word> values(ring_.degree());
    for (Word& value : values) value = static_cast<Word>(generator() % ring_.table().primes[0].modulus);
    return values;
  }
  std::vector<float> random_weights() const {
    std::vector<float> weights(ring_.degree());
    std::generate(weights.begin(), weights.end(), random_weight);
    return weights;
  }
  void set_secret(const std::vector<Word>& values) {
    const ShoupCompanions<Word> companions(ring_.table().primes[0].modulus);
    for (std::size_t k = 0; k < values.size(); ++k) {
      values_[k] = values[k];
      companions_[k] = companions.of(values[k]);
    }
  }
  kernels::PrivateStream noise() const { return {key_.data(), kernels_.private_cipher}; }
  kernels::Batch batch() const { return {0, 1, ring_.degree()}; }
  kernels::Multiplier<Word> secret() const { return {values_.data(), companions_.data()}; }

  void encrypt() {
    const kernels::TensorSpan span{weights_.data(), weights_.size(), kernels::Dtype::kFloat32, weights_.size(),
                                   weights_.size()};
    kernels::QuantizeReport report;
    kernels_.encrypt(
        {&ring_.table(), batch(), secret(), public_key_, noise(), &table_},
        {&ring_.table(), batch(), {&codec_, {&span, 1}, {}, noise(), &report}, nullptr, {row_.data(), nullptr}});
  }

  void measure_gaussian() {
    std::vector<std::int32_t> draw(ring_.degree());
    const auto keys = pools<std::uint8_t>(key_, random_key);
    measure(
        name_ + ", gaussian",
        [&](bool random, std::size_t i) { std::copy(keys[random][i].begin(), keys[random][i].end(), key_.begin()); },
        [&] { kernels_.gaussian(table_, noise(), kernels::Lane::kError0, 0, draw.size(), draw.data()); });
  }

  void measure_quantise(const char* what, float fixed) {
    std::vector<std::int64_t> out(ring_.degree());
    const auto inputs = pools<float>(std::vector<float>(weights_.size(), fixed), [&] { return random_weights(); });
    const kernels::TensorSpan span{weights_.data(), weights_.size(), kernels::Dtype::kFloat32, weights_.size(),
                                   weights_.size()};
    kernels::QuantizeReport report;
    measure(
        name_ + ", " + what,
        [&](bool random, std::size_t i) {
          std::copy(inputs[random][i].begin(), inputs[random][i].end(), weights_.begin());
        },
        [&] { kernels_.quantize({&codec_, {&span, 1}, {}, noise(), &report}, 0, out.size(), out.data()); });
    weights_ = inputs[1][0];
  }

  // Secret key, noise key and weights of a class together.
  void measure_encrypt() {
    const auto secrets = pools<Word>(values_, [&] { return random_residues(); });
    const auto keys = pools<std::uint8_t>(key_, random_key);
    const auto inputs = pools<float>(weights_, [&] { return random_weights(); });
    measure(
        name_ + ", encrypt",
        [&](bool random, std::size_t i) {
          set_secret(secrets[random][i]);
          std::copy(keys[random][i].begin(), keys[random][i].end(), key_.begin());
          std::copy(inputs[random][i].begin(), inputs[random][i].end(), weights_.begin());
        },
        [&] { encrypt(); });
  }

  // Honest ciphertexts: what is refused may show.
  void measure_open() {
    const auto secrets = pools<Word>(values_, [&] { return random_residues(); });
    std::vector<Pool<Word>> rows(2);
    for (std::size_t random : {0, 1}) {
      for (std::size_t i = 0; i < kPool; ++i) {
        set_secret(secrets[random][i]);
        if (random == 1) weights_ = random_weights();
        encrypt();
        rows[random].push_back(row_);
      }
    }
    kernels::OpenReport report;
    const kernels::OpenTarget target{1, 3, 1, 1e-3, ring_.degree(), nullptr, restored_.data(), nullptr};
    measure(
        name_ + ", open",
        [&](bool random, std::size_t i) {
          set_secret(secrets[random][i]);
          std::copy(rows[random][i].begin(), rows[random][i].end(), row_.begin());
          report = {};
        },
        [&] {
          kernels_.open({&ring_.table(),
                         batch(),
                         {row_.data(), nullptr},
                         {},
                         public_key_,
                         secret(),
                         codec_.delta,
                         table_.variance,
                         target,
                         &report});
        });
    if (report.block_refused) std::printf("an honest block was refused: the figure means nothing\n");
  }

  const ring::Ring<Word> ring_;
  const kernels::KernelTable<Word>& kernels_;
  std::string name_;
  std::vector<float> weights_;
  std::vector<Word> values_, companions_, row_;
  std::vector<float> restored_;
  std::vector<std::uint8_t> key_;
  kernels::GaussianTable table_;
  kernels::Codec codec_{};
  const std::uint8_t public_key_[kernels::kStreamKeyBytes] = {9};
};

}  // namespace

int main(int count, char** arguments) {
  std::vector<std::string> backends(arguments + 1, arguments + count);
  if (backends.empty()) backends = kernels::supported_backends();
  std::printf("%-34s %10s %9s %9s   difference between fixed and random secrets\n", "operation", "cycles", "worst t",
              "kept");
  const double leak = control();
  for (const std::string& name : backends) {
    const std::string backend = kernels::choose_backend(name);
    Block<std::uint32_t>(backend, 11, 2147389441, 387).measure_all();
    Block<std::uint64_t>(backend, 12, 1125899906826241, 387).measure_all();
  }
  std::printf("|t| < %.1f: none seen; > %.0f: a difference; between: measure again\n", kSuspicious, kLeak);
  if (leak > kLeak) return 0;
  std::printf("the leak made on purpose was not found: these figures mean nothing\n");
  return 1;
}
