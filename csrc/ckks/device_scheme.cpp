#include "ckks/device_scheme.hpp"

#include <algorithm>
#include <cstring>

#include "base/check.hpp"
#include "ckks/device_parcel.hpp"
#include "ckks/scheme_impl.hpp"
#include "kernels/cuda/launch.hpp"
#include "kernels/cuda/tables.hpp"

namespace pppml::ckks {
namespace {

namespace cuda = kernels::cuda;

cuda::DeviceKey key_words(const std::uint8_t* bytes) {
  cuda::DeviceKey key;
  std::memcpy(key.words, bytes, sizeof key.words);  // words of a stream key are little-endian, as devices and hosts are
  return key;
}

}  // namespace

PendingReport::PendingReport(Stream stream) : memory_(stream, sizeof(cuda::DeviceReport), cuda::Secrecy::kPublic) {
  cuda::copy_to_device(stream, memory_.data(), &cuda::kCleanReport, sizeof cuda::kCleanReport);
}

kernels::cuda::DeviceReport PendingReport::wait() const {
  cuda::DeviceReport report;
  cuda::copy_to_host(memory_.stream(), &report, memory_.data(), sizeof report);
  return report;
}

namespace {

template <class Shape>
class DeviceSchemeImpl final : public DeviceScheme {
  using Word = typename Shape::Word;
  using Factor = cuda::Factor<Word>;

 public:
  DeviceSchemeImpl(const SchemeImpl<Word>& host, int device)
      : DeviceScheme(host, device), host_(host), tables_(table_bytes()) {
    const kernels::RingTable<Word>& ring = host.ring().table();
    const std::size_t degree = Shape::kDegree;
    Factor *roots[Shape::kPrimes], *inverse_roots[Shape::kPrimes];
    for (std::size_t l = 0; l < Shape::kPrimes; ++l) {
      const kernels::PrimeTable<Word>& prime = ring.primes[l];
      cuda::interleave(prime.roots, prime.root_companions, degree, roots[l] = tables_.reserve<Factor>(degree));
      cuda::interleave(prime.inverse_roots, prime.inverse_root_companions, degree,
                       inverse_roots[l] = tables_.reserve<Factor>(degree));
    }
    const kernels::GaussianTable& error = host.error_table();
    const cuda::GaussianLookupTable lookup(error);
    auto* const thresholds = tables_.reserve<std::uint32_t>(lookup.thresholds.size());
    auto* const bases = tables_.reserve<std::uint32_t>(lookup.bases.size());
    auto* const high = tables_.reserve<std::uint32_t>(error.largest);
    auto* const low = tables_.reserve<std::uint64_t>(error.largest);
    std::copy(lookup.thresholds.begin(), lookup.thresholds.end(), thresholds);
    std::copy(lookup.bases.begin(), lookup.bases.end(), bases);
    std::copy(error.high, error.high + error.largest, high);
    std::copy(error.low, error.low + error.largest, low);
    const Stream stream{device, nullptr};
    tables_.send(stream, cuda::Secrecy::kPublic);
    cuda::synchronize(stream);  // other streams will read them
    for (std::size_t l = 0; l < Shape::kPrimes; ++l) {
      const kernels::PrimeTable<Word>& prime = ring.primes[l];
      ring_.primes[l] = {
          prime.modulus, prime.bits, prime.ratio, prime.lift, tables_.sent(roots[l]), tables_.sent(inverse_roots[l])};
    }
    ring_.garner = {ring.garner, ring.garner_companion};
    error_ = {tables_.sent(thresholds), tables_.sent(bases), error.largest, tables_.sent(high), tables_.sent(low)};
  }

