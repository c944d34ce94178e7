#include "kernels/scalar/fused.hpp"

#include <algorithm>
#include <cstring>

#include "base/buffer.hpp"
#include "base/modular.hpp"
#include "kernels/embedding.hpp"
#include "kernels/messages.hpp"
#include "kernels/rows.hpp"
#include "kernels/scalar/codec.hpp"
#include "kernels/scalar/ntt.hpp"
#include "kernels/scalar/opening.hpp"
#include "kernels/scalar/stream.hpp"

namespace pppml::kernels::scalar {
namespace {

template <class Word>
void multiply_and_invert(const RingTable<Word>& ring, std::size_t l, const Multiplier<Word>& factor, Word* row) {
  const std::size_t degree = ring.degree();
  multiply_rows(ring.primes[l], degree, factor.values + l * degree, factor.companions + l * degree, row);
  inverse_ntt_unscaled(ring.primes[l], ring.log_degree, row);
}

// One block of pads, its rows of `length` residues without gaps.
template <class Word>
void make_pad(const PadRequest<Word>& request, std::size_t b, Word* row, std::int32_t* error, Word* out) {
  const RingTable<Word>& ring = *request.ring;
  const std::uint64_t block = request.batch.first_block + b;
  const std::size_t length = row_length(ring, request.batch, b);
  gaussian(*request.error, request.noise, Lane::kError0, block, ring.degree(), error);
  for (std::size_t l = 0; l < ring.prime_count; ++l, out += length) {
    const PrimeTable<Word>& prime = ring.primes[l];
    uniform(prime, ring.log_degree, request.public_key, static_cast<std::uint32_t>(l), block, row);
    multiply_and_invert(ring, l, request.secret, row);
    for (std::size_t k = 0; k < length; ++k) out[k] = subtract_mod<Word>(0, row[k], prime.modulus);
    add_signed(prime, error, length, out);
  }
}

template <class Word>
void make_pads(const PadRequest<Word>& request, Word* out) {
  SecretBuffer<Word> row(request.ring->degree());
  SecretBuffer<std::int32_t> error(request.ring->degree());
  for (std::size_t b = 0; b < request.batch.blocks; ++b) {
    make_pad(request, b, row.data(), error.data(), out + block_offset(*request.ring, b));
  }
}

template <class Word>
bool encrypt_prepared(const Word* pads, const MessageRequest<Word>& request) {
  MessageAdder<Word> adder(request, table<Word>());
  for (std::size_t b = 0; b < request.batch.blocks; ++b) {
    if (!adder.write(b, pads + block_offset(*request.ring, b))) return false;
  }
  return true;
}

template <class Word>
bool encrypt(const PadRequest<Word>& pads, const MessageRequest<Word>& request) {
  const RingTable<Word>& ring = *request.ring;
  MessageAdder<Word> adder(request, table<Word>());
  SecretBuffer<Word> row(ring.degree()), pad(ring.block_words());
  SecretBuffer<std::int32_t> error(ring.degree());
  for (std::size_t b = 0; b < request.batch.blocks; ++b) {
    make_pad(pads, b, row.data(), error.data(), pad.data());
    if (!adder.write(b, pad.data())) return false;
  }
  return true;
}

template <class Word>
void encrypt_public(const PublicEncryptRequest<Word>& request) {
  const RingTable<Word>& ring = *request.message.ring;
  const Batch& batch = request.message.batch;
  const std::size_t degree = ring.degree();
  MessageAdder<Word> adder(request.message, table<Word>());
  RowWriter<Word> out1(request.out1, pack_row<Word>);
  SecretBuffer<Word> row(degree), base(ring.block_words());
  SecretBuffer<std::int32_t> ephemeral(degree), error(degree);
  for (std::size_t b = 0; b < batch.blocks; ++b) {
    const std::uint64_t block = batch.first_block + b;
    ternary(request.noise, Lane::kEphemeral, block, degree, ephemeral.data());
    for (unsigned part = 0; part < 2; ++part) {
      const Multiplier<Word>& factor = part == 0 ? request.public0 : request.public1;
      const std::size_t length = part == 0 ? row_length(ring, batch, b) : degree;
      gaussian(*request.error, request.noise, part == 0 ? Lane::kError0 : Lane::kError1, block, degree, error.data());
      for (std::size_t l = 0; l < ring.prime_count; ++l) {
        std::fill(row.begin(), row.end(), Word{0});
        add_signed(ring.primes[l], ephemeral.data(), degree, row.data());
        forward_ntt(ring.primes[l], ring.log_degree, row.data());
        multiply_and_invert(ring, l, factor, row.data());
        Word* target = part == 0 ? base.data() + l * length : out1.target(row.data());
        if (target != row.data()) std::copy(row.data(), row.data() + length, target);
        add_signed(ring.primes[l], error.data(), length, target);
        if (part == 1) out1.finish(ring.primes[l], length, target);
      }
    }
    adder.write(b, base.data());
  }
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

// c0 + INTT(c1 * s) of row l of block b; false on an invalid residue.
template <class Word>
bool phase_row(const OpenRequest<Word>& request, std::size_t b, std::size_t l, RowReader<Word>& c0, RowReader<Word>& c1,
               Word* scratch, Word* row) {
  const RingTable<Word>& ring = *request.ring;
  const PrimeTable<Word>& prime = ring.primes[l];
  if (request.c1.given()) {
    const Word* second = c1.next(prime, ring.degree(), scratch);
    if (second == nullptr) return false;
    std::copy(second, second + ring.degree(), row);
    forward_ntt(prime, ring.log_degree, row);
  } else {
    uniform(prime, ring.log_degree, request.public_key, static_cast<std::uint32_t>(l), request.batch.first_block + b,
            row);
  }
  multiply_and_invert(ring, l, request.secret, row);
  const std::size_t length = row_length(ring, request.batch, b);
  const Word* first = c0.next(prime, length, scratch);
  if (first == nullptr) return false;
  for (std::size_t k = 0; k < length; ++k) row[k] = add_mod(row[k], first[k], prime.modulus);
  return true;
}

template <class Word>
void open(const OpenRequest<Word>& request) {
  const RingTable<Word>& ring = *request.ring;
  const std::size_t degree = ring.degree();
  SecretBuffer<Word> rows(2 * degree), scratch(degree);
  SecretBuffer<std::int64_t> coefficients(degree);
  RowReader<Word> c0(request.c0, unpack_row<Word>), c1(request.c1, unpack_row<Word>);
  for (std::size_t b = 0; b < request.batch.blocks; ++b) {
    const std::size_t length = row_length(ring, request.batch, b);
    for (std::size_t l = 0; l < ring.prime_count; ++l) {
      if (!phase_row(request, b, l, c0, c1, scratch.data(), rows.data() + l * degree)) {
        request.report->invalid_residue = true;
        return;
      }
    }
    round_phases(request, b, length, rows.data(), coefficients.data());
    store_values(request.out, degree * request.out.values_per_coefficient, b, length, coefficients.data());
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
  t.make_pads = make_pads<Word>;
  t.encrypt = encrypt<Word>;
  t.encrypt_prepared = encrypt_prepared<Word>;
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
