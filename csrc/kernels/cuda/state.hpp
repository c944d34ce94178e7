// The shared memory of a block of threads: one row, small samples, and what the threads find out together.
#pragma once

#include "kernels/cuda/bits.hpp"
#include "kernels/cuda/samplers.hpp"
#include "kernels/cuda/tensors.hpp"

namespace pppml::kernels::cuda {

template <class Shape>
struct alignas(16) State {
  union {
    typename Shape::Word row[Shape::kDegree];
    std::uint32_t stream[Shape::kDegree];  // words of stochastic rounding
    struct {
      double squares[Shape::kThreads];
      std::uint64_t largest[Shape::kThreads];
    } residuals;
  };
  SmallRow<Shape> error;
  SpanWindow tensors, reference;
  std::uint32_t ties, clipped, invalid;
  std::uint64_t first_non_finite;
};

template <class Shape>
PPPML_HD void clear_findings(State<Shape>& state) {
  state.tensors = state.reference = {0, 0};
  state.ties = state.clipped = state.invalid = 0;
  state.first_non_finite = UINT64_MAX;
}

// What the block found goes into the report of the whole operation.
template <class Shape>
PPPML_HD void report_findings(const State<Shape>& state, DeviceReport* report) {
  if (state.clipped != 0) atomic_add(&report->clipped, state.clipped);
  if (state.invalid != 0) atomic_add(&report->invalid_residues, state.invalid);
  if (state.first_non_finite != UINT64_MAX) atomic_min(&report->first_non_finite, state.first_non_finite);
}

// One row of Gaussian samples, and the uniform row beside it where `uniform` is not null: each thread makes the same
// number of ChaCha20 blocks, and a warp those of one kind.
template <class Shape, class Group>
PPPML_HD void sample_rows(const Group& group, const UniformJobs<Shape>* uniform, const DeviceGaussian& table,
                          const DeviceKey& key, Lane lane, std::uint64_t block, State<Shape>& state) {
  constexpr unsigned kUniform = UniformJobs<Shape>::kCount, kSmall = SmallRow<Shape>::kJobs;
  static_assert(kUniform % kWarp == 0 && kSmall % kWarp == 0 && Shape::kThreads % kWarp == 0);
  const unsigned start = uniform == nullptr ? kUniform : 0;
  group.phase([&](unsigned thread) {
    PPPML_NO_UNROLL
    for (unsigned job = start + thread; job < kUniform + kSmall; job += Shape::kThreads) {
      if (job < kUniform) {
        uniform->run(job, state.row);
        continue;
      }
      const GaussianLookup lookup(table, thread);
      if (gaussian_job<Shape>(lookup, key, lane, block, job - kUniform, state.error) != 0) atomic_add(&state.ties, 1u);
    }
  });
  if (state.ties == 0) return;
  group.phase([&](unsigned thread) {
    if (thread < kTieGroups) draw_tied_group<Shape>(table, key, lane, block, thread, state.error);
  });
  group.phase([&](unsigned thread) {
    if (thread == 0) state.ties = 0;
  });
}

template <class Shape, class Group>
PPPML_HD void sample_uniform(const Group& group, const UniformJobs<Shape>& uniform, State<Shape>& state) {
  group.phase([&](unsigned thread) {
    PPPML_NO_UNROLL
    for (unsigned job = thread; job < UniformJobs<Shape>::kCount; job += Shape::kThreads) uniform.run(job, state.row);
  });
}

// r <- r + a row of `length` residues, as the last pass has them; 0 behind its end. Returns how many of them are not
// below the prime, and with them padding that is not zero. A packed residue takes many instructions: they go through
// the shared row one after the other, each thread's own, rather than through eight copies of the code.
template <class Shape>
PPPML_HD std::uint32_t add_row(const RowsIn<typename Shape::Word>& rows, const RowPlace<Shape>& place,
                               const DevicePrime<typename Shape::Word>& prime, unsigned l, unsigned thread,
                               typename Shape::Word* row, Residues<Shape>& r) {
  using Word = typename Shape::Word;
  const unsigned length = place.length();
  std::uint32_t invalid = 0;
  if (rows.words != nullptr) {
    const Word* const words = rows.words + place.words(l);
    PPPML_UNROLL
    for (unsigned i = 0; i < Shape::kPerThread; ++i) {
      const unsigned k = thread + i * Shape::kThreads;
      if (k < length) r.x[i] = reduce<Word>(r.x[i] + words[k], prime.modulus);
    }
    return invalid;
  }
  const PackedRow packed(rows.packed + place.bytes(l), prime.bits, length);
  PPPML_NO_UNROLL
  for (unsigned i = 0; i < Shape::kPerThread; ++i) {
    const unsigned k = thread + i * Shape::kThreads;
    Word residue = k < length ? static_cast<Word>(packed[k]) : Word{0};
    if (residue >= prime.modulus) {
      residue = 0;
      ++invalid;
    }
    row[bank_order<Word>(k)] = residue;
  }
  if (thread == 0 && !packed.padding_is_zero()) ++invalid;
  PPPML_UNROLL
  for (unsigned i = 0; i < Shape::kPerThread; ++i) {
    r.x[i] = reduce<Word>(r.x[i] + row[bank_order<Word>(thread + i * Shape::kThreads)], prime.modulus);
  }
  return invalid;
}

}  // namespace pppml::kernels::cuda
