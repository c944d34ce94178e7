#include "kernels/scalar/fused.hpp"

#include <algorithm>
#include <cstring>

#include "base/buffer.hpp"
#include "base/modular.hpp"
#include "kernels/scalar/codec.hpp"
#include "kernels/scalar/ntt.hpp"
#include "kernels/scalar/opening.hpp"
#include "kernels/scalar/stream.hpp"

namespace pppml::kernels::scalar {
namespace {

// Bytes of one packed row.
template <class Word>
std::size_t packed_row_bytes(const PrimeTable<Word>& prime, std::size_t count) {
  return (count * prime.bits + 7) / 8;
}

// out[k] += small[k] mod q for a signed integer vector
template <class Word, class Int>
void add_signed(const PrimeTable<Word>& prime, const Int* small, std::size_t count, Word* out) {
  for (std::size_t k = 0; k < count; ++k) {
    const Word residue = reduce_signed<Word>(small[k], prime.modulus, prime.ratio, prime.lift);
    out[k] = add_mod(out[k], residue, prime.modulus);
  }
}

template <class Word>
void multiply_and_invert(const RingTable<Word>& ring, std::size_t l, const Multiplier<Word>& factor, Word* row) {
  const std::size_t degree = ring.degree();
  multiply_rows(ring.primes[l], degree, factor.values + l * degree, factor.companions + l * degree, row);
  inverse_ntt_unscaled(ring.primes[l], ring.log_degree, row);
}

template <class Word>
void make_pads(const PadRequest<Word>& request) {
  const RingTable<Word>& ring = *request.ring;
  const std::size_t degree = ring.degree();
  SecretBuffer<Word> row(degree);
  SecretBuffer<std::int32_t> error(degree);
  for (std::size_t b = 0; b < request.batch.blocks; ++b) {
    const std::uint64_t block = request.batch.first_block + b;
    const std::size_t length = row_length(ring, request.batch, b);
    gaussian(*request.error, request.private_key, Lane::kError0, block, degree, error.data());
    for (std::size_t l = 0; l < ring.prime_count; ++l) {
      const PrimeTable<Word>& prime = ring.primes[l];
      uniform(prime, ring.log_degree, request.public_key, static_cast<std::uint32_t>(l), block, row.data());
      multiply_and_invert(ring, l, request.secret, row.data());
      Word* out = request.out + block_offset(ring, b) + l * length;
      for (std::size_t k = 0; k < length; ++k) out[k] = subtract_mod<Word>(0, row[k], prime.modulus);
      add_signed(prime, error.data(), length, out);
    }
  }
}

// Message coefficients of one block, already times delta; zero where the tensors have ended.
template <class Word>
void encode_block(const MessageRequest<Word>& request, std::uint64_t block, std::size_t length,
                  SecretBuffer<std::int64_t>& values, std::int64_t* message) {
  const Codec& codec = *request.codec;
  const std::size_t per_coefficient = codec.values_per_coefficient;
  const std::size_t first = block * request.ring->degree() * per_coefficient;
  std::fill(values.begin(), values.end(), 0);
  quantize(codec, request.tensors, first, length * per_coefficient, values.data(), request.report);
  for (std::size_t k = 0; k < length; ++k) {
    std::int64_t m = 0;
    for (std::size_t t = per_coefficient; t-- > 0;) m = m * codec.base + values[t * length + k];
    message[k] = m * codec.delta;
  }
}

template <class Word>
void add_message(const MessageRequest<Word>& request) {
  const RingTable<Word>& ring = *request.ring;
  SecretBuffer<std::int64_t> values(ring.degree() * request.codec->values_per_coefficient);
  SecretBuffer<std::int64_t> message(ring.degree());
  for (std::size_t b = 0; b < request.batch.blocks; ++b) {
    const std::size_t length = row_length(ring, request.batch, b);
    encode_block(request, request.batch.first_block + b, length, values, message.data());
    for (std::size_t l = 0; l < ring.prime_count; ++l) {
      add_signed(ring.primes[l], message.data(), length, request.out + block_offset(ring, b) + l * length);
    }
  }
}

template <class Word>
void encrypt(const PadRequest<Word>& pads, const MessageRequest<Word>& message) {
  make_pads(pads);
  add_message(message);
}

template <class Word>
void encrypt_public(const PublicEncryptRequest<Word>& request) {
  const RingTable<Word>& ring = *request.message.ring;
  const std::size_t degree = ring.degree();
  SecretBuffer<Word> row(degree);
  SecretBuffer<std::int32_t> ephemeral(degree), error(degree);
  for (std::size_t b = 0; b < request.message.batch.blocks; ++b) {
    const std::uint64_t block = request.message.batch.first_block + b;
    ternary(request.private_key, Lane::kEphemeral, block, degree, ephemeral.data());
    for (unsigned part = 0; part < 2; ++part) {
      const Multiplier<Word>& factor = part == 0 ? request.public0 : request.public1;
      const std::size_t length = part == 0 ? row_length(ring, request.message.batch, b) : degree;
      Word* out = (part == 0 ? request.message.out : request.out1) + block_offset(ring, b);
      gaussian(*request.error, request.private_key, part == 0 ? Lane::kError0 : Lane::kError1, block, degree,
               error.data());
      for (std::size_t l = 0; l < ring.prime_count; ++l) {
        std::fill(row.begin(), row.end(), Word{0});
        add_signed(ring.primes[l], ephemeral.data(), degree, row.data());
        forward_ntt(ring.primes[l], ring.log_degree, row.data());
        multiply_and_invert(ring, l, factor, row.data());
        std::copy(row.data(), row.data() + length, out + l * length);
        add_signed(ring.primes[l], error.data(), length, out + l * length);
      }
    }
  }
  add_message(request.message);
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

template <class Word>
void phase_row(const OpenRequest<Word>& request, std::size_t b, std::size_t l, Word* row) {
  const RingTable<Word>& ring = *request.ring;
  const PrimeTable<Word>& prime = ring.primes[l];
  if (request.c1 == nullptr) {
    uniform(prime, ring.log_degree, request.public_key, static_cast<std::uint32_t>(l), request.batch.first_block + b,
            row);
  } else {
    const Word* c1 = request.c1 + block_offset(ring, b) + l * ring.degree();
    std::copy(c1, c1 + ring.degree(), row);
    forward_ntt(prime, ring.log_degree, row);
  }
  multiply_and_invert(ring, l, request.secret, row);
  const std::size_t length = row_length(ring, request.batch, b);
  const Word* c0 = request.c0 + block_offset(ring, b) + l * length;
  for (std::size_t k = 0; k < length; ++k) row[k] = add_mod(row[k], c0[k], prime.modulus);
}

template <class Word>
void open(const OpenRequest<Word>& request) {
  const RingTable<Word>& ring = *request.ring;
  const std::size_t degree = ring.degree();
  SecretBuffer<Word> rows(2 * degree);
  std::int64_t* out = request.out;
  for (std::size_t b = 0; b < request.batch.blocks; ++b) {
    const std::size_t length = row_length(ring, request.batch, b);
    for (std::size_t l = 0; l < ring.prime_count; ++l) phase_row(request, b, l, rows.data() + l * degree);
    round_phases(request, b, length, rows.data(), out);
    out += length;
  }
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
  t.forward_ntt = forward_ntt<Word>;
  t.inverse_ntt = inverse_ntt<Word>;
  t.stream = stream;
  t.uniform = uniform<Word>;
  t.gaussian = gaussian;
  t.ternary = ternary;
  t.quantize = quantize;
  t.restore = restore;
  t.pack_row = pack_row<Word>;
  t.unpack_row = unpack_row<Word>;
  t.make_pads = make_pads<Word>;
  t.encrypt = encrypt<Word>;
  t.add_message = add_message<Word>;
  t.encrypt_public = encrypt_public<Word>;
  t.add = add<Word>;
  t.hop = hop<Word>;
  t.open = open<Word>;
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
