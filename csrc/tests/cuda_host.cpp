// The kernels of CUDA devices, run by the processor, against `scalar`: every bit, every shape, every order of threads.
// Built where PPPML_CUDA is HOST. What Python reaches is tested from there (tests/cuda).
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "base/modular.hpp"
#include "ckks/device_scheme.hpp"
#include "ckks/scheme_impl.hpp"
#include "kernels/cuda/arithmetic.hpp"
#include "kernels/cuda/bits.hpp"
#include "kernels/cuda/tables.hpp"
#include "kernels/cuda/tensors.hpp"
#include "kernels/gaussian_tables.hpp"
#include "kernels/scalar/fused.hpp"
#include "tests/check.hpp"
#include "tests/parties.hpp"

namespace {

using namespace pppml;
using tests::Party;
using Bytes = Party::Bytes;
namespace cuda = kernels::cuda;

const cuda::Stream kStream{0, nullptr};

std::uint64_t next(std::uint64_t* state) {
  *state = *state * 6364136223846793005u + 1442695040888963407u;
  return *state ^ *state >> 29;
}

// Memory of the played device, filled with `bytes`.
struct OnDevice {
  explicit OnDevice(const Bytes& bytes) : memory(kStream, bytes.size(), cuda::Secrecy::kPublic) {
    if (!bytes.empty()) cuda::copy_to_device(kStream, memory.data(), bytes.data(), bytes.size());
  }
  explicit OnDevice(std::size_t bytes) : memory(kStream, bytes, cuda::Secrecy::kPublic) {}
  Bytes bytes() const {
    Bytes copy(memory.bytes());
    if (!copy.empty()) cuda::copy_to_host(kStream, copy.data(), memory.data(), copy.size());
    return copy;
  }
  std::uint8_t* packed() const { return static_cast<std::uint8_t*>(memory.data()); }
  cuda::DeviceMemory memory;
};

const std::vector<std::size_t>& lengths_of(const tests::ParameterSet& set) {
  static std::vector<std::size_t> lengths;
  const std::size_t degree = set.ring_dimension, block = degree * set.values_per_coefficient;
  lengths = {1, 17, degree - 1, degree + 1, block, block + 1, 2 * block + 333};
  return lengths;
}

template <class Check>
void over_sets(Check check) {
  for (const tests::ParameterSet& set : tests::parameter_sets()) {
    if (set.packing != ckks::Packing::kCoefficients) continue;
    for (const std::size_t length : lengths_of(set)) check(Party(set, "scalar", length, "chacha20"));
  }
}

ckks::DevicePlain plain_of(const Party& party) {
  auto* const data = const_cast<float*>(party.weights.data());
  return {{{data, party.weights.size(), kernels::Dtype::kFloat32}}, {}, 1.0};
}

Bytes encrypt_on_device(const Party& party) {
  const auto device = ckks::DeviceScheme::create(*party.scheme, 0);
  OnDevice out(party.encrypt().size());
  if (party.public_key) {
    device->encrypt_public(*party.public_key, party.noise, plain_of(party), party.all(), {out.memory.data(), nullptr},
                           {out.packed() + party.row_bytes(), nullptr}, kStream);
  } else {
    device->encrypt(*party.secret, party.noise, party.public_seed, plain_of(party), party.all(), nullptr,
                    {out.memory.data(), nullptr}, kStream);
  }
  return out.bytes();
}

}  // namespace

TEST(encryption_has_the_bits_of_scalar_in_every_order_of_threads) {
  for (const char* order : {"order=ascending", "order=descending", "order=scattered"}) {
    setenv("PPPML_CUDA_HOST", order, 1);
    over_sets([](const Party& party) { CHECK(encrypt_on_device(party) == party.encrypt()); });
  }
  unsetenv("PPPML_CUDA_HOST");
}

