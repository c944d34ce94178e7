#include "kernels/avx512/sums32.hpp"

#include <algorithm>

#include "kernels/avx512/finisher32.hpp"

namespace pppml::kernels::avx512 {
namespace {

using Word = std::uint32_t;

// Memory feeds a few streams at once best: more are added in groups, piece by piece, the sum so far in the cache.
constexpr std::size_t kStreams = 4;
constexpr std::size_t kPieceWords = 1 << 14;

// out = so_far + inputs 0 .. count - 1 over `words` words; so_far may be null, and may be out.
template <bool kUncached>
void add_group(Word modulus, const Word* so_far, const Word* const* inputs, std::size_t count, std::size_t first,
               std::size_t words, Word* out) {
  const Vector q = broadcast(modulus);
  for_lanes(words, [&](std::size_t k, __mmask16 lanes) {
    std::size_t i = so_far == nullptr ? 1 : 0;
    Vector sum = load_part(so_far == nullptr ? inputs[0] + first + k : so_far + k, lanes);
    for (; i < count; ++i) sum = add_mod(sum, load_part(inputs[i] + first + k, lanes), q);
    if (kUncached && lanes == 0xffff) {
      _mm512_stream_si512(reinterpret_cast<__m512i*>(out + k), sum);
    } else {
      _mm512_mask_storeu_epi32(out + k, lanes, sum);
    }
  });
}

// Words [first, first + words), all of one prime.
void add_words(const AddRequest<Word>& request, Word modulus, std::size_t first, std::size_t words, bool uncached) {
  alignas(64) Word so_far[kPieceWords];
  for (std::size_t done = 0; done < words; done += kPieceWords) {
    const std::size_t at = first + done, step = std::min(kPieceWords, words - done);
    for (std::size_t i = 0; i < request.count; i += kStreams) {
      const std::size_t count = std::min(kStreams, request.count - i);
      const bool last = i + count == request.count;
      const auto group = last && uncached ? add_group<true> : add_group<false>;
      group(modulus, i == 0 ? nullptr : so_far, request.inputs + i, count, at, step, last ? request.out + at : so_far);
    }
  }
}

bool store_uncached(const AddRequest<Word>& request, std::size_t words) {
  const bool in_place =
      std::find(request.inputs, request.inputs + request.count, request.out) != request.inputs + request.count;
  return words * sizeof(Word) >= kUncachedBytes && !in_place && reinterpret_cast<std::uintptr_t>(request.out) % 64 == 0;
}

}  // namespace

void add(const AddRequest<Word>& request) {
  const RingTable<Word>& ring = *request.ring;
  if (request.batch.blocks == 0) return;
  const std::size_t words = block_offset(ring, request.batch.blocks - 1) + request.batch.last_length * ring.prime_count;
  const bool uncached = store_uncached(request, words);
  if (ring.prime_count == 1) {
    add_words(request, ring.primes[0].modulus, 0, words, uncached);
  } else {
    for (std::size_t b = 0; b < request.batch.blocks; ++b) {
      const std::size_t length = row_length(ring, request.batch, b);
      for (std::size_t l = 0; l < ring.prime_count; ++l) {
        const std::size_t at = block_offset(ring, b) + l * length;
        add_words(request, ring.primes[l].modulus, at, length, uncached && (at * sizeof(Word)) % 64 == 0);
      }
    }
  }
  if (uncached) _mm_sfence();
}

bool hop(const HopRequest<Word>& request) {
  const RingTable<Word>& ring = *request.ring;
  RowFinisher rows(ring, Order::kAscending, {nullptr, request.in}, {nullptr, request.out});
  SecretBuffer<Word> last(ring.degree());
  for (std::size_t b = 0; b < request.batch.blocks; ++b) {
    const std::size_t length = row_length(ring, request.batch, b);
    for (std::size_t l = 0; l < ring.prime_count; ++l) {
      const Word* mine = request.mine + block_offset(ring, b) + l * length;
      if (length < ring.degree()) {
        std::copy(mine, mine + length, last.data());
        mine = last.data();
      }
      rows.begin(ring.primes[l], ring.degree(), length, nullptr, nullptr, 0);
      for (std::size_t k = 0; k < length; k += kLanes) rows.take(k, load(mine + k));
      if (!rows.end()) return false;
    }
  }
  return true;
}

}  // namespace pppml::kernels::avx512
