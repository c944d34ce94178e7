// The processor plays the device: kernels run thread by thread and phase by phase. For tests alone.
//
// PPPML_CUDA_HOST tells what to play, as key=value separated by commas: devices=N, memory=BYTES per device,
// driver=none or driver=old, order=ascending, descending or scattered, queued=1: streams hold their work back until
// somebody waits for it, as late as a device may ever do it, so that memory which is reused or given back too early
// shows.
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "base/buffer.hpp"
#include "base/check.hpp"
#include "kernels/cuda/encrypt.hpp"
#include "kernels/cuda/identity.hpp"
#include "kernels/cuda/launch.hpp"
#include "kernels/cuda/open.hpp"
#include "kernels/cuda/sums.hpp"

namespace pppml::kernels::cuda {

namespace {

std::string setting(const std::string& key, const std::string& otherwise) {
  const char* text = std::getenv("PPPML_CUDA_HOST");
  const std::string all = text == nullptr ? "" : "," + std::string(text) + ",";
  const std::size_t at = all.find("," + key + "=");
  if (at == std::string::npos) return otherwise;
  const std::size_t begin = at + key.size() + 2;
  return all.substr(begin, all.find(',', begin) - begin);
}

Order order() {
  const std::string name = setting("order", "ascending");
  return name == "descending" ? Order::kDescending : name == "scattered" ? Order::kScattered : Order::kAscending;
}

// What was allocated: memory that is not given back, or given back twice, is a finding.
struct Allocations {
  struct Block {
    int device;
    std::size_t bytes;
  };
  std::mutex mutex;
  std::map<const void*, Block> blocks;
  std::map<const void*, std::size_t> pinned;
  std::map<int, std::size_t> used;
};

Allocations& allocations() {
  static Allocations all;
  return all;
}

void check_device(const Stream& stream) {
  const std::string reason = why_unusable();
  if (!reason.empty()) throw DeviceError(reason);
  if (stream.device >= 0 && stream.device < device_count()) return;
  throw DeviceError(concatenate("device ", stream.device, " does not exist; there are ", device_count()));
}

// What a stream was given and has not done.
struct Queue {
  std::vector<std::function<void()>> work;
  std::size_t done = 0;
};
struct Queues {
  std::recursive_mutex mutex;
  std::map<std::pair<int, void*>, Queue> streams;

