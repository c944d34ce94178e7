// unpack_row: every backend finds the same residues and the same refusals, and packing what was read gives the bytes
// back. Input: ring (1 byte), distance from an aligned address (1), an edge to put in (1), the packed row.
#include "base/check.hpp"
#include "tests/fuzz/sets.hpp"

namespace {

using namespace pppml;
using fuzz::check;

template <class Word>
void run(const fuzz::RingOnBackends<Word>& ring, std::size_t prime_index, std::size_t shift, fuzz::Input& input) {
  const auto edge = input.take<std::uint8_t>();
  const auto& prime = ring.ring.table().primes[prime_index];
  const std::size_t count = std::min<std::size_t>(input.left() * 8 / prime.bits, ring.ring.degree());
  const std::size_t size = kernels::packed_row_bytes(prime, count);
  std::vector<std::uint8_t> packed(shift);
  std::vector<std::uint8_t> bytes = input.take_bytes(size);
  fuzz::put_edge(bytes.data(), count, prime.bits, prime.modulus, edge);
  packed.insert(packed.end(), bytes.begin(), bytes.end());
  packed.shrink_to_fit();
  std::vector<Word> expected(count), words(count);
  const auto& scalar = *ring.backends.back();
  const bool valid = scalar.unpack_row(prime, packed.data() + shift, count, expected.data());
  for (const auto* backend : ring.backends) {
    std::fill(words.begin(), words.end(), Word{0});
    check(backend->unpack_row(prime, packed.data() + shift, count, words.data()) == valid,
          "a backend accepts a row that scalar refuses, or the reverse");
    if (!valid) continue;
    check(words == expected, "a backend reads other residues than scalar");
    std::vector<std::uint8_t> again(shift + size);
    backend->pack_row(prime, words.data(), count, again.data() + shift);
    check(std::equal(bytes.begin(), bytes.end(), again.begin() + static_cast<std::ptrdiff_t>(shift)),
          "an accepted row is not what packing its residues gives");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  const auto choice = input.take<std::uint8_t>();
  const std::size_t shift = input.take<std::uint8_t>() % 64;
  const auto& narrow = fuzz::narrow_rings();
  const auto& wide = fuzz::wide_rings();
  const std::size_t ring = choice / 2 % (narrow.size() + wide.size());
  const auto prime_of = [&](const auto& rings, std::size_t index) { return choice % rings[index]->ring.prime_count(); };
  if (ring < narrow.size()) {
    run(*narrow[ring], prime_of(narrow, ring), shift, input);
  } else {
    run(*wide[ring - narrow.size()], prime_of(wide, ring - narrow.size()), shift, input);
  }
  return 0;
}
