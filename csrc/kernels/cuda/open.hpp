// Opening of one block, fused: residues in, weights out to the tensors they belong to, residuals checked on the way.
#pragma once

#include <type_traits>

#include "kernels/cuda/bits.hpp"
#include "kernels/cuda/state.hpp"

namespace pppml::kernels::cuda {

template <class Shape, class Group>
class BlockOpening {
  using Word = typename Shape::Word;
  using Phase = std::conditional_t<Shape::kNarrow && Shape::kPrimes == 1, std::int32_t, std::int64_t>;
  using Size = std::make_unsigned_t<Phase>;
  using Divisor = BasicPublicDivisor<Size>;
  using Held = typename Group::template Local<Residues<Shape>>;

 public:
  PPPML_HD BlockOpening(const Group& group, const OpenRequest<Shape>& request, State<Shape>& state)
      : group_(group), request_(request), state_(state) {}

  PPPML_HD void run() {
    Held held[Shape::kPrimes];
    group_.phase([&](unsigned thread) {
      if (thread == 0) clear_findings(state_);
    });
    group_.phase([&](unsigned thread) { find_spans(thread); });
    PPPML_UNROLL
    for (unsigned l = 0; l < Shape::kPrimes; ++l) {
      multiply(l, held[l]);
      group_.phase([&](unsigned thread) {
        const std::uint32_t invalid =
            add_row<Shape>(request_.c0, place(), request_.ring.primes[l], l, thread, state_.row, held[l][thread]);
        if (invalid != 0) atomic_add(&state_.invalid, invalid);
      });
    }
    round(held);
    check();
  }

 private:
  // Made anew wherever they are needed: kept, they would take registers all the way.
  PPPML_HD std::uint64_t block() const { return request_.batch.first_block + group_.index(); }
  PPPML_HD RowPlace<Shape> place() const { return RowPlace<Shape>(request_.ring, request_.batch, group_.index()); }
  PPPML_HD std::uint64_t block_values() const {
    return static_cast<std::uint64_t>(Shape::kDegree) * request_.out.values_per_coefficient;
  }

  PPPML_HD void find_spans(unsigned thread) const {
    const std::uint64_t begin = group_.index() * block_values();
    const std::uint64_t values = static_cast<std::uint64_t>(place().length()) * request_.out.values_per_coefficient;
    const std::uint64_t end = begin + values < request_.out.count ? begin + values : request_.out.count;
    if (begin >= end) return;
    const std::uint64_t moved = request_.batch.first_block * block_values();
    find_window<Shape::kThreads>(request_.out.spans, moved + begin, moved + end - 1, thread, &state_.tensors);
  }

  // held <- INTT(c1 s), row l
  PPPML_HD void multiply(unsigned l, Held& held) const {
    const DevicePrime<Word>& prime = request_.ring.primes[l];
    const RowTransform<Shape, Group> transform(group_, prime, state_.row);
    const Factor<Word>* secret = request_.secret + l * Shape::kDegree;
    if (request_.c1.words == nullptr && request_.c1.packed == nullptr) {
      sample_uniform<Shape>(group_, UniformJobs<Shape>(prime, request_.public_key, l, block()), state_);
      transform.multiply_and_invert(secret, held);
      return;
    }
    Batch whole = request_.batch;
    whole.last_length = Shape::kDegree;
    const RowPlace<Shape> place(request_.ring, whole, group_.index());
    group_.phase([&](unsigned thread) {
      held[thread] = {};
      const std::uint32_t invalid = add_row<Shape>(request_.c1, place, prime, l, thread, state_.row, held[thread]);
      if (invalid != 0) atomic_add(&state_.invalid, invalid);
    });
    transform.convolve(secret, held);
  }

  // Residues of one coefficient -> the integer in (-Q/2, Q/2); as scalar/opening.cpp.
  PPPML_HD Phase lift(const Word (&r)[Shape::kPrimes]) const {
    const Word q0 = request_.ring.primes[0].modulus;
    if (Shape::kPrimes == 1) return static_cast<Phase>(r[0]) - (r[0] > q0 / 2 ? static_cast<Phase>(q0) : 0);
    const DevicePrime<Word>& second = request_.ring.primes[Shape::kPrimes - 1];
    const Word q1 = second.modulus, r1 = r[Shape::kPrimes - 1];
    const Word r0 = reduce_signed<Word>(static_cast<std::int64_t>(r[0]), q1, second.ratio, second.lift);
    const Word digit = cuda::multiply<Word>(r1 + q1 - r0, request_.ring.garner, q1);
    const std::uint64_t product = static_cast<std::uint64_t>(q0) * q1;
    const std::uint64_t x = r[0] + static_cast<std::uint64_t>(q0) * digit;
    return static_cast<Phase>(static_cast<std::int64_t>(x) -
                              (x > product / 2 ? static_cast<std::int64_t>(product) : 0));
  }