TEST(opening_has_the_bits_and_the_residuals_of_scalar) {
  for (const char* order : {"order=ascending", "order=descending", "order=scattered"}) {
    setenv("PPPML_CUDA_HOST", order, 1);
    over_sets([](const Party& party) {
      const auto device = ckks::DeviceScheme::create(*party.scheme, 0);
      const Bytes c = party.encrypt(), expected = party.open(c);
      const OnDevice in(c);
      std::vector<float> values(party.weights.size());
      const ckks::RowSource c1{party.public_key ? in.packed() + party.row_bytes() : nullptr, nullptr};
      const auto report = device->open(*party.secret, party.all(), 1, {in.memory.data(), nullptr}, c1,
                                       party.public_key ? nullptr : party.public_seed, nullptr,
                                       {{values.data(), values.size(), kernels::Dtype::kFloat32}}, 1.0, kStream);
      const cuda::DeviceReport found = report->wait();
      CHECK(!found.refuses());
      CHECK(std::memcmp(values.data(), expected.data(), values.size() * sizeof(float)) == 0);
      std::int64_t largest;
      std::memcpy(&largest, expected.data() + values.size() * sizeof(float), sizeof largest);
      CHECK_EQUAL(static_cast<std::int64_t>(found.largest_residual), largest);
    });
  }
  unsetenv("PPPML_CUDA_HOST");
}

TEST(sums_and_moves_have_the_bits_of_scalar) {
  over_sets([](const Party& party) {
    const auto device = ckks::DeviceScheme::create(*party.scheme, 0);
    Bytes c0 = party.encrypt();
    c0.resize(party.row_bytes());
    const OnDevice in(c0), out(c0.size());
    device->add(party.extent(), {in.memory.data(), in.memory.data()}, out.memory.data(), kStream);
    CHECK(out.bytes() == party.add(c0));
    const Bytes hop = party.hop(c0);
    const OnDevice packed(hop.size());
    device->move(party.extent(), 0, party.blocks, {in.memory.data(), nullptr}, nullptr, {nullptr, packed.packed()},
                 kStream);
    device->move(party.extent(), 0, party.blocks, {nullptr, packed.packed()}, in.memory.data(),
                 {nullptr, packed.packed()}, kStream);
    CHECK(packed.bytes() == hop);
    const auto report = device->move(party.extent(), 0, party.blocks, {nullptr, packed.packed()}, nullptr,
                                     {out.memory.data(), nullptr}, kStream);
    CHECK(!report->wait().refuses());
    CHECK(out.bytes() == party.add(c0));
  });
}

TEST(reduction_and_products_are_those_of_base) {
  std::uint64_t state = 7;
  for (const std::uint64_t q : {std::uint64_t{2147389441}, std::uint64_t{2147352577}, std::uint64_t{12289}}) {
    const auto narrow = static_cast<std::uint32_t>(q);
    for (int i = 0; i < 20000; ++i) {
      const auto a = static_cast<std::uint32_t>(next(&state)), w = static_cast<std::uint32_t>(next(&state) % q);
      const cuda::Factor<std::uint32_t> factor{w, shoup_companion(w, narrow)};
      CHECK_EQUAL(cuda::multiply(a, factor, narrow), static_cast<std::uint32_t>(std::uint64_t{a} * w % q));
      CHECK_EQUAL(cuda::add(a % narrow, w, narrow), static_cast<std::uint32_t>((std::uint64_t{a % narrow} + w) % q));
    }
  }
  for (const std::uint64_t q : {std::uint64_t{1125899906826241}, std::uint64_t{1152921504606830593}}) {
    for (int i = 0; i < 20000; ++i) {
      const std::uint64_t a = next(&state), w = next(&state) % q;
      const cuda::Factor<std::uint64_t> factor{w, shoup_companion(w, q)};
      CHECK_EQUAL(cuda::multiply(a, factor, q), static_cast<std::uint64_t>(static_cast<Uint128>(a) * w % q));
    }
  }
}

