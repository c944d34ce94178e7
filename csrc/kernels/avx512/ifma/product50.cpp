#include "kernels/avx512/ifma/product50.hpp"

#include "base/buffer.hpp"
#include "kernels/avx512/chacha20.hpp"
#include "kernels/avx512/ifma/lanes50.hpp"
#include "kernels/scalar/stream.hpp"

namespace pppml::kernels::avx512::ifma {
namespace {

constexpr std::size_t kBlocks = 16;  // of ChaCha20 in one chunk
static_assert(2 * kChunk == kBatchWords);

// Candidates of one chunk, in the order that ProductMaker describes; false when one of them is not below q.
inline bool expand(const ChaCha20& cipher, std::size_t chunk, Vector bits_mask, Vector q, Vector* x) {
  Vector words[16];
  cipher.generate_columns(static_cast<std::uint32_t>(kBlocks * chunk), words);
#pragma GCC unroll 8
  for (std::size_t j = 0; j < 8; ++j) {
    x[j] = _mm512_and_si512(_mm512_unpacklo_epi32(words[2 * j], words[2 * j + 1]), bits_mask);
    x[8 + j] = _mm512_and_si512(_mm512_unpackhi_epi32(words[2 * j], words[2 * j + 1]), bits_mask);
  }
  // Candidates below q borrow from bit 63.
  Vector borrows = broadcast(~std::uint64_t{0});
#pragma GCC unroll 16
  for (std::size_t i = 0; i < kRegisters; ++i) borrows = _mm512_and_si512(borrows, _mm512_sub_epi64(x[i], q));
  return _mm512_movepi64_mask(borrows) == 0xff;
}

// From that order to vectors of consecutive residues.
inline void put_in_order(Vector* x) {
  transpose(x);
  transpose(x + 8);
  Vector ordered[kRegisters];
#pragma GCC unroll 16
  for (std::size_t v = 0; v < kRegisters; ++v) ordered[v] = x[8 * ((v >> 1) & 1) + 2 * (v >> 2) + (v & 1)];
#pragma GCC unroll 16
  for (std::size_t v = 0; v < kRegisters; ++v) x[v] = ordered[v];
}

// Candidate in vector i and lane p of a chunk.
constexpr std::size_t place(std::size_t i, std::size_t p) {
  return 32 * (p / 2) + 16 * (i / 8) + 8 * (p % 2) + i % 8;
}

Vector low_bits(unsigned bits) {
  return broadcast((std::uint64_t{1} << bits) - 1);
}

// Factors of the eight lanes of a vector, and one for all lanes.
struct FactorRow {
  alignas(64) std::uint64_t w[kLanes];
  alignas(64) std::uint64_t companion[kLanes];

  Factor get() const { return {load(w), load(companion)}; }
};
struct Root {
  std::uint64_t w, companion;

  Factor get() const { return {broadcast(w), broadcast(companion)}; }
};

// Of one chunk: for distances 1, 2, 4 and 8, 16, 32, 64.
constexpr std::size_t kLaneRoots = 8 + 4 + 2;
constexpr std::size_t kWideRoots = 8 + 4 + 2 + 1;

}  // namespace

void uniform(const Prime64& prime, unsigned log_degree, const std::uint8_t* key, std::uint32_t selector,
             std::uint64_t block, std::uint64_t* out) {
  const ChaCha20 cipher(key, selector, block);
  const Vector mask = low_bits(prime.bits), q = broadcast(prime.modulus);
  bool accepted = true;
  for (std::size_t chunk = 0; chunk < (std::size_t{1} << log_degree) / kChunk; ++chunk) {
    Vector x[kRegisters];
    accepted &= expand(cipher, chunk, mask, q, x);
    put_in_order(x);
    store_chunk(x, out + chunk * kChunk);
  }
  // Whether a candidate was rejected tells nothing of the accepted ones: the second look is no leak.
  if (!accepted) scalar::uniform(prime, log_degree, key, selector, block, out);
}

struct ProductMaker::State {
  const Prime64& prime;
  unsigned log_degree;
  std::uint32_t selector;
  Multiplier<std::uint64_t> factor;
  const std::uint8_t* public_key;
  SecretBuffer<FactorRow> factors;  // of the multiplier, in the order in which the stream comes
  Buffer<FactorRow> lane_roots;
  Buffer<Root> wide_roots;

