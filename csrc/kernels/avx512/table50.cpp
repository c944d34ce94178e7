#include "kernels/avx512/codec50.hpp"
#include "kernels/avx512/ifma/ntt50.hpp"
#include "kernels/avx512/ifma/product50.hpp"
#include "kernels/avx512/streams.hpp"
#include "kernels/avx512/table.hpp"
#include "kernels/scalar/fused.hpp"
#include "kernels/scalar/stream.hpp"

namespace pppml::kernels::avx512 {
namespace {

using Word = std::uint64_t;
using ifma::Prime64;

bool declined(const Prime64& prime, unsigned log_degree) {
  return prime.bits > ifma::kMaxPrimeBits || log_degree < ifma::kMinLogDegree;
}

void forward_ntt(const Prime64& prime, unsigned log_degree, Word* values) {
  if (declined(prime, log_degree)) return scalar::table<Word>().forward_ntt(prime, log_degree, values);
  ifma::forward_ntt(prime, log_degree, values);
}

void inverse_ntt(const Prime64& prime, unsigned log_degree, Word* values) {
  if (declined(prime, log_degree)) return scalar::table<Word>().inverse_ntt(prime, log_degree, values);
  ifma::inverse_ntt(prime, log_degree, values);
}

// Candidates of primes below 2^31 are 32-bit words, also where their residues are held in 64.
bool wide_candidates(const Prime64& prime) {
  return prime.bits > 31;
}

void uniform(const Prime64& prime, unsigned log_degree, const std::uint8_t* key, std::uint32_t selector,
             std::uint64_t block, Word* out) {
  if (declined(prime, log_degree) || !wide_candidates(prime)) {
    return scalar::uniform(prime, log_degree, key, selector, block, out);
  }
  ifma::uniform(prime, log_degree, key, selector, block, out);
}

KernelTable<Word> make_table() {
  KernelTable<Word> t = scalar::table<Word>();
  t.name = "avx512";
  t.stream = stream;
  t.gaussian = gaussian;
  t.ternary = ternary;
  t.pack_row = pack_row;
  t.unpack_row = unpack_row;
  if (__builtin_cpu_supports("avx512ifma") == 0) return t;
  t.forward_ntt = forward_ntt;
  t.inverse_ntt = inverse_ntt;
  t.uniform = uniform;
  return t;
}

}  // namespace

template <>
const KernelTable<Word>& table() {
  static const KernelTable<Word> kTable = make_table();
  return kTable;
}

}  // namespace pppml::kernels::avx512
