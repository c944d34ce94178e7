// hop: every backend accepts the same incoming blocks, and gives packed(unpacked(in) + mine) modulo every prime.
// Input: ring (1 byte), flags (1: in place), an edge to put into the first row (1), seed of the own residues (4), the
// packed blocks.
#include "base/check.hpp"
#include "base/modular.hpp"
#include "tests/fuzz/sets.hpp"

namespace {

using namespace pppml;
using fuzz::check;

template <class Word>
std::size_t bytes_of_rows(const kernels::RingTable<Word>& ring, std::size_t count) {
  std::size_t bytes = 0;
  for (std::size_t l = 0; l < ring.prime_count; ++l) bytes += kernels::packed_row_bytes(ring.primes[l], count);
  return bytes;
}

// As many whole blocks as `size` bytes hold, and a cut one of what is left.
template <class Word>
kernels::Batch batch_in(const kernels::RingTable<Word>& ring, std::size_t size) {
  const std::size_t whole = size / kernels::packed_block_bytes(ring);
  const std::size_t rest = size % kernels::packed_block_bytes(ring);
  std::size_t count = ring.degree();
  while (count > 0 && bytes_of_rows(ring, count) > rest) --count;
  return count == 0 ? kernels::Batch{0, whole, ring.degree()} : kernels::Batch{0, whole + 1, count};
}

// The oracle: the residues of every row summed one by one. False where a residue is refused.
template <class Word>
bool expected_sum(const fuzz::RingOnBackends<Word>& ring, const kernels::Batch& batch,
                  const std::vector<std::uint8_t>& in, const std::vector<Word>& mine, std::vector<std::uint8_t>& out) {
  const auto& scalar = *ring.backends.back();
  const auto& table = ring.ring.table();
  bool valid = true;
  std::size_t at = 0, word = 0;
  std::vector<Word> row(ring.ring.degree());
  for (std::size_t b = 0; b < batch.blocks; ++b) {
    const std::size_t count = kernels::row_length(table, batch, b);
    for (std::size_t l = 0; l < table.prime_count; ++l, word += count) {
      const auto& prime = table.primes[l];
      valid = scalar.unpack_row(prime, in.data() + at, count, row.data()) && valid;
      for (std::size_t k = 0; k < count; ++k)
        row[k] = add_mod<Word>(row[k] % prime.modulus, mine[word + k], prime.modulus);
      scalar.pack_row(prime, row.data(), count, out.data() + at);
      at += kernels::packed_row_bytes(prime, count);
    }
  }
  return valid;
}

template <class Word>
void run(const fuzz::RingOnBackends<Word>& ring, fuzz::Input& input) {
  const auto& table = ring.ring.table();
  const bool in_place = (input.take<std::uint8_t>() & 1) != 0;
  const auto edge = input.take<std::uint8_t>();
  auto state = input.take<std::uint32_t>();
  const kernels::Batch batch = batch_in(table, input.left());
  if (batch.blocks == 0) return;
  const std::size_t size =
      (batch.blocks - 1) * kernels::packed_block_bytes(table) + bytes_of_rows(table, batch.last_length);
  std::vector<std::uint8_t> in = input.take_bytes(size);
  fuzz::put_edge(in.data(), kernels::row_length(table, batch, 0), table.primes[0].bits, table.primes[0].modulus, edge);
  std::vector<Word> mine(((batch.blocks - 1) * table.degree() + batch.last_length) * table.prime_count);
  std::size_t word = 0;
  for (std::size_t b = 0; b < batch.blocks; ++b) {
    for (std::size_t l = 0; l < table.prime_count; ++l) {
      for (std::size_t k = 0; k < kernels::row_length(table, batch, b); ++k) {
        state = state * 1664525u + 1013904223u;
        const std::uint64_t spread = state * std::uint64_t{0x9E3779B97F4A7C15};
        // The edges of the range more often than chance has them.
        mine[word++] =
            static_cast<Word>(state % 5 == 0 ? table.primes[l].modulus - 1 : spread % table.primes[l].modulus);
      }
    }
  }
  std::vector<std::uint8_t> expected(size), out(size);
  const bool valid = expected_sum(ring, batch, in, mine, expected);
  for (const auto* backend : ring.backends) {
    out = in;
    const kernels::HopRequest<Word> request{&table, batch, in_place ? out.data() : in.data(), mine.data(), out.data()};
    check(backend->hop(request) == valid, "a backend accepts a hop that the oracle refuses, or the reverse");
    check(!valid || out == expected, "a backend gives another sum than the oracle");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  const auto& narrow = fuzz::narrow_rings();
  const auto& wide = fuzz::wide_rings();
  const std::size_t ring = input.take<std::uint8_t>() % (narrow.size() + wide.size());
  if (ring < narrow.size()) {
    run(*narrow[ring], input);
  } else {
    run(*wide[ring - narrow.size()], input);
  }
  return 0;
}
