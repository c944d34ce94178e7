#include "kernels/avx512/table.hpp"

#include "kernels/avx512/embedding.hpp"
#include "kernels/avx512/encryption32.hpp"
#include "kernels/avx512/expansion32.hpp"
#include "kernels/avx512/opening32.hpp"
#include "kernels/avx512/packing32.hpp"
#include "kernels/avx512/quantizer.hpp"
#include "kernels/avx512/streams.hpp"
#include "kernels/avx512/sums32.hpp"
#include "kernels/avx512/tags.hpp"
#include "kernels/avx512/transform32.hpp"
#include "kernels/avx512/vaes.hpp"
#include "kernels/composed.hpp"
#include "kernels/scalar/fused.hpp"

namespace pppml::kernels::avx512 {
namespace {

using Word = std::uint32_t;

bool too_small(unsigned log_degree) {
  return log_degree < kSmallestLogDegree;
}

void checked_inverse_ntt(const Prime32& prime, unsigned log_degree, Word* values) {
  if (too_small(log_degree)) return scalar::table<Word>().inverse_ntt(prime, log_degree, values);
  inverse_ntt(prime, log_degree, values);
}

void checked_forward_ntt(const Prime32& prime, unsigned log_degree, Word* values) {
  if (too_small(log_degree)) return scalar::table<Word>().forward_ntt(prime, log_degree, values);
  forward_ntt(prime, log_degree, values);
}

// Messages are reduced modulo one prime, or modulo two whose product bounds them (messages32.cpp).
bool many_primes(const RingTable<Word>& ring) {
  return ring.prime_count > 2;
}

bool checked_encrypt(const PadRequest<Word>& pads, const MessageRequest<Word>& message) {
  return (many_primes(*message.ring) ? composed::encrypt<Word, table<Word>> : encrypt)(pads, message);
}

bool checked_encrypt_prepared(const Word* pads, const MessageRequest<Word>& message) {
  return (many_primes(*message.ring) ? composed::encrypt_prepared<Word, table<Word>> : encrypt_prepared)(pads, message);
}

void checked_encrypt_public(const PublicEncryptRequest<Word>& request) {
  (many_primes(*request.message.ring) ? composed::encrypt_public<Word, table<Word>> : encrypt_public)(request);
}

KernelTable<Word> make_table() {
  KernelTable<Word> t = scalar::table<Word>();
  t.name = "avx512";
  t.private_cipher = vaes_supported() ? StreamCipher::kAes256 : StreamCipher::kChaCha20;
  t.forward_ntt = checked_forward_ntt;
  t.inverse_ntt = checked_inverse_ntt;
  t.stream = stream;
  t.uniform = uniform;
  t.gaussian = gaussian;
  t.ternary = ternary;
  t.quantize = quantize;
  t.pack_row = pack_row;
  t.unpack_row = unpack_row;
  t.embed = embed;
  t.unembed = unembed;
  t.make_pads = make_pads;
  t.encrypt = checked_encrypt;
  t.encrypt_prepared = checked_encrypt_prepared;
  t.encrypt_public = checked_encrypt_public;
  t.add = add;
  t.hop = hop;
  t.open = open;
  t.tag = tag;
  return t;
}

}  // namespace

bool supported() {
  return __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
         __builtin_cpu_supports("avx512dq") != 0 && __builtin_cpu_supports("avx512vl") != 0 &&
         __builtin_cpu_supports("avx512vbmi") != 0;
}

template <>
const KernelTable<std::uint32_t>& table() {
  static const KernelTable<std::uint32_t> kTable = make_table();
  return kTable;
}

}  // namespace pppml::kernels::avx512
