// The fused operations composed from the primitives of a table: what a backend takes for rings that it has no fused
// code for, so that its samplers, transforms and quantiser serve them all the same. With the scalar primitives it is
// the oracle.
#pragma once

#include <algorithm>

#include "base/buffer.hpp"
#include "base/modular.hpp"
#include "kernels/contract.hpp"
#include "kernels/messages.hpp"
#include "kernels/rows.hpp"
#include "kernels/scalar/opening.hpp"

namespace pppml::kernels::composed {
PPPML_ISA_BEGIN

template <class Word>
using TableOf = const KernelTable<Word>& (*)();

template <class Word, TableOf<Word> kTable>
void multiply_and_invert(const RingTable<Word>& ring, std::size_t l, const Multiplier<Word>& factor, Word* row) {
  const std::size_t at = l * ring.degree();
  kTable().multiply_and_invert(ring.primes[l], ring.log_degree, {factor.values + at, factor.companions + at}, row);
}

// One block of pads, its rows of `length` residues without gaps.
template <class Word, TableOf<Word> kTable>
void make_pad(const PadRequest<Word>& request, std::size_t b, Word* row, std::int32_t* error, Word* out) {
  const RingTable<Word>& ring = *request.ring;
  const std::uint64_t block = request.batch.first_block + b;
  const std::size_t length = row_length(ring, request.batch, b);
  kTable().gaussian(*request.error, request.noise, Lane::kError0, block, ring.degree(), error);
  for (std::size_t l = 0; l < ring.prime_count; ++l, out += length) {
    const PrimeTable<Word>& prime = ring.primes[l];
    kTable().uniform(prime, ring.log_degree, request.public_key, static_cast<std::uint32_t>(l), block, row);
    multiply_and_invert<Word, kTable>(ring, l, request.secret, row);
    for (std::size_t k = 0; k < length; ++k) out[k] = subtract_mod<Word>(0, row[k], prime.modulus);
    add_signed(prime, error, length, out);
  }
}

template <class Word, TableOf<Word> kTable>
void make_pads(const PadRequest<Word>& request, Word* out) {
  SecretBuffer<Word> row(request.ring->degree());
  SecretBuffer<std::int32_t> error(request.ring->degree());
  for (std::size_t b = 0; b < request.batch.blocks; ++b) {
    make_pad<Word, kTable>(request, b, row.data(), error.data(), out + block_offset(*request.ring, b));
  }
}

template <class Word, TableOf<Word> kTable>
bool encrypt_prepared(const Word* pads, const MessageRequest<Word>& request) {
  MessageAdder<Word> adder(request, kTable());
  for (std::size_t b = 0; b < request.batch.blocks; ++b) {
    if (!adder.write(b, pads + block_offset(*request.ring, b))) return false;
  }
  return true;
}

template <class Word, TableOf<Word> kTable>
bool encrypt(const PadRequest<Word>& pads, const MessageRequest<Word>& request) {
  const RingTable<Word>& ring = *request.ring;
  MessageAdder<Word> adder(request, kTable());
  SecretBuffer<Word> row(ring.degree()), pad(ring.block_words());
  SecretBuffer<std::int32_t> error(ring.degree());
  for (std::size_t b = 0; b < request.batch.blocks; ++b) {
    make_pad<Word, kTable>(pads, b, row.data(), error.data(), pad.data());
    if (!adder.write(b, pad.data())) return false;
  }
  return true;
}

template <class Word, TableOf<Word> kTable>
void encrypt_public(const PublicEncryptRequest<Word>& request) {
  const RingTable<Word>& ring = *request.message.ring;
  const Batch& batch = request.message.batch;
  const std::size_t degree = ring.degree();
  MessageAdder<Word> adder(request.message, kTable());
  RowWriter<Word> out1(request.out1, kTable().pack_row);
  SecretBuffer<Word> row(degree), base(ring.block_words());
  SecretBuffer<std::int32_t> ephemeral(degree), error(degree);
  for (std::size_t b = 0; b < batch.blocks; ++b) {
    const std::uint64_t block = batch.first_block + b;
    kTable().ternary(request.noise, Lane::kEphemeral, block, degree, ephemeral.data());
    for (unsigned part = 0; part < 2; ++part) {
      const Multiplier<Word>& factor = part == 0 ? request.public0 : request.public1;
      const std::size_t length = part == 0 ? row_length(ring, batch, b) : degree;
      kTable().gaussian(*request.error, request.noise, part == 0 ? Lane::kError0 : Lane::kError1, block, degree,
                        error.data());
      for (std::size_t l = 0; l < ring.prime_count; ++l) {
        std::fill(row.begin(), row.end(), Word{0});
        add_signed(ring.primes[l], ephemeral.data(), degree, row.data());
        kTable().forward_ntt(ring.primes[l], ring.log_degree, row.data());
        multiply_and_invert<Word, kTable>(ring, l, factor, row.data());
        Word* target = part == 0 ? base.data() + l * length : out1.target(row.data());
        if (target != row.data()) std::copy(row.data(), row.data() + length, target);
        add_signed(ring.primes[l], error.data(), length, target);
        if (part == 1) out1.finish(ring.primes[l], length, target);
      }
    }
    adder.write(b, base.data());
  }
}

// c0 + INTT(c1 * s) of row l of block b; false on an invalid residue.
template <class Word, TableOf<Word> kTable>
bool phase_row(const OpenRequest<Word>& request, std::size_t b, std::size_t l, RowReader<Word>& c0, RowReader<Word>& c1,
               Word* scratch, Word* row) {
  const RingTable<Word>& ring = *request.ring;
  const PrimeTable<Word>& prime = ring.primes[l];
  if (request.c1.given()) {
    const Word* second = c1.next(prime, ring.degree(), scratch);
    if (second == nullptr) return false;
    std::copy(second, second + ring.degree(), row);
    kTable().forward_ntt(prime, ring.log_degree, row);
  } else {
    kTable().uniform(prime, ring.log_degree, request.public_key, static_cast<std::uint32_t>(l),
                     request.batch.first_block + b, row);
  }
  multiply_and_invert<Word, kTable>(ring, l, request.secret, row);
  const std::size_t length = row_length(ring, request.batch, b);
  const Word* first = c0.next(prime, length, scratch);
  if (first == nullptr) return false;
  for (std::size_t k = 0; k < length; ++k) row[k] = add_mod(row[k], first[k], prime.modulus);
  return true;
}

template <class Word, TableOf<Word> kTable>
void open(const OpenRequest<Word>& request) {
  const RingTable<Word>& ring = *request.ring;
  const std::size_t degree = ring.degree();
  SecretBuffer<Word> rows(2 * degree), scratch(degree);
  SecretBuffer<std::int64_t> coefficients(degree);
  RowReader<Word> c0(request.c0, kTable().unpack_row), c1(request.c1, kTable().unpack_row);
  for (std::size_t b = 0; b < request.batch.blocks; ++b) {
    const std::size_t length = row_length(ring, request.batch, b);
    for (std::size_t l = 0; l < ring.prime_count; ++l) {
      if (!phase_row<Word, kTable>(request, b, l, c0, c1, scratch.data(), rows.data() + l * degree)) {
        request.report->invalid_residue = true;
        return;
      }
    }
    scalar::round_phases(request, b, length, rows.data(), coefficients.data());
    scalar::store_values(request.out, degree * request.out.values_per_coefficient, b, length, coefficients.data());
  }
}

// Takes all of the above into a table.
template <class Word, TableOf<Word> kTable>
constexpr void fill(KernelTable<Word>* table) {
  table->make_pads = make_pads<Word, kTable>;
  table->encrypt = encrypt<Word, kTable>;
  table->encrypt_prepared = encrypt_prepared<Word, kTable>;
  table->encrypt_public = encrypt_public<Word, kTable>;
  table->open = open<Word, kTable>;
}

PPPML_ISA_END
}  // namespace pppml::kernels::composed
