// The contract between portable code and the backends: one table of functions per word type.
//
// Kernels know no keys' meaning, no protocol and no policy, but everything that depends on an instruction set.
// The fused operations run over batches of blocks; the primitives exist for set-up and for tests. Stream keys are
// passed in, outputs are passed in, nothing is allocated behind the caller's back beyond per-call scratch.
// `scalar` is the oracle: every other backend returns the same bits.
//
// Notation: N degree, q prime, L primes; a *row* is the N residues of one polynomial modulo one prime. A block is
// L rows. `blocks` counts blocks; only the last block of a ciphertext may hold fewer than N coefficients per row
// (`last_length`), and its rows are then stored without gaps.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/isa.hpp"

namespace pppml::kernels {

// --- rings -----------------------------------------------------------------------------------------------------

// Everything a backend needs to know of one NTT prime q = 1 mod 2N. Roots are powers of the least primitive 2N-th
// root of unity psi in bit-reversed order, each with its Shoup companion (base/modular.hpp).
template <class Word>
struct PrimeTable {
  Word modulus;
  unsigned bits;  // ceil(log2 modulus)
  const Word* roots;
  const Word* root_companions;
  const Word* inverse_roots;
  const Word* inverse_root_companions;
  Word inverse_degree, inverse_degree_companion;  // N^-1 mod q
  std::uint64_t ratio, lift;                      // for reduce_signed
};

template <class Word>
struct RingTable {
  unsigned log_degree;
  unsigned prime_count;
  const PrimeTable<Word>* primes;
  // Garner's constants for two primes: q0^-1 mod q1 with companion.
  Word garner, garner_companion;

  std::size_t degree() const { return std::size_t{1} << log_degree; }
  std::size_t block_words() const { return prime_count * degree(); }
};

// A batch of consecutive blocks of one ciphertext.
struct Batch {
  std::uint64_t first_block;  // number of the first block in the whole ciphertext: names its random streams
  std::size_t blocks;
  std::size_t last_length;  // coefficients per row in the last block of the batch, 1 .. N
};

PPPML_ISA_BEGIN

// Words from the start of a batch to its block b.
template <class Word>
std::size_t block_offset(const RingTable<Word>& ring, std::size_t b) {
  return b * ring.block_words();
}

// Coefficients per row of block b.
template <class Word>
std::size_t row_length(const RingTable<Word>& ring, const Batch& batch, std::size_t b) {
  return b + 1 == batch.blocks ? batch.last_length : ring.degree();
}

// Bytes of one packed row of `count` residues.
template <class Word>
std::size_t packed_row_bytes(const PrimeTable<Word>& prime, std::size_t count) {
  return (count * prime.bits + 7) / 8;
}

// Bytes from the packed start of a batch to the packed start of its next block.
template <class Word>
std::size_t packed_block_bytes(const RingTable<Word>& ring) {
  std::size_t bytes = 0;
  for (std::size_t l = 0; l < ring.prime_count; ++l) bytes += packed_row_bytes(ring.primes[l], ring.degree());
  return bytes;
}

PPPML_ISA_END

// Rows of a batch of blocks, as residue words or packed for the wire: at most one pointer is set.
template <class Word>
struct RowsIn {
  const Word* words = nullptr;
  const std::uint8_t* packed = nullptr;

