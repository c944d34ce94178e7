// A party's turn: encrypting tensors of any bytes onto any incoming blocks. Every backend refuses the same residues and
// the same non-finite values, gives the same bytes, and leaves zeros behind a refusal. Input: set (1 byte), flags (1:
// in place, prepared pads), dtype (1), changes of the incoming bytes (offset and bytes, half of the input), weights.
#include "base/check.hpp"
#include "tests/fuzz/sets.hpp"

namespace {

using namespace pppml;
using fuzz::check;

struct Outcome {
  bool valid = false;
  std::uint64_t clipped = 0, non_finite = UINT64_MAX;
  std::vector<std::uint8_t> bytes;
};

Outcome turn(const fuzz::Set& set, const fuzz::Set::OnBackend& backend, const std::vector<std::uint8_t>& incoming,
             const ckks::Plain& plain, bool in_place, bool prepared) {
  const auto noise = ring::StreamKey::from_bytes(fuzz::fixed_key(200));
  const ckks::Scheme& scheme = *backend.scheme;
  Outcome outcome;
  outcome.bytes = incoming;
  const std::uint8_t* from = in_place ? outcome.bytes.data() : incoming.data();
  kernels::QuantizeReport report;
  try {
    if (prepared) {
      std::vector<std::uint64_t> pads(scheme.words({set.length, true}));  // wide enough for either word
      scheme.make_pads(*backend.secret, noise, fuzz::fixed_key(92), set.all(), pads.data());
      outcome.valid = scheme.encrypt_prepared(pads.data(), true, noise, plain, set.all(), from,
                                              {nullptr, outcome.bytes.data()}, &report);
      check(std::all_of(pads.begin(), pads.end(), [](std::uint64_t word) { return word == 0; }),
            "a used pad is left behind");
    } else {
      outcome.valid = scheme.encrypt(*backend.secret, noise, fuzz::fixed_key(92), plain, set.all(), from,
                                     {nullptr, outcome.bytes.data()}, &report);
    }
    outcome.clipped = report.clipped;
  } catch (const NonFiniteError& error) {
    outcome.non_finite = error.index();
  }
  if (!outcome.valid) {
    check(std::all_of(outcome.bytes.begin(), outcome.bytes.end(), [](std::uint8_t byte) { return byte == 0; }),
          "a refused turn leaves something behind");
  }
  return outcome;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  const auto& all = fuzz::sets();
  const fuzz::Set& set = *all[input.take<std::uint8_t>() % all.size()];
  if (!set.pk0.empty()) return 0;  // public-key encryption takes no incoming blocks
  const auto flags = input.take<std::uint8_t>();
  const auto dtype = static_cast<kernels::Dtype>(input.take<std::uint8_t>() % 4);
  const std::vector<std::uint8_t> incoming = fuzz::changed(set.c0, input, input.left() / 2);
  const std::size_t width = dtype == kernels::Dtype::kFloat64 ? 8 : dtype == kernels::Dtype::kFloat32 ? 4 : 2;
  std::vector<std::uint8_t> weights = input.take_bytes(set.length * width);
  weights.resize(set.length * width);
  const kernels::TensorSpan span{weights.data(), set.length, dtype, set.length, set.length};
  const ckks::Plain plain{{&span, 1}, {nullptr, 0}, 1.0};
  const bool in_place = (flags & 1) != 0, prepared = (flags & 2) != 0;

  const Outcome expected = turn(set, set.backends.back(), incoming, plain, false, false);
  for (const auto& backend : set.backends) {
    const Outcome outcome = turn(set, backend, incoming, plain, in_place, prepared);
    check(outcome.valid == expected.valid, "a backend accepts a turn that scalar refuses, or the reverse");
    check(outcome.non_finite == expected.non_finite, "a backend finds another non-finite value than scalar");
    check(outcome.clipped == expected.clipped, "a backend counts other clipped values than scalar");
    check(outcome.bytes == expected.bytes, "a backend encrypts to other bytes than scalar");
  }
  return 0;
}
