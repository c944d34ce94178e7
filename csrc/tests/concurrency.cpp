// One scheme, one key, many threads: every operation gives what it gives alone, on every backend of this machine.
#include <atomic>
#include <cstring>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "base/parallel.hpp"
#include "ckks/pad_store.hpp"
#include "kernels/registry.hpp"
#include "tests/check.hpp"
#include "tests/parties.hpp"

using namespace pppml;
using tests::Party;

namespace {

constexpr unsigned kCallers = 4;

// Enough blocks that two threads share a call, the last of them cut.
std::size_t length_of(const tests::ParameterSet& set) {
  return 33 * set.ring_dimension * set.values_per_coefficient + 77;
}

template <class Body>
void for_each_party(Body body) {
  set_thread_count(2);
  for (const std::string& backend : kernels::supported_backends()) {
    for (const tests::ParameterSet& set : tests::parameter_sets()) {
      body(Party(set, backend, length_of(set)), concatenate(backend, ", ", set.name));
    }
  }
}

// The pads of a whole message, or of its first `stop` blocks.
Party::Bytes pads_of(const Party& party, std::uint64_t stop) {
  const ckks::Range range{party.weights.size(), 0, stop};
  Party::Bytes pads(party.scheme->words({range.length, true}, 0, stop) * party.scheme->word_bytes());
  party.scheme->make_pads(*party.secret, party.noise, party.public_seed, range, pads.data());
  return pads;
}

bool begins_with(const ckks::PadStore& store, const Party::Bytes& pads, std::size_t bytes) {
  return std::memcmp(store.words(), pads.data(), bytes) == 0;
}

}  // namespace

TEST(operations_of_one_scheme_do_not_disturb_each_other) {
  for_each_party([](const Party& party, const std::string& name) {
    const Party::Bytes c = party.encrypt();
    const std::vector<std::function<Party::Bytes()>> operations = {
        [&] { return party.encrypt(); },
        [&] { return party.add(c); },
        [&] { return party.hop(c); },
        [&] { return party.open(c); },
    };
    std::vector<Party::Bytes> alone;
    for (const auto& operation : operations) alone.push_back(operation());
    std::vector<std::thread> callers;
    std::atomic<unsigned> differences{0};
    for (unsigned caller = 0; caller < kCallers; ++caller) {
      callers.emplace_back([&, caller] {
        for (std::size_t i = 0; i < operations.size(); ++i) {
          const std::size_t mine = (i + caller) % operations.size();
          differences += operations[mine]() != alone[mine];
        }
      });
    }
    for (std::thread& caller : callers) caller.join();
    if (differences != 0) tests::fail(name.c_str(), 0, "an operation's result depends on what runs beside it");
  });
}

TEST(pads_are_read_while_they_are_made) {
  for_each_party([](const Party& party, const std::string&) {
    if (party.public_key) return;
    const Party::Bytes pads = pads_of(party, party.blocks);
    ckks::PadStore store(*party.scheme, *party.secret, party.noise, party.public_seed, party.all());
    std::thread filler([&] { store.fill(); });
    // What is said to be ready may be read although the rest is being written.
    for (std::uint64_t ready = 0; ready < party.blocks;) {
      ready = store.ready();
      const std::size_t words = party.scheme->words({party.weights.size(), true}, 0, ready);
      CHECK(begins_with(store, pads, words * party.scheme->word_bytes()));
      std::this_thread::yield();
    }
    filler.join();
    CHECK_EQUAL(store.ready(), store.capacity());
  });
}

TEST(a_store_is_stopped_filled_again_and_wiped_from_other_threads) {
  const tests::ParameterSet& set = tests::parameter_sets().front();
  for (const std::string& backend : kernels::supported_backends()) {
    const Party party(set, backend, 400 * set.ring_dimension);
    const Party::Bytes pads = pads_of(party, party.blocks);
    ckks::PadStore store(*party.scheme, *party.secret, party.noise, party.public_seed, party.all());
    std::thread filler([&] { store.fill(); });
    std::thread second([&] { store.halt(); });
    second.join();
    filler.join();
    const std::uint64_t kept = store.ready();
    CHECK(kept <= store.capacity());
    CHECK(begins_with(store, pads, party.scheme->words({party.weights.size(), true}, 0, kept) * 4));
    std::vector<std::thread> wipers;
    for (unsigned i = 0; i < kCallers; ++i) wipers.emplace_back([&] { store.wipe(); });
    for (std::thread& wiper : wipers) wiper.join();
    CHECK_EQUAL(store.ready(), std::uint64_t{0});
    CHECK(begins_with(store, Party::Bytes(store.word_count() * store.word_bytes()), pads.size()));
  }
}

TEST(two_threads_do_not_fill_one_store) {
  const tests::ParameterSet& set = tests::parameter_sets().front();
  const Party party(set, "scalar", 400 * set.ring_dimension);
  ckks::PadStore store(*party.scheme, *party.secret, party.noise, party.public_seed, party.all());
  std::atomic<unsigned> refused{0};
  std::vector<std::thread> fillers;
  for (unsigned i = 0; i < kCallers; ++i) {
    fillers.emplace_back([&] {
      try {
        store.fill();
      } catch (const RequirementError&) {
        ++refused;
      }
    });
  }
  for (std::thread& filler : fillers) filler.join();
  // Whoever came when the store was full had nothing to do; the first one is never refused.
  CHECK(refused < kCallers);
  CHECK_EQUAL(store.ready(), store.capacity());
  CHECK(begins_with(store, pads_of(party, party.blocks), store.word_count() * store.word_bytes()));
}