  bool given() const { return words != nullptr || packed != nullptr; }
};
template <class Word>
struct RowsOut {
  Word* words = nullptr;
  std::uint8_t* packed = nullptr;
};

// --- random streams -------------------------------------------------------------------------------------------

// A stream is named by a 256-bit key, a selector u32 and a block number u64, and is positional: word i never depends on
// how many words were read before. Words are the little-endian 32-bit words of the cipher's key stream.
//   kChaCha20  RFC 8439, nonce = selector || block (little-endian), counter from 0
//   kAes256    AES-256 in counter mode (FIPS 197, SP 800-38A): initial counter block = selector || block
//              (little-endian), then a big-endian 32-bit counter from 0
// Public expansions are always ChaCha20. Private streams take what the backend computes fastest in constant time.
enum class StreamCipher : std::uint8_t { kChaCha20, kAes256 };
constexpr std::size_t kStreamKeyBytes = 32;

struct PrivateStream {
  const std::uint8_t* key = nullptr;
  StreamCipher cipher = StreamCipher::kChaCha20;
};

// Selectors of the private streams. Public expansions use the prime index as selector under keys of their own.
enum class Lane : std::uint32_t {
  kError0 = 0,       // error of the first polynomial
  kError1 = 1,       // error of the second polynomial (public-key encryption)
  kEphemeral = 2,    // ternary u of public-key encryption
  kSecret = 3,       // secret key coefficients
  kKeyError = 4,     // error of a public key
  kRounding = 5,     // thresholds of stochastic rounding
  kTieOffset = 256,  // tie words of a Gaussian lane stand at lane + kTieOffset
};

// A discrete Gaussian as a cumulative table; gaussian_tables.py defines the numbers.
//
// Coefficient k takes 32-bit word k of its lane: sign = bit 0, top = the other 31 bits. Its magnitude is
// #{t : (top, low) >= (high[t], low[t])} over 95-bit numbers. `low` matters only when `top` equals some high[t]
// (2^-25): then it is the next unused of the kTieDepth 64-bit tie words of group k mod kTieGroups, tie word
// (group, i) being 64-bit word group * kTieDepth + i of the tie lane. Ties are resolved without a branch. That one
// group of a 2048-coefficient row needs more than kTieDepth words (it would then read the last again) has
// probability (2^7 * 2^-25)^5 / 5! < 2^-96.
struct GaussianTable {
  unsigned largest;
  double variance;
  const std::uint32_t* high;
  const std::uint64_t* low;
};
constexpr unsigned kTieGroups = 16;
constexpr unsigned kTieDepth = 4;

// --- tensors and quantisation ---------------------------------------------------------------------------------

enum class Dtype : std::uint8_t { kFloat32, kFloat64, kFloat16, kBfloat16 };

// Element i is found at data[(i / row_length) * row_stride + i % row_length], counted in elements. A contiguous tensor
// is one row.
struct TensorSpan {
  const void* data;
  std::size_t length;
  Dtype dtype;
  std::size_t row_length;  // at least 1; divides `length`
  std::size_t row_stride;
};

struct TensorList {
  const TensorSpan* spans;
  std::size_t count;
};

enum class Rounding : std::uint8_t { kNearest, kStochastic };

// From weights to message coefficients: v = round(clip(x - reference) * multiplier), then values_per_coefficient of
// them as m = v0 + base * v1 + base^2 * v2. Within a block whose rows hold c coefficients, value t of coefficient k is
// weight t * c + k of the block.
//
// In single precision the order is: round x (and the reference) to float32, subtract, clip, multiply by
// (float)multiplier, round; else the same in float64. kNearest is rint: ties to even. kStochastic is floor(y) + (u <
// y - floor(y)) with u = (w >> 8) 2^-24 in single precision, else w 2^-32, w being 32-bit word i of lane kRounding for
// weight i of the block: its expectation is y to 2^-24 or 2^-32.
struct Codec {
  double clip;
  double multiplier;  // weight / step, lowered where rounding would carry the clip past the largest magnitude
  bool single_precision;
  Rounding rounding;
  unsigned values_per_coefficient;  // 1 .. 3
  std::size_t block_values;         // weights of one block, N * values_per_coefficient
  std::int64_t base;
  std::int64_t delta;  // scale of the message polynomial
};

struct QuantizeReport {
  std::uint64_t clipped = 0;
  std::uint64_t first_non_finite = UINT64_MAX;  // index in the flat vector
};

// The weights of a whole flat vector, and what becomes of them.
struct Message {
  const Codec* codec;
  TensorList tensors;
  TensorList reference;    // subtracted; as long as `tensors`, or without spans
  PrivateStream rounding;  // read by stochastic rounding only
  QuantizeReport* report;
};

// A polynomial held in NTT form as a constant factor: L rows of values and of Shoup companions. The values carry N^-1,
// so that the inverse transform that follows every product need not scale.
template <class Word>
struct Multiplier {
  const Word* values;
  const Word* companions;
};

// --- the canonical embedding ---------------------------------------------------------------------------------------

// Roots of the complex transform between N coefficients and M = N/2 slots (embedding.hpp). Node 2^d + g of the tree of
// factors, g < 2^d, holds the w of its left child X^h - w: nodes 1 .. 7 in order, node 8 G + r G + g at 8 (G + g) + r,
// so that the eight rows r of one g stand side by side.
struct EmbeddingTable {
  unsigned log_slots;  // at least 6
  const double* re;
  const double* im;