TEST(every_gaussian_threshold_decides_as_the_table_does) {
  const kernels::GaussianTable tables[] = {
      {kernels::tables::kCollectiveErrorLargest, 0, kernels::tables::kCollectiveErrorHigh,
       kernels::tables::kCollectiveErrorLow},
      {kernels::tables::kErrorLargest, 0, kernels::tables::kErrorHigh, kernels::tables::kErrorLow}};
  std::uint64_t state = 3;
  for (const kernels::GaussianTable& table : tables) {
    const cuda::GaussianLookupTable made(table);
    const cuda::GaussianLookup lookup({made.thresholds.data(), made.bases.data(), 0, nullptr, nullptr}, 0);
    std::vector<std::uint32_t> tops = {0, 1, 2, 0x7fffffff, 0x7ffffffe};
    for (unsigned t = 0; t < table.largest; ++t) {
      for (const int step : {-1, 0, 1}) tops.push_back((table.high[t] + static_cast<std::uint32_t>(step)) & 0x7fffffff);
    }
    for (int i = 0; i < 100000; ++i) tops.push_back(static_cast<std::uint32_t>(next(&state)) >> (1 + i % 31));
    for (int i = 0; i < 100000; ++i)
      tops.push_back(0x7fffffff - (static_cast<std::uint32_t>(next(&state)) >> (1 + i % 31)));
    for (const std::uint32_t top : tops) {
      std::int32_t size = 0;
      bool tie = false;
      for (unsigned t = 0; t < table.largest; ++t) {
        size += top > table.high[t] ? 1 : 0;
        tie |= top == table.high[t];
      }
      std::uint32_t tied = 0;
      const std::int32_t positive = lookup.sample(top << 1, &tied), negative = lookup.sample(top << 1 | 1, &tied);
      CHECK_EQUAL(tied != 0, tie);
      if (!tie) CHECK_EQUAL(positive, size);
      CHECK_EQUAL(negative, -positive);
    }
  }
}

TEST(packed_rows_of_any_width_at_any_address) {
  std::uint64_t state = 5;
  for (unsigned bits = 14; bits <= 60; ++bits) {
    kernels::PrimeTable<std::uint64_t> prime{};
    prime.bits = bits;
    prime.modulus = std::uint64_t{1} << bits;
    for (const unsigned count : {1u, 7u, 64u, 333u}) {
      std::vector<std::uint64_t> row(count), back(count);
      for (std::uint64_t& residue : row) residue = next(&state) >> (64 - bits);
      const std::size_t bytes = cuda::packed_bytes(bits, count);
      Bytes expected(bytes);
      kernels::scalar::table<std::uint64_t>().pack_row(prime, row.data(), count, expected.data());
      for (unsigned shift = 0; shift < 5; ++shift) {
        Bytes space(bytes + shift + 1, 0x77);
        const cuda::PackedWriter writer(space.data() + shift, bits, count);
        for (unsigned w = 0; w < writer.words(); ++w) writer.write(w, [&](unsigned k) { return row[k]; });
        CHECK(std::memcmp(space.data() + shift, expected.data(), bytes) == 0);
        CHECK(space[bytes + shift] == 0x77);
        const cuda::PackedRow reader(space.data() + shift, bits, count);
        for (unsigned k = 0; k < count; ++k) back[k] = reader[k];
        CHECK(back == row);
        CHECK(reader.padding_is_zero());
      }
    }
  }
}

TEST(halves_come_and_go_exactly) {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    const float value = cuda::half_to_float(half);
    const int exponent = static_cast<int>(bits >> 10 & 31), fraction = static_cast<int>(bits & 1023);
    if (exponent == 31) {
      CHECK(fraction == 0 ? std::isinf(value) : std::isnan(value));
      continue;
    }
    const float size = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24)
                                     : std::ldexp(static_cast<float>(1024 + fraction), exponent - 25);
    CHECK((bits >> 15 ? -size : size) == value && std::signbit(value) == (bits >> 15 != 0));
    CHECK_EQUAL(cuda::double_to_half(value), half);
    // Just beyond the middle to the next one, and the middle itself: to even.
    if ((bits & 0x7fff) == 0x7bff) continue;
    const double step = exponent == 0 ? 0x1p-24 : std::ldexp(1.0, exponent - 25), sign = bits >> 15 ? -1 : 1;
    const double middle = value + sign * step / 2;
    CHECK_EQUAL(cuda::double_to_half(middle), static_cast<std::uint16_t>(half + (fraction & 1)));
    CHECK_EQUAL(cuda::double_to_half(middle + sign * step * 0x1p-30), static_cast<std::uint16_t>(half + 1));
    CHECK_EQUAL(cuda::double_to_half(middle - sign * step * 0x1p-30), half);
  }
  CHECK_EQUAL(cuda::double_to_half(65520.0), 0x7c00);
  CHECK_EQUAL(cuda::float_to_bfloat16(1.0f), 0x3f80);
  CHECK_EQUAL(cuda::float_to_bfloat16(1.00390625f), 0x3f80);  // the middle: to even
  CHECK_EQUAL(cuda::float_to_bfloat16(1.01171875f), 0x3f82);
}

