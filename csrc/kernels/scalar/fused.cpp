#include "kernels/scalar/fused.hpp"

#include <algorithm>
#include <cstring>

#include "base/buffer.hpp"
#include "base/modular.hpp"
#include "kernels/composed.hpp"
#include "kernels/embedding.hpp"
#include "kernels/scalar/codec.hpp"
#include "kernels/scalar/ntt.hpp"
#include "kernels/scalar/stream.hpp"

namespace pppml::kernels::scalar {
namespace {

template <class Word>
void multiply_and_invert(const PrimeTable<Word>& prime, unsigned log_degree, const Multiplier<Word>& factor,
                         Word* row) {
  multiply_rows(prime, std::size_t{1} << log_degree, factor.values, factor.companions, row);
  inverse_ntt_unscaled(prime, log_degree, row);
}

template <class Word>
void add(const AddRequest<Word>& request) {
  const RingTable<Word>& ring = *request.ring;
  for (std::size_t b = 0; b < request.batch.blocks; ++b) {
    const std::size_t length = row_length(ring, request.batch, b);
    for (std::size_t l = 0; l < ring.prime_count; ++l) {
      const Word q = ring.primes[l].modulus;
      const std::size_t start = block_offset(ring, b) + l * length;
      for (std::size_t k = start; k < start + length; ++k) {
        Word sum = request.inputs[0][k];
        for (std::size_t i = 1; i < request.count; ++i) sum = add_mod(sum, request.inputs[i][k], q);
        request.out[k] = sum;
      }
    }
  }
}

template <class Word>
bool hop(const HopRequest<Word>& request) {
  const RingTable<Word>& ring = *request.ring;
  Buffer<Word> row(ring.degree());
  std::size_t at = 0;
  for (std::size_t b = 0; b < request.batch.blocks; ++b) {
    const std::size_t length = row_length(ring, request.batch, b);
    for (std::size_t l = 0; l < ring.prime_count; ++l) {
      const PrimeTable<Word>& prime = ring.primes[l];
      const Word* mine = request.mine + block_offset(ring, b) + l * length;
      if (!unpack_row(prime, request.in + at, length, row.data())) return false;
      for (std::size_t k = 0; k < length; ++k) row[k] = add_mod(row[k], mine[k], prime.modulus);
      pack_row(prime, row.data(), length, request.out + at);
      at += packed_row_bytes(prime, length);
    }
  }
  return true;
}

// rho_{j,r} is residue r of a uniform row of kTagRows residues.
template <class Word>
void tag(const TagRequest<Word>& request) {
  const RingTable<Word>& ring = *request.ring;
  constexpr unsigned kLogTagRows = 1;
  static_assert(kTagRows == 1u << kLogTagRows);
  for (std::size_t b = 0; b < request.batch.blocks; ++b) {
    const std::size_t length = row_length(ring, request.batch, b);
    for (std::size_t l = 0; l < ring.prime_count; ++l) {
      const PrimeTable<Word>& prime = ring.primes[l];
      Word rho[kTagRows];
      uniform(prime, kLogTagRows, request.key, static_cast<std::uint32_t>(l), request.batch.first_block + b, rho);
      const Word* in = request.in + block_offset(ring, b) + l * length;
      for (unsigned r = 0; r < kTagRows; ++r) {
        const Word companion = shoup_companion(rho[r], prime.modulus);
        Word* out = request.tags + (r * ring.prime_count + l) * ring.degree();
        for (std::size_t k = 0; k < length; ++k) {
          out[k] = add_mod(out[k], multiply_shoup(in[k], rho[r], companion, prime.modulus), prime.modulus);
        }
      }
    }
  }
}

template <class Word>
constexpr KernelTable<Word> make_table() {
  KernelTable<Word> t{};
  t.name = "scalar";
  t.private_cipher = StreamCipher::kChaCha20;
  t.forward_ntt = forward_ntt<Word>;
  t.inverse_ntt = inverse_ntt<Word>;
  t.stream = stream;
  t.uniform = uniform<Word>;
  t.gaussian = gaussian;
  t.ternary = ternary;
  t.quantize = quantize;
  t.pack_row = pack_row<Word>;
  t.unpack_row = unpack_row<Word>;
  t.embed = kernels::embed;
  t.unembed = kernels::unembed;
  t.load_values = load_values;
  t.multiply_and_invert = multiply_and_invert<Word>;
  composed::fill<Word, table<Word>>(&t);
  t.add = add<Word>;
  t.hop = hop<Word>;
  t.tag = tag<Word>;
  return t;
}

}  // namespace

template <class Word>
const KernelTable<Word>& table() {
  static constexpr KernelTable<Word> kTable = make_table<Word>();
  return kTable;
}

template const KernelTable<std::uint32_t>& table<std::uint32_t>();
template const KernelTable<std::uint64_t>& table<std::uint64_t>();

}  // namespace pppml::kernels::scalar
