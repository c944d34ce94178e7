// From the weights of a block to its message coefficients, and with them to the finished rows.
#pragma once

#include <type_traits>

#include "kernels/cuda/bits.hpp"
#include "kernels/cuda/state.hpp"

namespace pppml::kernels::cuda {

// One value in the order of operations that Codec states; 0 and false when the difference is not a number.
template <class Float>
PPPML_HD bool quantize_one(const Codec& codec, Float value, Float reference, std::uint32_t word, std::uint32_t* clipped,
                           std::int64_t* out) {
  const Float x = value - reference, clip = static_cast<Float>(codec.clip);
  *out = 0;
  if (x != x) return false;
  *clipped += std::fabs(x) > clip ? 1 : 0;
  const Float capped = x > clip ? clip : x < -clip ? -clip : x;
  const Float scaled = capped * static_cast<Float>(codec.multiplier);
  if (codec.rounding == Rounding::kNearest) {
    *out = static_cast<std::int64_t>(std::rint(scaled));
    return true;
  }
  const Float below = std::floor(scaled);
  const Float uniform = sizeof(Float) == 4 ? static_cast<Float>(word >> 8) * static_cast<Float>(0x1p-24)
                                           : static_cast<Float>(word) * static_cast<Float>(0x1p-32);
  *out = static_cast<std::int64_t>(below) + (uniform < scaled - below ? 1 : 0);
  return true;
}

// The message of one block onto rows that hold something else already.
template <class Shape, class Group>
class BlockMessage {
  using Word = typename Shape::Word;
  // delta times a coefficient lies below Q / 2 in size (ckks/headroom.hpp), and with noise below Q.
  using Coefficient = std::conditional_t<Shape::kNarrow && Shape::kPrimes == 1, std::int32_t, std::int64_t>;
  struct Coefficients {
    Coefficient m[Shape::kPerThread];
  };
  struct Findings {
    std::uint32_t clipped;
    std::uint64_t non_finite;
  };
  using Held = typename Group::template Local<Residues<Shape>>;

 public:
  PPPML_HD BlockMessage(const Group& group, const EncryptRequest<Shape>& request, State<Shape>& state)
      : group_(group), request_(request), state_(state) {}

  // Made anew wherever they are needed: kept, they would take registers all the way.
  PPPML_HD std::uint64_t block() const { return request_.batch.first_block + group_.index(); }
  PPPML_HD std::uint64_t first() const { return block() * request_.codec.block_values; }
  PPPML_HD RowPlace<Shape> place() const { return RowPlace<Shape>(request_.ring, request_.batch, group_.index()); }

  // To be called within a phase, by every thread.
  PPPML_HD void find_spans(unsigned thread) const {
    const std::uint64_t length = length_of(request_.tensors);
    const std::uint64_t values = static_cast<std::uint64_t>(place().length()) * request_.codec.values_per_coefficient;
    const std::uint64_t end = first() + values < length ? first() + values : length;
    if (first() >= end) return;
    find_window<Shape::kThreads>(request_.tensors, first(), end - 1, thread, &state_.tensors);
    find_window<Shape::kThreads>(request_.reference, first(), end - 1, thread, &state_.reference);
  }

  // m: thread's message coefficients, delta not yet on them.
  PPPML_HD void quantize() {
    group_.phase([&](unsigned thread) {
      PPPML_UNROLL
      for (unsigned i = 0; i < Shape::kPerThread; ++i) message_[thread].m[i] = 0;
    });
    for (unsigned t = request_.codec.values_per_coefficient; t-- > 0;) {
      if (request_.codec.rounding == Rounding::kStochastic) rounding_words(t);
      if (request_.codec.single_precision) {
        quantize_layer<float>(t);
      } else {
        quantize_layer<double>(t);
      }
    }
  }

  // Row l of the result: out = sign * held + error + delta m, plus what comes in.
  PPPML_HD void finish(unsigned l, Held& held, bool negate) {
    const DevicePrime<Word>& prime = request_.ring.primes[l];
    group_.phase([&](unsigned thread) {
      Residues<Shape>& r = held[thread];
      PPPML_UNROLL
      for (unsigned i = 0; i < Shape::kPerThread; ++i) {
        const Word base = r.x[i], q = prime.modulus;
        const Word addend = residue(prime, message_[thread].m[i], state_.error.at(thread + i * Shape::kThreads));
        r.x[i] = negate ? reduce<Word>(addend + q - base, q) : add(addend, base, q);
      }
      if (request_.incoming == nullptr) return;
      const RowsIn<Word> incoming{nullptr, request_.incoming};
      const std::uint32_t invalid = add_row<Shape>(incoming, place(), prime, l, thread, state_.row, r);
      if (invalid != 0) atomic_add(&state_.invalid, invalid);
    });
    write_row(group_, request_.ring, place(), l, request_.out, held, state_);
  }

  PPPML_HD void finish_block() const {
    group_.phase([&](unsigned thread) {
      // What stays in shared memory is public but for the noise.
      PPPML_NO_UNROLL
      for (unsigned k = thread; k < Shape::kDegree / 4; k += Shape::kThreads) state_.error.words[k] = 0;
      if (thread == 0) report_findings(state_, request_.report);
    });
  }