  Queue& of(Stream stream) { return streams[{stream.device, stream.handle}]; }
};

Queues& queues() {
  static Queues all;
  return all;
}

// Lets a stream do its first `count` pieces of work, as far as they are not done.
void run_queue(Stream stream, std::size_t count) {
  const std::lock_guard<std::recursive_mutex> lock(queues().mutex);
  while (queues().of(stream).done < count) {
    Queue& queue = queues().of(stream);
    const std::function<void()> work = std::move(queue.work[queue.done++]);
    work();
  }
}

void run_queue(Stream stream) {
  const std::lock_guard<std::recursive_mutex> lock(queues().mutex);
  run_queue(stream, queues().of(stream).work.size());
}

void enqueue(Stream stream, std::function<void()> work) {
  const std::lock_guard<std::recursive_mutex> lock(queues().mutex);
  queues().of(stream).work.push_back(std::move(work));
  if (setting("queued", "0") == "0") run_queue(stream);
}

template <unsigned kThreads, class Shared, class Body>
void run(Stream stream, std::uint64_t blocks, Body body) {
  check_device(stream);
  enqueue(stream, [blocks, body] {
    const auto shared = std::make_unique<Shared>();
    for (std::uint64_t b = 0; b < blocks; ++b) {
      std::memset(static_cast<void*>(shared.get()), 0xa5, sizeof(Shared));  // nobody finds zeros by chance
      body(HostGroup<kThreads>{b, order()}, *shared);
    }
  });
}

struct Nothing {
  char unused;
};

bool is_pinned(const void* memory) {
  const std::lock_guard<std::mutex> lock(allocations().mutex);
  auto found = allocations().pinned.upper_bound(memory);
  if (found == allocations().pinned.begin()) return false;
  --found;
  const auto distance = static_cast<const char*>(memory) - static_cast<const char*>(found->first);
  return static_cast<std::size_t>(distance) < found->second;
}

// Leaves nothing for whoever reads on.
void give_back(void* memory, std::size_t bytes) {
  std::memset(memory, 0x5a, bytes);
  std::free(memory);
}

}  // namespace

bool built() {
  return true;
}

std::string why_unusable() {
  const std::string driver = setting("driver", "played");
  if (driver == "none") return "cudaGetDeviceCount: no CUDA-capable device is detected";
  if (driver == "old") {
    return "cudaGetDeviceCount: CUDA driver version is insufficient for CUDA runtime version: the driver supports CUDA "
           "12.2, this build needs 13.0; update the driver";
  }
  return device_count() == 0 ? "no CUDA device is visible; see CUDA_VISIBLE_DEVICES" : "";
}

int device_count() {
  return setting("driver", "played") == "played" ? std::stoi(setting("devices", "1")) : 0;
}

DeviceDescription describe(int device) {
  check_device({device, nullptr});
  const std::uint64_t memory = std::stoull(setting("memory", "4294967296"));
  const std::lock_guard<std::mutex> lock(allocations().mutex);
  return {"the processor, playing a device", 0, 0, memory, memory - allocations().used[device]};
}

int device_of(const void* pointer) {
  const std::lock_guard<std::mutex> lock(allocations().mutex);
  auto found = allocations().blocks.upper_bound(pointer);
  if (found == allocations().blocks.begin()) return -1;
  --found;
  const auto distance = static_cast<const char*>(pointer) - static_cast<const char*>(found->first);
  return static_cast<std::size_t>(distance) < found->second.bytes ? found->second.device : -1;
}

void synchronize(Stream stream) {
  check_device(stream);
  run_queue(stream);
}

void wait(Stream stream, Stream producer) {
  check_device(stream);
  check_device(producer);
  const std::lock_guard<std::recursive_mutex> lock(queues().mutex);
  const std::size_t count = queues().of(producer).work.size();
  enqueue(stream, [producer, count] { run_queue(producer, count); });
}

void copy_to_device(Stream stream, void* device, const void* host, std::size_t bytes) {
  check_device(stream);
  if (bytes == 0) return;
  if (is_pinned(host)) {
    enqueue(stream, [=] { std::memcpy(device, host, bytes); });
    return;
  }
  // Other memory is read before the call returns.
  const auto* const begin = static_cast<const char*>(host);
  auto staged = std::make_shared<std::vector<char>>(begin, begin + bytes);
  enqueue(stream, [=] {
    std::memcpy(device, staged->data(), bytes);
    wipe(staged->data(), bytes);
  });
}

void copy_to_host(Stream stream, void* host, const void* device, std::size_t bytes) {
  synchronize(stream);
  std::memcpy(host, device, bytes);
}

void queue_to_host(Stream stream, void* host, const void* device, std::size_t bytes) {
  check_device(stream);
  if (!is_pinned(host)) throw DeviceError("a copy that nobody waits for goes to pinned memory");
  enqueue(stream, [=] { std::memcpy(host, device, bytes); });
}

void zero(Stream stream, void* device, std::size_t bytes) {
  check_device(stream);
  enqueue(stream, [=] { std::memset(device, 0, bytes); });
}

void* allocate(Stream stream, std::size_t bytes) {
  check_device(stream);
  const std::size_t memory = std::stoull(setting("memory", "4294967296"));
  const std::lock_guard<std::mutex> lock(allocations().mutex);
  std::size_t& used = allocations().used[stream.device];
  if (used + bytes > memory) {
    throw DeviceMemoryError(concatenate("cudaMallocAsync of ", bytes, " bytes on device ", stream.device,
                                        ": out of memory; ", memory - used, " of ", memory,
                                        " bytes are free. Free tensors, or work on fewer blocks at a time"));
  }
  // As CUDA aligns it; its contents are anybody's.
  void* data = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  if (data == nullptr) throw DeviceMemoryError("the processor has no memory left for the device that it plays");
  std::memset(data, 0xa5, bytes);
  used += bytes;
  allocations().blocks[data] = {stream.device, bytes};
  return data;
}

void release(Stream stream, void* memory) noexcept {
  enqueue(stream, [=] {
    const std::lock_guard<std::mutex> lock(allocations().mutex);
    const auto found = allocations().blocks.find(memory);
    if (found == allocations().blocks.end()) std::abort();
    allocations().used[found->second.device] -= found->second.bytes;
    give_back(memory, found->second.bytes);
    allocations().blocks.erase(found);
  });
}

void zero_quietly(Stream stream, void* memory, std::size_t bytes) noexcept {
  enqueue(stream, [=] { std::memset(memory, 0, bytes); });
}

void* allocate_pinned(int device, std::size_t bytes) {
  check_device({device, nullptr});
  void* const data = std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  if (data == nullptr) throw DeviceMemoryError("the processor has no memory left to play pinned memory");
  std::memset(data, 0xa5, bytes);
  const std::lock_guard<std::mutex> lock(allocations().mutex);
  allocations().pinned[data] = bytes;
  return data;
}

void release_pinned(void* memory) noexcept {
  const std::lock_guard<std::mutex> lock(allocations().mutex);
  const auto found = allocations().pinned.find(memory);
  if (found == allocations().pinned.end()) std::abort();
  give_back(memory, found->second);
  allocations().pinned.erase(found);
}

template <class Shape>
void launch_encrypt(Stream stream, const EncryptRequest<Shape>& request) {
  run<Shape::kThreads, State<Shape>>(stream, request.batch.blocks, [=](const auto& group, State<Shape>& shared) {
    encrypt_block<Shape>(group, request, shared);
  });
}

template <class Shape>
void launch_encrypt_public(Stream stream, const PublicRequest<Shape>& request) {
  run<Shape::kThreads, PublicState<Shape>>(
      stream, request.message.batch.blocks,
      [=](const auto& group, PublicState<Shape>& shared) { encrypt_public_block<Shape>(group, request, shared); });
}

template <class Shape>
void launch_open(Stream stream, const OpenRequest<Shape>& request) {
  run<Shape::kThreads, State<Shape>>(stream, request.batch.blocks, [=](const auto& group, State<Shape>& shared) {
    open_block<Shape>(group, request, shared);
  });
}

template <class Shape>
void launch_sum(Stream stream, const SumRequest<Shape>& request) {
  run<Shape::kThreads, Nothing>(stream, request.batch.blocks,
                                [=](const auto& group, Nothing&) { sum_block<Shape>(group, request); });
}

template <class Shape>
void launch_move(Stream stream, const MoveRequest<Shape>& request) {
  run<Shape::kThreads, State<Shape>>(stream, request.batch.blocks, [=](const auto& group, State<Shape>& shared) {
    move_block<Shape>(group, request, shared.row);
  });
}

void launch_wipe(Stream stream, const WipeRequest& request) {
  run<kWipeThreads, Nothing>(stream, kWipeBlocks, [=](const auto& group, Nothing&) { wipe_block(group, request); });
}

void launch_tag(Stream stream, const TagRequest& request, std::uint64_t pieces) {
  run<kTagThreads, TagState>(stream, pieces,
                             [=](const auto& group, TagState& state) { tag_block(group, request, state); });
}

PPPML_CUDA_INSTANTIATE(P31)
PPPML_CUDA_INSTANTIATE(P50)
PPPML_CUDA_INSTANTIATE(P62)
PPPML_CUDA_INSTANTIATE(Compact)

}  // namespace pppml::kernels::cuda
