// Secrets leave nothing behind: when their owners have ended, a search through the heap (freed blocks included), the
// mappings and the stacks of all threads finds none of them.
//
// What to look for is computed in a forked child, which leaves hashes alone; each scenario runs and searches in
// another. Registers are out of reach. A residue shorter than a window (16 bytes of residues and keys, 32 and 64 of
// small integers, which would else be found everywhere) goes unnoticed.
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "base/modular.hpp"
#include "base/parallel.hpp"
#include "ckks/pad_store.hpp"
#include "kernels/gaussian_tables.hpp"
#include "kernels/registry.hpp"
#include "kernels/scalar/aes_planes.hpp"
#include "ring/ring.hpp"
#include "tests/check.hpp"
#include "tests/kept_memory.hpp"
#include "tests/parties.hpp"

using namespace pppml;
using kernels::Lane;
using tests::ParameterSet;
using tests::Party;
using tests::Traces;

namespace {

constexpr std::size_t kBlocks = 33;  // two threads share them

std::size_t length_of(const ParameterSet& set) {
  // More than the shortest row: what fills that up is a pad and no weight, and leaves as such.
  return (kBlocks - 1) * set.ring_dimension * set.values_per_coefficient + 3 * 177;
}

// Runs `body` in a process of its own; its result is the exit status.
int in_child(const std::function<int()>& body) {
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    const int result = body();
    std::fflush(nullptr);
    _exit(result);
  }
  int status = -1;
  require(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status), "a child did not end by itself");
  return WEXITSTATUS(status);
}

template <class T>
void add(Traces& traces, const char* label, const std::vector<T>& values, std::size_t window) {
  traces.add(label, values.data(), values.size() * sizeof(T), window);
}

void add_key(Traces& traces, const char* label, const std::uint8_t* key) {
  traces.add(label, key, kernels::kStreamKeyBytes, 16);
  // ChaCha20 in lanes: each word as often as there are lanes.
  for (std::size_t i = 0; i < kernels::kStreamKeyBytes; i += 4) {
    std::uint32_t word;
    std::memcpy(&word, key + i, sizeof word);
    add(traces, label, std::vector<std::uint32_t>(8, word), 32);
  }
  // AES in planes: the first two round keys are the halves of the key.
  for (std::size_t half : {0, 16}) {
    std::uint8_t bytes[kernels::scalar::kPlaneBytes];
    for (std::size_t i = 0; i < sizeof bytes; ++i) bytes[i] = key[half + i % 16];
    kernels::scalar::AesPlanes planes;
    kernels::scalar::load_planes(bytes, &planes);
    traces.add(label, planes.bits, sizeof planes.bits, 64);
  }
}

template <class Word>
void add_factor(Traces& traces, const ParameterSet& set, const ckks::SecretKey& secret) {
  unsigned log_degree = 0;
  while ((std::size_t{1} << log_degree) < set.ring_dimension) ++log_degree;
  const ring::Ring<Word> ring(log_degree, set.primes);
  for (std::size_t l = 0; l < ring.prime_count(); ++l) {
    const auto& prime = ring.table().primes[l];
    std::vector<Word> row(ring.degree()), companions(ring.degree()), columns(ring.degree());
    for (std::size_t k = 0; k < row.size(); ++k) {
      row[k] = reduce_signed<Word>(secret.coefficients()[k], prime.modulus, prime.ratio, prime.lift);
    }
    add(traces, "secret as residues", row, 64);
    kernels::kernels<Word>("scalar").forward_ntt(prime, log_degree, row.data());
    add(traces, "secret in NTT form", row, 16);
    for (std::size_t k = 0; k < row.size(); ++k) {
      row[k] = multiply_shoup(row[k], prime.inverse_degree, prime.inverse_degree_companion, prime.modulus);
      companions[k] = shoup_companion(row[k], prime.modulus);
    }
    add(traces, "secret as a factor", row, 16);
    add(traces, "its companions", companions, 16);
    // Column order puts residues k, k + 16, k + 32, ... side by side.
    for (std::size_t k = 0; k < row.size(); ++k) columns[k] = row[k / 128 * 128 + k % 8 * 16 + k % 128 / 8];
    add(traces, "secret as a factor, in columns", columns, 16);
  }
}

void add_noise(Traces& traces, const Party& party) {
  const auto& table = kernels::kernels<std::uint32_t>("scalar");
  const kernels::PrivateStream stream{party.noise.data(), party.scheme->private_cipher()};
  const std::size_t degree = party.scheme->parameters().ring_dimension();
  namespace tables = kernels::tables;
  const bool collective = party.scheme->parameters().keys() == ckks::KeyMode::kCollective;
  const kernels::GaussianTable error =
      collective ? kernels::GaussianTable{tables::kCollectiveErrorLargest, tables::kCollectiveErrorVariance,
                                          tables::kCollectiveErrorHigh, tables::kCollectiveErrorLow}
                 : kernels::GaussianTable{tables::kErrorLargest, tables::kErrorVariance, tables::kErrorHigh,
                                          tables::kErrorLow};
  for (std::uint64_t block = 0; block < kBlocks; ++block) {
    for (Lane lane : {Lane::kError0, Lane::kError1, Lane::kEphemeral, Lane::kRounding}) {
      std::vector<std::uint32_t> words(degree);
      table.stream(stream, static_cast<std::uint32_t>(lane), block, 0, degree, words.data());
      add(traces, "words of a private stream", words, 16);
    }
    for (Lane lane : {Lane::kError0, Lane::kError1}) {
      std::vector<std::int32_t> draw(degree);
      table.gaussian(error, stream, lane, block, degree, draw.data());
      add(traces, "noise", draw, 32);
    }
  }
}