TEST(banks_are_all_different) {
  // Offsets of the threads of a warp in every pass; for 64-bit words of half a warp, whose banks are pairs.
  const auto distinct = [](unsigned lanes, auto bank) {
    std::uint32_t seen = 0;
    for (unsigned lane = 0; lane < lanes; ++lane) seen |= 1u << bank(lane);
    return seen == (lanes == 32 ? 0xffffffffu : 0xffffu);
  };
  for (unsigned warp = 0; warp < cuda::P31::kThreads; warp += 32) {
    for (unsigned i = 0; i < 8; ++i) {
      const auto narrow = [&](unsigned k) { return cuda::bank_order<std::uint32_t>(k) % 32; };
      CHECK(distinct(32, [&](unsigned lane) { return narrow(cuda::Pass<cuda::P31, 0>::element(warp + lane, i)); }));
      CHECK(distinct(32, [&](unsigned lane) { return narrow(cuda::Pass<cuda::P31, 1>::element(warp + lane, i)); }));
      CHECK(distinct(32, [&](unsigned lane) { return narrow(cuda::Pass<cuda::P31, 2>::element(warp + lane, i)); }));
      CHECK(distinct(32, [&](unsigned lane) { return narrow(cuda::Pass<cuda::P31, 3>::element(warp + lane, i)); }));
      CHECK(distinct(32, [&](unsigned lane) { return narrow((warp + lane) * 16 % 2048 + i); }));
      const auto wide = [&](unsigned k) { return cuda::bank_order<std::uint64_t>(k) % 16; };
      for (unsigned half = warp; half < warp + 32; half += 16) {
        CHECK(distinct(16, [&](unsigned lane) { return wide(cuda::Pass<cuda::P50, 0>::element(half + lane, i)); }));
        CHECK(distinct(16, [&](unsigned lane) { return wide(cuda::Pass<cuda::P50, 1>::element(half + lane, i)); }));
        CHECK(distinct(16, [&](unsigned lane) { return wide(cuda::Pass<cuda::P50, 2>::element(half + lane, i)); }));
        CHECK(distinct(16, [&](unsigned lane) { return wide(cuda::Pass<cuda::P50, 3>::element(half + lane, i)); }));
      }
    }
  }
}

TEST(memory_of_a_device_is_given_back_and_bounded) {
  setenv("PPPML_CUDA_HOST", "memory=1000", 1);
  const std::uint64_t before = cuda::describe(0).free_memory;
  {
    cuda::DeviceMemory some(kStream, 600, cuda::Secrecy::kSecret);
    CHECK_EQUAL(before - cuda::describe(0).free_memory, std::uint64_t{600});
    CHECK_EQUAL(cuda::device_of(static_cast<char*>(some.data()) + 599), 0);
    bool refused = false;
    try {
      cuda::DeviceMemory more(kStream, 600, cuda::Secrecy::kPublic);
    } catch (const cuda::DeviceMemoryError& error) {
      refused = std::string(error.what()).find("600 bytes on device 0") != std::string::npos;
    }
    CHECK(refused);
    const cuda::DeviceMemory moved(std::move(some));
    CHECK(some.data() == nullptr && moved.data() != nullptr);
  }
  CHECK_EQUAL(cuda::describe(0).free_memory, before);
  unsetenv("PPPML_CUDA_HOST");
}