  std::unique_ptr<PendingReport> encrypt(const SecretKey& secret, const ring::StreamKey& noise,
                                         const std::uint8_t* public_seed, const DevicePlain& plain, const Range& range,
                                         const std::uint8_t* incoming, const RowTarget& out,
                                         Stream stream) const override {
    const auto& factor = SecretKeyImpl<Word>::factor_of(secret, Shape::kBlockWords);
    auto report = std::make_unique<PendingReport>(stream);
    if (range.start == range.stop) return report;
    Parcel parcel = message_parcel(plain, 1);
    cuda::EncryptRequest<Shape> request = message_request(plain, range, incoming, out, parcel, noise);
    request.secret = place_factor(factor, parcel);
    request.public_key = key_words(public_seed);
    request.report = report->on_device();
    send_message(request, parcel, stream);
    cuda::launch_encrypt<Shape>(stream, request);
    wipe_refused(*report, out, {range.length, true}, range);
    return report;
  }

  std::unique_ptr<PendingReport> encrypt_public(const PublicKey& key, const ring::StreamKey& noise,
                                                const DevicePlain& plain, const Range& range, const RowTarget& c0,
                                                const RowTarget& c1, Stream stream) const override {
    const auto* pk = dynamic_cast<const PublicKeyImpl<Word>*>(&key);
    require(pk != nullptr && pk->factor0.values.size() == Shape::kBlockWords, "the public key belongs to another ring");
    auto report = std::make_unique<PendingReport>(stream);
    if (range.start == range.stop) return report;
    Parcel parcel = message_parcel(plain, 2);
    cuda::PublicRequest<Shape> request{message_request(plain, range, nullptr, c0, parcel, noise), nullptr, rows(c1)};
    request.message.secret = place_factor(pk->factor0, parcel);
    request.public1 = place_factor(pk->factor1, parcel);
    request.message.report = report->on_device();
    send_message(request.message, parcel, stream);
    request.public1 = parcel.sent(request.public1);
    cuda::launch_encrypt_public<Shape>(stream, request);
    wipe_refused(*report, c0, {range.length, true}, range);
    wipe_refused(*report, c1, {range.length, false}, range);
    return report;
  }

  void add(const Extent& extent, const std::vector<const void*>& inputs, void* out, Stream stream) const override {
    require(!inputs.empty(), "nothing to add: give at least one ciphertext");
    const std::uint64_t blocks = host_.parameters().block_count(extent.length);
    if (blocks == 0) return;
    cuda::SumRequest<Shape> request{ring_, host_.batch(extent, 0, blocks), {}, 0, static_cast<Word*>(out)};
    // A launch overwrites `out`, with what is the first summand of the next one: whatever it held goes into the first.
    std::vector<const void*> left = inputs;
    const auto others = std::stable_partition(left.begin(), left.end(), [&](const void* in) { return in == out; });
    require(others - left.begin() <= request.kMost, "out is more than ", request.kMost, " of the summands");
    for (std::size_t done = 0; done < left.size(); cuda::launch_sum<Shape>(stream, request)) {
      request.count = 0;
      if (done > 0) request.inputs[request.count++] = request.out;
      while (request.count < request.kMost && done < left.size()) {
        request.inputs[request.count++] = static_cast<const Word*>(left[done++]);
      }
    }
  }

  std::unique_ptr<PendingReport> move(const Extent& extent, std::uint64_t start, std::uint64_t stop,
                                      const RowSource& in, const void* mine, const RowTarget& out,
                                      Stream stream) const override {
    auto report = std::make_unique<PendingReport>(stream);
    if (start == stop) return report;
    cuda::launch_move<Shape>(stream, {ring_, host_.batch(extent, start, stop), rows(in), static_cast<const Word*>(mine),
                                      rows(out), report->on_device()});
    wipe_refused(*report, out, extent, {extent.length, start, stop});
    return report;
  }