void add_everything(Traces& traces, const Party& party, const ParameterSet& set) {
  add_key(traces, "key of the noise", party.noise.data());
  add_key(traces, "key of the secret", Party::secret_seed().data());
  const auto& coefficients = party.secret->coefficients();
  // Ternary ones carry so little that 32 of them are needed to tell them from other memory.
  const std::size_t together = party.scheme->parameters().keys() == ckks::KeyMode::kCollective ? 8 : 32;
  traces.add("secret coefficients", coefficients.data(), coefficients.size() * 8, 8 * together);
  add(traces, "secret coefficients", std::vector<std::int32_t>(coefficients.begin(), coefficients.end()), 4 * together);
  if (party.scheme->word_bytes() == 4) {
    add_factor<std::uint32_t>(traces, set, *party.secret);
  } else {
    add_factor<std::uint64_t>(traces, set, *party.secret);
  }
  add_noise(traces, party);
  std::vector<std::int64_t> message(party.scheme->integers(party.all()));
  party.scheme->quantize(party.plain(), &party.noise, party.all(), message.data());
  add(traces, "quantised weights", message, 64);
  add(traces, "quantised weights", std::vector<std::int32_t>(message.begin(), message.end()), 32);
  if (party.public_key) return;
  Party::Bytes pads(party.row_bytes());
  party.scheme->make_pads(*party.secret, party.noise, party.public_seed, party.all(), pads.data());
  add(traces, "pads", pads, 16);
}

// All that is done with secrets; every owner has ended on return.
void live(const ParameterSet& set, const std::string& backend, const std::string& cipher) {
  const Party party(set, backend, length_of(set), cipher);
  party.open(party.encrypt());
  if (party.public_key) return;
  ckks::PadStore store(*party.scheme, *party.secret, party.noise, party.public_seed, party.all());
  store.fill();
  Party::Bytes out(party.row_bytes());
  kernels::QuantizeReport report;
  // Some pads are used, the others wiped.
  const ckks::Range used{party.weights.size(), 0, kBlocks / 2};
  CHECK(party.scheme->encrypt_prepared(store.words(), true, party.noise, party.plain(), used, nullptr,
                                       {out.data(), nullptr}, &report));
  store.wipe(used.stop);
}

// How many kinds of traces are found after `body`; they are printed.
int traces_after(const std::string& name, const Traces& traces, const std::function<void()>& body) {
  return in_child([&] {
    body();
    const std::vector<std::string> found = traces.search();
    for (const std::string& line : found) std::printf("%s: %s\n", name.c_str(), line.c_str());
    return static_cast<int>(found.size());
  });
}

[[gnu::noinline]] void leave_on_stack(const Party& party) {
  volatile std::uint8_t copy[256];
  for (std::size_t i = 0; i < sizeof copy; ++i) copy[i] = party.noise.data()[i % kernels::kStreamKeyBytes];
}

}  // namespace

TEST(nothing_is_left_of_secrets) {
  set_thread_count(2);
  for (const std::string& backend : kernels::supported_backends()) {
    for (const ParameterSet& set : tests::parameter_sets()) {
      for (const std::string cipher : {"chacha20", "aes256"}) {
        Traces traces;
        CHECK_EQUAL(in_child([&] {
                      const Party party(set, "scalar", length_of(set), cipher);
                      add_everything(traces, party, set);
                      return 0;
                    }),
                    0);
        const std::string name = concatenate(backend, ", ", set.name, ", ", cipher);
        CHECK_EQUAL(traces_after(name, traces, [&] { live(set, backend, cipher); }), 0);
      }
    }
  }
}

// What was not wiped is found: in a block that was freed, in pages that were given back, on a stack that was left.
TEST(positive_controls_are_found) {
  const ParameterSet& set = tests::parameter_sets().front();
  Traces traces;
  in_child([&] {
    const Party party(set, "scalar", length_of(set), "chacha20");
    add_everything(traces, party, set);
    return 0;
  });
  const auto party = [&] { return Party(set, "scalar", length_of(set), "chacha20"); };
  CHECK(traces_after("freed", traces, [&] {
          const Party owner = party();
          const std::vector<std::int64_t> copy(owner.secret->coefficients().begin(),
                                               owner.secret->coefficients().end());
        }) >= 1);
  CHECK(traces_after("given back", traces, [&] {
          const Party owner = party();
          void* const pages = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
          std::memcpy(pages, owner.noise.data(), kernels::kStreamKeyBytes);
          munmap(pages, 4096);
        }) >= 1);
  CHECK(traces_after("left on the stack", traces, [&] { leave_on_stack(party()); }) >= 1);
}
