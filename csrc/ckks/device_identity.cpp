#include "ckks/device_identity.hpp"

#include "ckks/device_parcel.hpp"
#include "kernels/cuda/identity.hpp"
#include "kernels/cuda/launch.hpp"

namespace pppml::ckks {

namespace cuda = kernels::cuda;

PieceTags tag_pieces(const std::vector<DeviceTensor>& tensors, const std::uint8_t* hash_key, std::uint64_t piece,
                     Stream stream) {
  require(piece > 0, "pieces have at least one value");
  const std::uint64_t length = length_of(tensors), pieces = (length + piece - 1) / piece;
  PieceTags result;
  if (pieces == 0) return result;
  const PendingReport report(stream);
  const std::vector<cuda::DeviceSpan> spans = spans_of(tensors, 0);
  Parcel parcel(Parcel::room<cuda::FieldElement>(cuda::kTagPowers) + Parcel::room<cuda::DeviceSpan>(spans.size()));
  auto* const powers = parcel.reserve<cuda::FieldElement>(cuda::kTagPowers);
  const cuda::FieldElement one = {std::uint64_t{1} << 63, 0};
  cuda::FieldElement key = {0, 0};
  for (unsigned i = 0; i < 8; ++i) {
    key.high = key.high << 8 | hash_key[i];
    key.low = key.low << 8 | hash_key[8 + i];
  }
  powers[0] = one;
  for (unsigned i = 1; i < cuda::kTagPowers; ++i) powers[i] = cuda::multiply(powers[i - 1], key);
  cuda::TagRequest request = {place_spans(parcel, spans), length, piece, nullptr, nullptr, report.on_device()};
  parcel.send(stream, cuda::Secrecy::kSecret);
  request.tensors.spans = parcel.sent(request.tensors.spans);
  request.powers = parcel.sent(powers);
  const cuda::DeviceMemory tags(stream, pieces * kTagBytes, cuda::Secrecy::kSecret);
  request.tags = static_cast<std::uint8_t*>(tags.data());
  cuda::launch_tag(stream, request, pieces);
  result.tags.resize(pieces * kTagBytes);
  cuda::copy_to_host(stream, result.tags.data(), tags.data(), result.tags.size());
  const cuda::DeviceReport found = report.wait();
  if (found.first_non_finite != UINT64_MAX) result.first_non_finite = found.first_non_finite;
  return result;
}

}  // namespace pppml::ckks
