// Opening packed bytes: every backend refuses the same residues and the same blocks, and opens the same values; bytes
// that were not changed open to the sum. Input: set (1 byte), form of the output (1), terms (1), changes of c0 and c1
// (offset of 2 bytes, then bytes that are laid over by exclusive or; c1 in public mode only).
#include "base/check.hpp"
#include "tests/fuzz/sets.hpp"

namespace {

using namespace pppml;
using fuzz::check;

struct Values {
  explicit Values(const fuzz::Set& set)
      : integers(set.scalar().integers(set.all())), singles(set.length), doubles(set.length) {}

  ckks::Opened target(unsigned form) {
    if (form == 0) return {integers.data(), nullptr, nullptr};
    return form == 1 ? ckks::Opened{nullptr, singles.data(), nullptr} : ckks::Opened{nullptr, nullptr, doubles.data()};
  }
  bool operator==(const Values& other) const {
    const auto same = [](const auto& a, const auto& b) {
      return std::memcmp(a.data(), b.data(), a.size() * sizeof(a[0])) == 0;
    };
    return same(integers, other.integers) && same(singles, other.singles) && same(doubles, other.doubles);
  }

  std::vector<std::int64_t> integers;
  std::vector<float> singles;
  std::vector<double> doubles;
};

kernels::OpenReport open(const fuzz::Set& set, const fuzz::Set::OnBackend& backend, std::uint64_t terms,
                         const std::vector<std::uint8_t>& c0, const std::vector<std::uint8_t>& c1,
                         const ckks::Opened& target) {
  const bool is_public = backend.public_key != nullptr;
  return backend.scheme->open(*backend.secret, set.all(), terms, {nullptr, c0.data()},
                              {nullptr, is_public ? c1.data() : nullptr}, is_public ? nullptr : fuzz::fixed_key(92),
                              target);
}

bool unpacks(const fuzz::Set& set, const std::vector<std::uint8_t>& packed, bool cut) {
  const ckks::Extent extent{set.length, cut};
  std::vector<std::uint64_t> words(set.scalar().words(extent));  // wide enough for either word
  return packed.empty() || set.scalar().unpack(extent, 0, set.all().stop, packed.data(), words.data());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  const fuzz::Set& set = *fuzz::sets()[input.take<std::uint8_t>() % fuzz::sets().size()];
  const unsigned form = input.take<std::uint8_t>() % 3;
  const std::uint64_t terms = 1 + input.take<std::uint8_t>() % set.parties;
  const std::size_t half = set.c1.empty() ? SIZE_MAX : input.left() / 2;
  const std::vector<std::uint8_t> c0 = fuzz::changed(set.c0, input, half), c1 = fuzz::changed(set.c1, input, SIZE_MAX);
  const bool unpacked = unpacks(set, c0, true) && unpacks(set, c1, false);

  Values expected(set);
  const kernels::OpenReport oracle = open(set, set.backends.back(), terms, c0, c1, expected.target(form));
  check(oracle.invalid_residue == !unpacked, "opening and unpacking disagree on which residues are valid");
  const std::uint64_t sent = set.scalar().parameters().keys() == ckks::KeyMode::kCollective ? set.parties : 1;
  if (c0 == set.c0 && c1 == set.c1 && terms >= sent) {
    check(!oracle.block_refused && !oracle.invalid_residue, "an honest sum is refused");
    check(form != 0 || expected.integers == set.opened, "an honest sum opens to other integers");
  }
  for (const auto& backend : set.backends) {
    Values values(set);
    const kernels::OpenReport report = open(set, backend, terms, c0, c1, values.target(form));
    check(report.invalid_residue == oracle.invalid_residue, "a backend accepts a residue that scalar refuses");
    if (report.invalid_residue) continue;
    check(report.block_refused == oracle.block_refused && report.worst_block == oracle.worst_block &&
              report.largest_residual == oracle.largest_residual,
          "a backend reports other residuals than scalar");
    check(values == expected, "a backend opens other values than scalar");
  }
  return 0;
}