  PPPML_HD void round(Held (&held)[Shape::kPrimes]) const {
    const unsigned length = place().length();
    const Divisor delta(static_cast<Phase>(request_.delta));
    group_.phase([&](unsigned thread) {
      double squares = 0;
      Size largest = 0;
      Phase coefficients[Shape::kPerThread] = {};
      PPPML_UNROLL
      for (unsigned i = 0; i < Shape::kPerThread; ++i) {
        const unsigned k = thread + i * Shape::kThreads;
        if (k >= length) continue;
        Word residues[Shape::kPrimes];
        PPPML_UNROLL
        for (unsigned l = 0; l < Shape::kPrimes; ++l) residues[l] = held[l][thread].x[i];
        const Phase phase = lift(residues);
        coefficients[i] = delta.divide_rounded(phase);
        const Phase residual = phase - coefficients[i] * static_cast<Phase>(request_.delta);
        const auto size = static_cast<Size>(residual < 0 ? -residual : residual);
        largest = size > largest ? size : largest;
        squares += static_cast<double>(residual) * static_cast<double>(residual);
      }
      // One after the other: what stores to any tensor of any type is long.
      PPPML_NO_UNROLL
      for (unsigned part = 0; part < Shape::kPerThread; ++part) {
        Phase coefficient = 0;
        PPPML_UNROLL
        for (unsigned i = 0; i < Shape::kPerThread; ++i) coefficient = i == part ? coefficients[i] : coefficient;
        const unsigned k = thread + part * Shape::kThreads;
        if (k < length) store(k, length, coefficient);
      }
      state_.residuals.squares[thread] = squares;
      state_.residuals.largest[thread] = largest;
    });
  }

  // The values of one coefficient: centred remainders by base = 2 half + 1.
  PPPML_HD void store(unsigned k, unsigned length, Phase coefficient) const {
    const DeviceTarget& out = request_.out;
    const auto base = static_cast<Phase>(out.base), half = static_cast<Phase>(out.half);
    Phase rest = coefficient;
    for (unsigned t = 0; t < out.values_per_coefficient; ++t) {
      Phase digit = rest;
      if (t + 1 < out.values_per_coefficient) {
        const Divisor divisor(base);
        digit = rest - divisor.divide(rest) * base;
        digit += digit < -half ? base : 0;
        digit -= digit > half ? base : 0;
        rest = divisor.divide(rest - digit);
      }
      const std::uint64_t at = group_.index() * block_values() + static_cast<std::uint64_t>(t) * length + k;
      if (at >= out.count) return;
      if (out.integers != nullptr) {
        out.integers[at] = digit;
        continue;
      }
      const std::uint64_t index = request_.batch.first_block * block_values() + at;
      const DeviceSpan& span = out.spans.spans[span_of(out.spans, state_.tensors, index)];
      store_element(span, index - span.offset, static_cast<double>(digit) * out.step / out.divisor);
    }
  }

  // What sixteen threads found, then all.
  PPPML_HD void check() const {
    constexpr unsigned kGroup = 16, kGroups = Shape::kThreads / kGroup;
    auto& residuals = state_.residuals;
    group_.phase([&](unsigned thread) {
      if (thread >= kGroups) return;
      for (unsigned i = 1; i < kGroup; ++i) {
        residuals.squares[thread] += residuals.squares[i * kGroups + thread];
        const std::uint64_t other = residuals.largest[i * kGroups + thread];
        if (other > residuals.largest[thread]) residuals.largest[thread] = other;
      }
    });
    group_.phase([&](unsigned thread) {
      if (thread != 0) return;
      double squares = 0;
      std::uint64_t largest = 0;
      for (unsigned i = 0; i < kGroups; ++i) {
        squares += residuals.squares[i];
        if (residuals.largest[i] > largest) largest = residuals.largest[i];
      }
      const bool last = group_.index() + 1 == request_.batch.blocks;
      if (squares > (last ? request_.last_limit : request_.full_limit))
        atomic_min(&request_.report->worst_block, block());
      atomic_max(&request_.report->largest_residual, largest);
      report_findings(state_, request_.report);
    });
  }

  const Group& group_;
  const OpenRequest<Shape>& request_;
  State<Shape>& state_;
};

template <class Shape, class Group>
PPPML_HD void open_block(const Group& group, const OpenRequest<Shape>& request, State<Shape>& state) {
  BlockOpening<Shape, Group>(group, request, state).run();
}

}  // namespace pppml::kernels::cuda