  std::size_t slots() const { return std::size_t{1} << log_slots; }
};
constexpr std::size_t kEmbeddingRows = 8;

// --- fused operations -------------------------------------------------------------------------------------------

// pad_j = -INTT(a_j * s) + e_j for every block j; a_j expands from `public_key`, e_j from `noise`.
template <class Word>
struct PadRequest {
  const RingTable<Word>* ring;
  Batch batch;
  Multiplier<Word> secret;
  const std::uint8_t* public_key;
  PrivateStream noise;
  const GaussianTable* error;
};

// out_j = incoming_j + pad_j + delta * m_j; m_j from weight first_block * block_values of the message on. `incoming`
// may be absent: a ring's first turn. In and out may be the same memory.
template <class Word>
struct MessageRequest {
  const RingTable<Word>* ring;
  Batch batch;
  Message message;
  const std::uint8_t* incoming;  // packed, or null
  RowsOut<Word> out;
};

// c0_j = INTT(pk0 * u_j) + e0_j + delta * m_j, c1_j = INTT(pk1 * u_j) + e1_j. c1 rows are never cut. `incoming` of the
// message must be null.
template <class Word>
struct PublicEncryptRequest {
  MessageRequest<Word> message;  // out = c0
  Multiplier<Word> public0, public1;
  PrivateStream noise;
  const GaussianTable* error;
  RowsOut<Word> out1;
};

// out = sum of `count` inputs, residue by residue. `out` may be one of the inputs.
template <class Word>
struct AddRequest {
  const RingTable<Word>* ring;
  Batch batch;
  const Word* const* inputs;
  std::size_t count;
  Word* out;
};

// out_bytes = packed(unpacked(in_bytes) + mine): one party's turn in a ring. In and out may be the same memory.
template <class Word>
struct HopRequest {
  const RingTable<Word>* ring;
  Batch batch;
  const std::uint8_t* in;
  const Word* mine;
  std::uint8_t* out;
};

// Where opened values go: those of weight `i` of the batch to element i of whichever pointer is set, as integers or as
// (double)value * step rounded to the type. values_per_coefficient digits are read off each coefficient as centred
// remainders by base = 2 * half + 1; values past `count` are dropped.
struct OpenTarget {
  unsigned values_per_coefficient;
  std::int64_t base, half;
  double step;
  std::size_t count;
  std::int64_t* integers;
  float* singles;
  double* doubles;
};

struct OpenReport {
  bool invalid_residue = false;       // a packed residue was not below its prime; what was written means nothing
  std::int64_t largest_residual = 0;  // max |res| over all coefficients
  std::uint64_t worst_block = 0;      // first block whose sum of squared residuals exceeds its limit
  bool block_refused = false;
};

// m_j = round(phase / delta), phase = c0_j + INTT(c1 * s) centred modulo Q. c1 is expanded from `public_key` (NTT
// form) when it is not given, else read in coefficient form, uncut. `variance` is the declared variance of one phase
// coefficient; a block is refused when its sum of squared residuals exceeds residual_limit(variance, c).
template <class Word>
struct OpenRequest {
  const RingTable<Word>* ring;
  Batch batch;
  RowsIn<Word> c0, c1;
  const std::uint8_t* public_key;
  Multiplier<Word> secret;
  std::int64_t delta;
  double variance;
  OpenTarget out;
  OpenReport* report;
};

// tags_r += sum_j rho_{j,r} c_j for r = 0, 1 and every prime: 2 * L rows of N words, row (r, l). rho_{j,r} is the
// uniform residue number r of stream (key, selector = prime index, block j).
template <class Word>
struct TagRequest {
  const RingTable<Word>* ring;
  Batch batch;
  const Word* in;
  const std::uint8_t* key;
  Word* tags;
};
constexpr unsigned kTagRows = 2;

template <class Word>
struct KernelTable {
  const char* name;
  StreamCipher private_cipher;  // what this backend expands private streams with, unless told otherwise