  // Rows in the order of the last pass to words or packed bytes.
  PPPML_HD static void write_row(const Group& group, const DeviceRing<Shape>& ring, const RowPlace<Shape>& place,
                                 unsigned l, const RowsOut<Word>& out, Held& held, State<Shape>& state) {
    const unsigned length = place.length();
    if (out.words != nullptr) {
      Word* const row = out.words + place.words(l);
      group.phase([&](unsigned thread) {
        PPPML_UNROLL
        for (unsigned i = 0; i < Shape::kPerThread; ++i) {
          const unsigned k = thread + i * Shape::kThreads;
          if (k < length) row[k] = held[thread].x[i];
        }
      });
      return;
    }
    const PackedWriter writer(out.packed + place.bytes(l), ring.primes[l].bits, length);
    group.phase([&](unsigned thread) { Pass<Shape, kLastPass>::store(thread, held[thread], state.row); });
    group.phase([&](unsigned thread) {
      PPPML_NO_UNROLL
      for (unsigned w = thread; w < writer.words(); w += Shape::kThreads) {
        writer.write(w, [&](unsigned k) { return state.row[bank_order<Word>(k)]; });
      }
    });
  }

 private:
  PPPML_HD static std::uint64_t length_of(const DeviceTensors& tensors) {
    return tensors.count == 0 ? 0 : tensors.spans[tensors.count].offset;
  }

  // Words [t length, (t + 1) length) of the block's rounding stream, which begin within a block of ChaCha20.
  PPPML_HD void rounding_words(unsigned t) const {
    const unsigned length = place().length(), first = t * length;
    const unsigned from = first / kStreamWords, to = (first + length + kStreamWords - 1) / kStreamWords;
    group_.phase([&](unsigned thread) {
      PPPML_NO_UNROLL
      for (unsigned job = from + thread; job < to; job += Shape::kThreads) {
        const StreamBlock words =
            stream_block(*request_.noise_key, static_cast<std::uint32_t>(Lane::kRounding), block(), job);
        PPPML_UNROLL
        for (unsigned i = 0; i < kStreamWords; ++i) {
          const unsigned k = job * kStreamWords + i - first;  // wraps around where it lies before
          if (k < length) state_.stream[bank_order<std::uint32_t>(k)] = words.words[i];
        }
      }
    });
  }

  // m <- m base + value t of each coefficient. A few at a time: what reads any tensor of any type is long, and eight
  // copies of it would take more registers than there are.
  template <class Float>
  PPPML_HD void quantize_layer(unsigned t) {
    constexpr unsigned kTogether = 2;
    const auto base = static_cast<Coefficient>(request_.codec.base);
    group_.phase([&](unsigned thread) {
      Findings found{0, UINT64_MAX};
      PPPML_NO_UNROLL
      for (unsigned part = 0; part < Shape::kPerThread; part += kTogether) {
        Coefficient values[kTogether];
        PPPML_UNROLL
        for (unsigned i = 0; i < kTogether; ++i)
          values[i] = quantized<Float>(t, thread + (part + i) * Shape::kThreads, &found);
        PPPML_UNROLL
        for (unsigned i = 0; i < Shape::kPerThread; ++i) {
          Coefficient& m = message_[thread].m[i];
          if (i / kTogether * kTogether == part) m = m * base + values[i % kTogether];
        }
      }
      if (found.clipped != 0) atomic_add(&state_.clipped, found.clipped);
      if (found.non_finite != UINT64_MAX) atomic_min(&state_.first_non_finite, found.non_finite);
    });
  }

  // Value t of coefficient k; 0 where the tensors have ended, and for what is no number.
  template <class Float>
  PPPML_HD Coefficient quantized(unsigned t, unsigned k, Findings* found) const {
    const std::uint64_t index = first() + static_cast<std::uint64_t>(t) * place().length() + k;
    if (k >= place().length() || index >= length_of(request_.tensors)) return 0;
    bool finite = true;
    const Float x = read<Float>(request_.tensors, state_.tensors, index, &finite);
    const Float reference =
        request_.reference.count == 0 ? Float{0} : read<Float>(request_.reference, state_.reference, index, &finite);
    const std::uint32_t word =
        request_.codec.rounding == Rounding::kStochastic ? state_.stream[bank_order<std::uint32_t>(k)] : 0;
    std::uint32_t beyond = 0;
    std::int64_t value = 0;
    finite = quantize_one(request_.codec, x, reference, word, &beyond, &value) && finite;
    if (!finite) {
      found->non_finite = index < found->non_finite ? index : found->non_finite;
      return 0;
    }
    found->clipped += beyond;
    return static_cast<Coefficient>(value);
  }

  template <class Float>
  PPPML_HD static Float read(const DeviceTensors& tensors, const SpanWindow& window, std::uint64_t index,
                             bool* finite) {
    const DeviceSpan& span = tensors.spans[span_of(tensors, window, index)];
    return load_element<Float>(span, index - span.offset, finite);
  }

  PPPML_HD Word residue(const DevicePrime<Word>& prime, Coefficient m, std::int32_t error) const {
    const Coefficient sum = m * static_cast<Coefficient>(request_.codec.delta) + error;
    if (Shape::kPrimes == 1) return small_residue<Word>(sum, prime.modulus);
    return reduce_signed<Word>(sum, prime.modulus, prime.ratio, prime.lift);
  }

  const Group& group_;
  const EncryptRequest<Shape>& request_;
  State<Shape>& state_;
  typename Group::template Local<Coefficients> message_;
};

}  // namespace pppml::kernels::cuda
