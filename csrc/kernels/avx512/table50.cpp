#include <algorithm>
#include <optional>

#include "base/buffer.hpp"
#include "kernels/avx512/embedding.hpp"
#include "kernels/avx512/encryption50.hpp"
#include "kernels/avx512/gaussian.hpp"
#include "kernels/avx512/ifma/ntt50.hpp"
#include "kernels/avx512/ifma/product50.hpp"
#include "kernels/avx512/opening50.hpp"
#include "kernels/avx512/packing50.hpp"
#include "kernels/avx512/quantizer.hpp"
#include "kernels/avx512/rings50.hpp"
#include "kernels/avx512/streams.hpp"
#include "kernels/avx512/sums50.hpp"
#include "kernels/avx512/table.hpp"
#include "kernels/avx512/tags.hpp"
#include "kernels/avx512/vaes.hpp"
#include "kernels/composed.hpp"
#include "kernels/rows.hpp"
#include "kernels/scalar/fused.hpp"
#include "kernels/scalar/opening.hpp"
#include "kernels/scalar/stream.hpp"

namespace pppml::kernels::avx512 {
namespace {

using Word = std::uint64_t;
using Ring64 = RingTable<Word>;
using ifma::Prime64;

const KernelTable<Word>& portable() {
  return scalar::table<Word>();
}

void forward_ntt(const Prime64& prime, unsigned log_degree, Word* values) {
  if (declined(prime, log_degree)) return portable().forward_ntt(prime, log_degree, values);
  ifma::forward_ntt(prime, log_degree, values);
}

void inverse_ntt(const Prime64& prime, unsigned log_degree, Word* values) {
  if (declined(prime, log_degree)) return portable().inverse_ntt(prime, log_degree, values);
  ifma::inverse_ntt(prime, log_degree, values);
}

void multiply_and_invert(const Prime64& prime, unsigned log_degree, const Multiplier<Word>& factor, Word* row) {
  if (declined(prime, log_degree)) return portable().multiply_and_invert(prime, log_degree, factor, row);
  ifma::multiply_and_invert(prime, log_degree, factor, row);
  const __m512i q = _mm512_set1_epi64(static_cast<long long>(prime.modulus));
  for (std::size_t k = 0; k < std::size_t{1} << log_degree; k += 8) {
    const __m512i x = _mm512_loadu_si512(row + k);  // [0, 2 q)
    _mm512_storeu_si512(row + k, _mm512_min_epu64(x, _mm512_sub_epi64(x, q)));
  }
}

void uniform(const Prime64& prime, unsigned log_degree, const std::uint8_t* key, std::uint32_t selector,
             std::uint64_t block, Word* out) {
  if (declined(prime, log_degree) || !wide_candidates(prime)) {
    return scalar::uniform(prime, log_degree, key, selector, block, out);
  }
  ifma::uniform(prime, log_degree, key, selector, block, out);
}

// INTT(c1 * s), block by block.
class Products {
 public:
  explicit Products(const OpenRequest<Word>& request)
      : request_(request), prime_(request.ring->primes[0]), c1_(request.c1, unpack_row) {
    if (!request.c1.given()) {
      product_.emplace(prime_, request.ring->log_degree, 0, request.secret, request.public_key);
    }
  }

  // Into `row`, in [0, 2 q); false on an invalid residue.
  bool write(std::size_t b, Word* row) {
    const std::size_t degree = request_.ring->degree();
    if (product_) {
      product_->write(request_.batch.first_block + b, row);
      return true;
    }
    const Word* c1 = c1_.next(prime_, degree, row);
    if (c1 == nullptr) return false;
    if (c1 != row) std::copy(c1, c1 + degree, row);
    ifma::forward_ntt(prime_, request_.ring->log_degree, row);
    ifma::multiply_and_invert(prime_, request_.ring->log_degree, request_.secret, row);
    return true;
  }

 private:
  const OpenRequest<Word>& request_;
  const Prime64& prime_;
  RowReader<Word> c1_;
  std::optional<ifma::ProductMaker> product_;
};

void open(const OpenRequest<Word>& request) {
  const Ring64& ring = *request.ring;
  if (declined(ring) || !rounds50(request)) return composed::open<Word, table<Word>>(request);
  SecretBuffer<Word> row(ring.degree()), scratch(ring.degree());
  SecretBuffer<std::int64_t> coefficients(ring.degree());
  Products products(request);
  RowReader<Word> c0_rows(request.c0, unpack_row);
  for (std::size_t b = 0; b < request.batch.blocks; ++b) {
    const std::size_t length = row_length(ring, request.batch, b);
    const Word* c0 = products.write(b, row.data()) ? c0_rows.next(ring.primes[0], length, scratch.data()) : nullptr;
    if (c0 == nullptr) {
      request.report->invalid_residue = true;
      return;
    }
    round_phases50(request, b, length, row.data(), c0, coefficients.data());
    store_values50(request.out, ring.degree() * request.out.values_per_coefficient, b, length, coefficients.data());
  }
}

void tag(const TagRequest<Word>& request) {
  for (unsigned l = 0; l < request.ring->prime_count; ++l) {
    if (request.ring->primes[l].bits > ifma::kMaxPrimeBits) return portable().tag(request);
  }
  tag50(request);
}

KernelTable<Word> make_table() {
  KernelTable<Word> t = portable();
  t.name = "avx512";
  t.private_cipher = vaes_supported() ? StreamCipher::kAes256 : StreamCipher::kChaCha20;
  t.stream = stream;
  t.gaussian = gaussian;
  t.ternary = ternary;
  t.quantize = quantize;
  t.pack_row = pack_row;
  t.unpack_row = unpack_row;
  t.embed = embed;
  t.unembed = unembed;
  t.add = add;
  t.hop = hop;
  composed::fill<Word, table<Word>>(&t);
  if (__builtin_cpu_supports("avx512ifma") == 0) return t;
  t.multiply_and_invert = multiply_and_invert;
  t.forward_ntt = forward_ntt;
  t.inverse_ntt = inverse_ntt;
  t.uniform = uniform;
  t.make_pads = make_pads;
  t.encrypt = encrypt;
  t.encrypt_prepared = encrypt_prepared;
  t.encrypt_public = encrypt_public;
  t.open = open;
  t.tag = tag;
  return t;
}

}  // namespace

template <>
const KernelTable<Word>& table() {
  static const KernelTable<Word> kTable = make_table();
  return kTable;
}

}  // namespace pppml::kernels::avx512
