#include "kernels/avx2/table.hpp"

#include <algorithm>

#include "kernels/avx2/codec32.hpp"
#include "kernels/avx2/embedding.hpp"
#include "kernels/avx2/encrypt.hpp"
#include "kernels/avx2/opening.hpp"
#include "kernels/avx2/streams.hpp"
#include "kernels/avx2/transform.hpp"
#include "kernels/composed.hpp"
#include "kernels/scalar/fused.hpp"

namespace pppml::kernels::avx2 {
namespace {

void forward_ntt(const Prime32& prime, unsigned log_degree, Word* values) {
  if (log_degree < kSmallestLogDegree) return scalar::table<Word>().forward_ntt(prime, log_degree, values);
  const ColumnRoots roots(prime, log_degree, ColumnRoots::Direction::kForward);
  SecretBuffer<Word> columns(roots.degree());
  std::copy(values, values + roots.degree(), columns.data());
  forward_to_columns(roots, columns.data());
  for (std::size_t k = 0; k < roots.degree(); k += kBatchWords) columns_to_rows(columns.data() + k, values + k);
}

void inverse_ntt(const Prime32& prime, unsigned log_degree, Word* values) {
  if (log_degree < kSmallestLogDegree) return scalar::table<Word>().inverse_ntt(prime, log_degree, values);
  const ColumnRoots roots(prime, log_degree, ColumnRoots::Direction::kInverse);
  const ColumnFactor scale(roots.degree(), prime.inverse_degree, prime.inverse_degree_companion);
  SecretBuffer<Word> columns(roots.degree()), scratch(kBatchWords);
  for (std::size_t k = 0; k < roots.degree(); k += kBatchWords) rows_to_columns(values + k, columns.data() + k);
  multiply_and_invert(roots, scale, columns.data(), scratch.data(), values);
}

void add(const AddRequest<Word>& request) {
  const Ring32& ring = *request.ring;
  for (std::size_t b = 0; b < request.batch.blocks; ++b) {
    const std::size_t length = row_length(ring, request.batch, b);
    for (std::size_t l = 0; l < ring.prime_count; ++l) {
      const Vector q = broadcast(ring.primes[l].modulus);
      const std::size_t start = block_offset(ring, b) + l * length;
      for_lanes(length, [&](std::size_t k, auto lanes) {
        Vector sum = load(request.inputs[0] + start + k, lanes);
        for (std::size_t i = 1; i < request.count; ++i) {
          sum = add_mod(sum, load(request.inputs[i] + start + k, lanes), q);
        }
        store(request.out + start + k, lanes, sum);
      });
    }
  }
}

bool hop(const HopRequest<Word>& request) {
  const Ring32& ring = *request.ring;
  Buffer<Word> row(ring.degree());
  std::size_t at = 0;
  for (std::size_t b = 0; b < request.batch.blocks; ++b) {
    const std::size_t length = row_length(ring, request.batch, b);
    for (std::size_t l = 0; l < ring.prime_count; ++l) {
      const Prime32& prime = ring.primes[l];
      const Vector q = broadcast(prime.modulus);
      const Word* mine = request.mine + block_offset(ring, b) + l * length;
      if (!unpack_row(prime, request.in + at, length, row.data())) return false;
      for_lanes(length, [&](std::size_t k, auto lanes) {
        store(row.data() + k, lanes, add_mod(load(row.data() + k, lanes), load(mine + k, lanes), q));
      });
      pack_row(prime, row.data(), length, request.out + at);
      at += packed_row_bytes(prime, length);
    }
  }
  return true;
}

// What does not depend on the width of residues, over the scalar functions.
template <class AnyWord>
KernelTable<AnyWord> common_table() {
  KernelTable<AnyWord> t = scalar::table<AnyWord>();
  t.name = "avx2";
  t.private_cipher = StreamCipher::kAes256;
  t.stream = stream;
  t.gaussian = gaussian;
  t.ternary = ternary;
  t.quantize = quantize;
  t.embed = embed;
  t.unembed = unembed;
  return t;
}

KernelTable<Word> make_table() {
  KernelTable<Word> t = common_table<Word>();
  t.forward_ntt = forward_ntt;
  t.inverse_ntt = inverse_ntt;
  t.uniform = uniform;
  t.pack_row = pack_row;
  t.unpack_row = unpack_row;
  t.make_pads = make_pads;
  t.encrypt = encrypt;
  t.encrypt_prepared = encrypt_prepared;
  t.encrypt_public = encrypt_public;
  t.add = add;
  t.hop = hop;
  t.open = open;
  return t;
}

}  // namespace

bool supported() {
  return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("aes") != 0;
}

template <>
const KernelTable<std::uint32_t>& table() {
  static const KernelTable<std::uint32_t> kTable = make_table();
  return kTable;
}

template <>
const KernelTable<std::uint64_t>& table() {
  static const KernelTable<std::uint64_t> kTable = [] {
    KernelTable<std::uint64_t> t = common_table<std::uint64_t>();
    composed::fill<std::uint64_t, table<std::uint64_t>>(&t);
    return t;
  }();
  return kTable;
}

}  // namespace pppml::kernels::avx2