  // Primitives.
  // values in [0, q) in coefficient order -> values at psi^(2 bitrev(i) + 1), and back; in place.
  void (*forward_ntt)(const PrimeTable<Word>&, unsigned log_degree, Word* values);
  void (*inverse_ntt)(const PrimeTable<Word>&, unsigned log_degree, Word* values);
  // one row: values * factor, N times the inverse transform of it, in [0, q); in place
  void (*multiply_and_invert)(const PrimeTable<Word>&, unsigned log_degree, const Multiplier<Word>& factor, Word* row);
  // words [first, first + count) of a stream
  void (*stream)(PrivateStream, std::uint32_t selector, std::uint64_t block, std::uint64_t first, std::size_t count,
                 std::uint32_t* out);
  // out[k] uniform in [0, q): candidate r of coefficient k is word r * N + k, masked to `bits`; 32-bit words for
  // q < 2^31, else 64-bit words; the first candidate below q wins. The stream is ChaCha20.
  void (*uniform)(const PrimeTable<Word>&, unsigned log_degree, const std::uint8_t* key, std::uint32_t selector,
                  std::uint64_t block, Word* out);
  void (*gaussian)(const GaussianTable&, PrivateStream, Lane, std::uint64_t block, std::size_t count,
                   std::int32_t* out);
  // out[k] = floor(3 w / 2^32) - 1 for word k of the lane: uniform on {-1, 0, 1} up to 2^-32
  void (*ternary)(PrivateStream, Lane, std::uint64_t block, std::size_t count, std::int32_t* out);
  // values [first, first + count) of the message's flat vector; zero past its end
  void (*quantize)(const Message&, std::size_t first, std::size_t count, std::int64_t* out);
  // a row of residues <-> ceil(count * bits / 8) bytes, little-endian bit order; unpack returns false on a
  // residue >= q or on non-zero padding bits
  void (*pack_row)(const PrimeTable<Word>&, const Word* in, std::size_t count, std::uint8_t* out);
  bool (*unpack_row)(const PrimeTable<Word>&, const std::uint8_t* in, std::size_t count, Word* out);

  // N coefficients -> M complex values, real parts before imaginary ones, in the order of ring::Embedding; and back.
  // Both overwrite what they read.
  void (*embed)(const EmbeddingTable&, double* coefficients, double* values);
  void (*unembed)(const EmbeddingTable&, double* values, double* coefficients);
  // x - reference clipped to [-clip, clip] in float64, for values [first, first + count) of the message's flat vector;
  // zero past its end
  void (*load_values)(const Message&, std::size_t first, std::size_t count, double* out);

  // Fused operations.
  void (*make_pads)(const PadRequest<Word>&, Word* out);
  // Both return false when a residue of `incoming` is not below its prime; `out` is then undefined.
  bool (*encrypt)(const PadRequest<Word>&, const MessageRequest<Word>&);    // both over one batch
  bool (*encrypt_prepared)(const Word* pads, const MessageRequest<Word>&);  // `out.words` may be the pads
  void (*encrypt_public)(const PublicEncryptRequest<Word>&);
  void (*add)(const AddRequest<Word>&);
  bool (*hop)(const HopRequest<Word>&);  // false: a residue of `in` was not below q; `out` is then undefined
  void (*open)(const OpenRequest<Word>&);
  void (*tag)(const TagRequest<Word>&);
};

// Sum of squared residuals that c coefficients of variance v may reach. For t = 120 the chi-square bound
// c + 2 sqrt(c t) + 2 t is passed with probability < e^-120 = 2^-173 [Laurent and Massart 2000, lemma 1]; from
// 896 coefficients on the simpler 2 c is the larger, and an honest full block fails with < 2^-450. Both hold for
// independent noise; that of public keys is correlated and fails with < 2^-200 (docs/derivations.md, section 4).
double residual_limit(double variance, std::size_t coefficients);

}  // namespace pppml::kernels