  std::size_t degree() const { return std::size_t{1} << log_degree; }
  void fill_factors();
  void fill_roots();
  bool write_chunk(const ChaCha20& cipher, std::size_t chunk, const Modulus& m, std::uint64_t* out) const;
};

void ProductMaker::State::fill_factors() {
  factors = SecretBuffer<FactorRow>(degree() / kLanes);
  for (std::size_t row = 0; row < factors.size(); ++row) {
    for (std::size_t p = 0; p < kLanes; ++p) {
      const std::size_t at = row / kRegisters * kChunk + place(row % kRegisters, p);
      factors[row].w[p] = factor.values[at];
      factors[row].companion[p] = factor.companions[at] >> kCompanionShift;
    }
  }
}

void ProductMaker::State::fill_roots() {
  lane_roots = Buffer<FactorRow>(degree() / kChunk * kLaneRoots);
  wide_roots = Buffer<Root>(degree() / kChunk * kWideRoots);
  FactorRow* lane_root = lane_roots.data();
  Root* wide_root = wide_roots.data();
  for (std::size_t start = 0; start < degree(); start += kChunk) {
    for (std::size_t half = 1; half < kLanes; half *= 2) {
      for (std::size_t i = 0; i < kRegisters; i += 2 * half, ++lane_root) {
        for (std::size_t p = 0; p < kLanes; ++p) {
          const std::size_t at = (degree() + start + place(i, p)) / (2 * half);
          lane_root->w[p] = prime.inverse_roots[at];
          lane_root->companion[p] = prime.inverse_root_companions[at] >> kCompanionShift;
        }
      }
    }
    for (std::size_t half = kLanes; half < kChunk; half *= 2) {
      for (std::size_t k = start; k < start + kChunk; k += 2 * half, ++wide_root) {
        const std::size_t at = (degree() + k) / (2 * half);
        *wide_root = {prime.inverse_roots[at], prime.inverse_root_companions[at] >> kCompanionShift};
      }
    }
  }
}

// False when a candidate was rejected; `out` is then undefined.
bool ProductMaker::State::write_chunk(const ChaCha20& cipher, std::size_t chunk, const Modulus& m,
                                      std::uint64_t* out) const {
  Vector x[kRegisters];
  const bool accepted = expand(cipher, chunk, low_bits(prime.bits), m.q, x);
  const FactorRow* row = factors.data() + chunk * kRegisters;
#pragma GCC unroll 16
  for (std::size_t i = 0; i < kRegisters; ++i) x[i] = multiply_lazy(x[i], row[i].get(), m);
  const FactorRow* lane_root = lane_roots.data() + chunk * kLaneRoots;
  const auto next_lane_root = [&](std::size_t) { return (lane_root++)->get(); };
  register_level<inverse_butterfly, 1>(x, m, next_lane_root);
  register_level<inverse_butterfly, 2>(x, m, next_lane_root);
  register_level<inverse_butterfly, 4>(x, m, next_lane_root);
  put_in_order(x);
  const Root* wide_root = wide_roots.data() + chunk * kWideRoots;
  const auto next_wide_root = [&](std::size_t) { return (wide_root++)->get(); };
  register_level<inverse_butterfly, 1>(x, m, next_wide_root);
  register_level<inverse_butterfly, 2>(x, m, next_wide_root);
  register_level<inverse_butterfly, 4>(x, m, next_wide_root);
  register_level<inverse_butterfly, 8>(x, m, next_wide_root);
  store_chunk(x, out);
  return accepted;
}

ProductMaker::ProductMaker(const Prime64& prime, unsigned log_degree, std::uint32_t selector,
                           const Multiplier<std::uint64_t>& factor, const std::uint8_t* public_key)
    : state_(new State{prime, log_degree, selector, factor, public_key, {}, {}, {}}) {
  state_->fill_factors();
  state_->fill_roots();
}

ProductMaker::~ProductMaker() = default;

void ProductMaker::write(std::uint64_t block, std::uint64_t* row) const {
  const State& state = *state_;
  const ChaCha20 cipher(state.public_key, state.selector, block);
  const Modulus m(state.prime.modulus);
  bool accepted = true;
  for (std::size_t chunk = 0; chunk < state.degree() / kChunk; ++chunk) {
    accepted &= state.write_chunk(cipher, chunk, m, row + chunk * kChunk);
  }
  if (accepted) {
    inverse_large(state.prime, state.log_degree, row);
    return;
  }
  // Never seen with primes just below a power of two: the row is expanded, multiplied and transformed in turn.
  scalar::uniform(state.prime, state.log_degree, state.public_key, state.selector, block, row);
  multiply_and_invert(state.prime, state.log_degree, state.factor, row);
}

}  // namespace pppml::kernels::avx512::ifma