  std::unique_ptr<PendingReport> open(const SecretKey& secret, const Range& range, std::uint64_t terms,
                                      const RowSource& c0, const RowSource& c1, const std::uint8_t* public_seed,
                                      std::int64_t* integers, const std::vector<DeviceTensor>& tensors, double divisor,
                                      Stream stream) const override {
    const auto& factor = SecretKeyImpl<Word>::factor_of(secret, Shape::kBlockWords);
    const std::uint64_t count = host_.weights(range), first = range.start * host_.parameters().block_weights();
    require(integers != nullptr || length_of(tensors) == count, "the tensors hold ", length_of(tensors),
            " values; blocks ", range.start, " .. ", range.stop, " open to ", count);
    auto report = std::make_unique<PendingReport>(stream);
    if (range.start == range.stop) return report;
    const Headroom& headroom = host_.parameters().headroom();
    const std::vector<cuda::DeviceSpan> spans = spans_of(tensors, first);
    Parcel parcel(Parcel::room<Factor>(Shape::kBlockWords) + Parcel::room<cuda::DeviceSpan>(spans.size()));
    cuda::OpenRequest<Shape> request{};
    request.ring = ring_;
    request.batch = host_.batch({range.length, true}, range.start, range.stop);
    request.c0 = rows(c0);
    request.c1 = rows(c1);
    if (public_seed != nullptr) request.public_key = key_words(public_seed);
    request.secret = place_factor(factor, parcel);
    request.delta = headroom.delta;
    const double variance = host_.residual_variance(terms);
    request.full_limit = kernels::residual_limit(variance, Shape::kDegree);
    request.last_limit = kernels::residual_limit(variance, request.batch.last_length);
    request.out = {host_.parameters().values_per_coefficient(),
                   headroom.base,
                   headroom.sum_bound,
                   host_.parameters().step(),
                   divisor,
                   count,
                   integers,
                   integers != nullptr ? cuda::DeviceTensors{} : place_spans(parcel, spans)};
    request.report = report->on_device();
    parcel.send(stream, cuda::Secrecy::kSecret);
    request.secret = parcel.sent(request.secret);
    if (integers == nullptr) request.out.spans.spans = parcel.sent(request.out.spans.spans);
    cuda::launch_open<Shape>(stream, request);
    cuda::launch_wipe(stream, {report->on_device(), reinterpret_cast<std::uint8_t*>(integers),
                               integers != nullptr ? count * sizeof(std::int64_t) : 0, request.out.spans});
    return report;
  }

 private:
  static std::size_t table_bytes() {
    constexpr std::size_t kMostThresholds = 64;
    return 2 * Shape::kPrimes * Parcel::room<Factor>(Shape::kDegree) +
           2 * Parcel::room<std::uint32_t>(cuda::DeviceGaussian::kBuckets) +
           2 * Parcel::room<std::uint64_t>(kMostThresholds);
  }

  static kernels::RowsIn<Word> rows(const RowSource& source) {
    return {static_cast<const Word*>(source.words), source.packed};
  }
  static kernels::RowsOut<Word> rows(const RowTarget& target) {
    return {static_cast<Word*>(target.words), target.packed};
  }

  static Parcel message_parcel(const DevicePlain& plain, std::size_t factors) {
    return Parcel(factors * Parcel::room<Factor>(Shape::kBlockWords) + Parcel::room<cuda::DeviceKey>(1) +
                  Parcel::room<cuda::DeviceSpan>(plain.tensors.size() + 1) +
                  Parcel::room<cuda::DeviceSpan>(plain.reference.size() + 1));
  }

  template <class SomeFactor>
  static const Factor* place_factor(const SomeFactor& factor, Parcel& parcel) {
    Factor* const place = parcel.reserve<Factor>(Shape::kBlockWords);
    cuda::interleave(factor.values.data(), factor.companions.data(), Shape::kBlockWords, place);
    return place;
  }

  // Everything but key, factors and report; pointers into the parcel are the host's until it is sent.
  cuda::EncryptRequest<Shape> message_request(const DevicePlain& plain, const Range& range,
                                              const std::uint8_t* incoming, const RowTarget& out, Parcel& parcel,
                                              const ring::StreamKey& noise) const {
    require(length_of(plain.tensors) == range.length, "the tensors hold ", length_of(plain.tensors),
            " values; the vector has ", range.length);
    require(plain.reference.empty() || length_of(plain.reference) == range.length, "the reference has ",
            length_of(plain.reference), " values; the tensors have ", range.length);
    cuda::EncryptRequest<Shape> request{};
    request.ring = ring_;
    request.batch = host_.batch({range.length, true}, range.start, range.stop);
    request.error = error_;
    request.codec = host_.codec(plain.weight);
    auto* const key = parcel.reserve<cuda::DeviceKey>(1);
    std::memcpy(key->words, noise.data(), sizeof key->words);
    request.noise_key = key;
    request.tensors = place_spans(parcel, spans_of(plain.tensors, 0));
    if (!plain.reference.empty()) request.reference = place_spans(parcel, spans_of(plain.reference, 0));
    request.incoming = incoming;
    request.out = rows(out);
    return request;
  }

  static void send_message(cuda::EncryptRequest<Shape>& request, Parcel& parcel, Stream stream) {
    parcel.send(stream, cuda::Secrecy::kSecret);
    request.secret = parcel.sent(request.secret);
    request.noise_key = parcel.sent(request.noise_key);
    request.tensors.spans = parcel.sent(request.tensors.spans);
    if (request.reference.spans != nullptr) request.reference.spans = parcel.sent(request.reference.spans);
  }

  void wipe_refused(const PendingReport& report, const RowTarget& out, const Extent& extent, const Range& range) const {
    const bool packed = out.packed != nullptr;
    const std::size_t bytes = packed ? host_.packed_bytes(extent, range.start, range.stop)
                                     : host_.words(extent, range.start, range.stop) * sizeof(Word);
    auto* const data = packed ? out.packed : static_cast<std::uint8_t*>(out.words);
    cuda::launch_wipe(report.stream(), {report.on_device(), data, bytes, {}});
  }

  const SchemeImpl<Word>& host_;
  Parcel tables_;
  cuda::DeviceRing<Shape> ring_{};
  cuda::DeviceGaussian error_{};
};

template <class Shape>
std::unique_ptr<DeviceScheme> create_if_shaped(const Scheme& host, int device) {
  const Parameters& parameters = host.parameters();
  const bool fits = parameters.narrow_words() == Shape::kNarrow && parameters.log_degree() == Shape::kLogDegree &&
                    parameters.primes().size() == Shape::kPrimes;
  if (!fits) return nullptr;
  const auto& impl = dynamic_cast<const SchemeImpl<typename Shape::Word>&>(host);
  return std::make_unique<DeviceSchemeImpl<Shape>>(impl, device);
}

}  // namespace

std::unique_ptr<DeviceScheme> DeviceScheme::create(const Scheme& host, int device) {
  const std::string reason = cuda::why_unusable();
  if (!reason.empty()) throw cuda::DeviceError(reason);
  if (device < 0 || device >= cuda::device_count()) {
    throw cuda::DeviceError(
        concatenate("device ", device, " does not exist; devices 0 .. ", cuda::device_count() - 1, " are here"));
  }
  require(!host.parameters().slots(),
          "slots are encoded on the host: encrypt their weights there, or take packing='coefficients'");
  std::unique_ptr<DeviceScheme> scheme = create_if_shaped<cuda::P31>(host, device);
  if (!scheme) scheme = create_if_shaped<cuda::P50>(host, device);
  if (!scheme) scheme = create_if_shaped<cuda::P62>(host, device);
  if (!scheme) scheme = create_if_shaped<cuda::Compact>(host, device);
  require(scheme != nullptr, "ring dimension ", host.parameters().ring_dimension(), " with ",
          host.parameters().primes().size(),
          " prime(s) has no kernels for CUDA; they serve rings of the shapes of p31, p50, p62 and compact");
  return scheme;
}

}  // namespace pppml::ckks
