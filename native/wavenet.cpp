// The boundary: checks of whatever comes in, packing of weights, handles, choice of the kernel.
#include "wavenet.h"

#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "kernel.h"

namespace {

using namespace wavenet;

constexpr int64_t kMaxLayers = 256, kMaxWidth = 4096, kMaxHold = 1 << 16, kMaxReach = 1 << 22, kMaxState = 1 << 26;
constexpr int64_t kMaxWeights = 1 << 30, kMaxSamples = 1 << 26;
constexpr size_t kHugePage = size_t(1) << 21, kCacheLine = 64;

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

void require(bool condition, const std::string& message) {
  if (!condition) throw Error(message);
}

void require_between(int64_t value, int64_t low, int64_t high, const char* name) {
  require(low <= value && value <= high, std::string(name) + " is " + std::to_string(value) + ", expected " +
                                             std::to_string(low) + " to " + std::to_string(high));
}

void require_length(int64_t length, int64_t expected, const char* name) {
  require(length == expected, std::string(name) + " has " + std::to_string(length) + " values, expected " +
                                  std::to_string(expected));
}

// Zeros, aligned. In huge pages where they pay: weights and queues are read from end to end every sample.
class Floats {
 public:
  explicit Floats(size_t count) {
    const size_t bytes = count * sizeof(float), alignment = bytes >= kHugePage / 2 ? kHugePage : kCacheLine;
    const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
    memory_.reset(std::malloc(rounded + alignment));
    if (!memory_) throw std::bad_alloc();
    const auto address = reinterpret_cast<uintptr_t>(memory_.get());
    data_ = reinterpret_cast<float*>((address + alignment - 1) / alignment * alignment);
#if defined(__linux__)
    if (alignment == kHugePage) madvise(data_, rounded, MADV_HUGEPAGE);
#endif
    std::memset(data_, 0, rounded);
  }
  float* data() const { return data_; }

 private:
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  std::unique_ptr<void, Free> memory_;
  float* data_ = nullptr;
};

const Kernel* kernel_of(int isa) {
#if defined(WAVENET_X86)
  if (isa == WAVENET_AVX2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return &kernel_avx2;
  if (isa == WAVENET_AVX512 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx2") &&
      __builtin_cpu_supports("fma"))
    return &kernel_avx512;
#endif
  return isa == WAVENET_PORTABLE ? &kernel_portable : nullptr;
}

struct PackedNet {
  Net net{};
  std::vector<Layer> layers;
  std::unique_ptr<Floats> weights;
  const Kernel* kernel = nullptr;
};

struct OpenStream {
  Stream stream{};
  std::shared_ptr<PackedNet> owner;
  std::vector<int32_t> positions;
  std::vector<int64_t> ahead_times;
  std::unique_ptr<Floats> memory;
  std::atomic<bool> busy{false};
};

template <class T>
class Handles {
 public:
  int64_t add(std::shared_ptr<T> item) {
    const std::lock_guard<std::mutex> lock(mutex_);
    items_.emplace(++last_, std::move(item));
    return last_;
  }
  std::shared_ptr<T> get(int64_t handle, const char* name) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = items_.find(handle);
    require(found != items_.end(), "no open " + std::string(name) + " " + std::to_string(handle));
    return found->second;
  }
  bool remove(int64_t handle) {
    const std::lock_guard<std::mutex> lock(mutex_);
    return items_.erase(handle) == 1;
  }

 private:
  std::mutex mutex_;
  std::unordered_map<int64_t, std::shared_ptr<T>> items_;
  int64_t last_ = 0;
};

Handles<PackedNet> nets;
Handles<OpenStream> streams;

void check(const wavenet_sizes& s, const int32_t* dilations, const wavenet_array* arrays) {
  require_between(s.layers, 1, kMaxLayers, "layers");
  require_between(s.taps, 1, kMaxTaps, "taps");
  require_between(s.residual, 1, kMaxWidth, "residual");
  require_between(s.gate, 2, kMaxWidth, "gate");
  require(s.gate % 2 == 0, "gate is odd");
  require_between(s.skip, 1, kMaxWidth, "skip");
  require_between(s.head, 1, kMaxWidth, "head");
  require_between(s.outputs, 1, kMaxWidth, "outputs");
  require_between(s.output, kMuLaw, kGaussian, "output");
  require_between(s.hold, 1, kMaxHold, "hold");
  if (s.output == kMuLaw) require_between(s.outputs, 256, 256, "outputs of mu-law");
  if (s.output == kGaussian) require_between(s.outputs, 2, 2, "outputs of a Gaussian");
  if (s.output == kLogistics) require(s.outputs % 3 == 0, "outputs of logistics are not a multiple of 3");
  int64_t state = 0;
  for (int layer = 0; layer < s.layers; ++layer) {
    require_between(dilations[layer], 1, kMaxReach, "dilation");
    const int64_t reach = int64_t(s.taps - 1) * dilations[layer];
    require_between(reach, 0, kMaxReach, "reach of a layer");
    state += reach * s.residual;
  }
  require_between(state, 0, kMaxState, "floats in the queues");
  const int64_t L = s.layers, R = s.residual, G = s.gate, S = s.skip, H = s.head, O = s.outputs;
  const int64_t rows = s.output == kMuLaw ? 256 : 2;
  const int64_t expected[] = {rows * R, L * s.taps * R * G, L * (G / 2) * (R + S), L * (R + S), S * H, H, H * O, O};
  const char* names[] = {"inputs", "gates", "mixes", "mix_biases", "head1", "head1_bias", "head2", "head2_bias"};
  int64_t total = 0;
  for (int i = 0; i < 8; ++i) {
    require_length(arrays[i].floats, expected[i], names[i]);
    require(arrays[i].data != nullptr, std::string(names[i]) + " is null");
    total += expected[i];
    require_between(total, 1, kMaxWeights, "weights");
  }
  for (int i = 0; i < 8; ++i)
    for (int64_t k = 0; k < expected[i]; ++k)
      require(std::isfinite(arrays[i].data[k]), std::string(names[i]) + " has values that are not finite");
}

std::shared_ptr<PackedNet> pack(const wavenet_sizes& s, const int32_t* dilations, const wavenet_array* arrays,
                                const Kernel* kernel) {
  auto packed = std::make_shared<PackedNet>();
  packed->kernel = kernel;
  Net& net = packed->net;
  const size_t width = kernel->width;
  const auto padded = [&](size_t size) { return (size + width - 1) / width * width; };
  net.layers = s.layers, net.taps = s.taps, net.residual = s.residual, net.half = s.gate / 2, net.skip = s.skip;
  net.head = s.head, net.outputs = s.outputs, net.output = s.output, net.hold = s.hold;
  net.residual_padded = padded(net.residual), net.half_padded = padded(net.half), net.skip_padded = padded(net.skip);
  net.head_padded = padded(net.head), net.outputs_padded = padded(net.outputs);

  const size_t rp = net.residual_padded, hp = net.half_padded, sp = net.skip_padded, columns = rp + sp;
  const size_t rows = s.output == kMuLaw ? 256 : 2, gate_rows = size_t(net.taps) * net.residual;
  const size_t products = net.layers * (gate_rows * 2 * hp + net.half * columns) + net.skip * net.head_padded +
                          net.head * net.outputs_padded;
  const size_t others = rows * rp + net.layers * columns + net.head_padded + net.outputs_padded;
  packed->weights = std::make_unique<Floats>(products + others);
  float* at = packed->weights->data();
  const auto take = [&](size_t count) { return std::exchange(at, at + count); };

  packed->layers.resize(net.layers);
  const int R = net.residual, S = net.skip, half = net.half;
  const auto gates = [&](const float* from, int rows) {
    float* to = take(rows * 2 * hp);
    for (int row = 0; row < rows; ++row)
      for (int i = 0; i < half; ++i) {
        float* pair = to + row * 2 * hp + i / width * 2 * width + i % width;
        pair[0] = from[size_t(row) * 2 * half + i];
        pair[width] = from[size_t(row) * 2 * half + half + i];
      }
    return Matrix{to, rows, int(2 * hp / width)};
  };
  const int past = (net.taps - 1) * R;
  const auto gates_of = [&](int number) { return arrays[1].data + number * gate_rows * 2 * half; };
  size_t ahead = 0;
  for (int number = 0; number < net.layers; ++number) {
    Layer& layer = packed->layers[number];
    layer.dilation = dilations[number];
    layer.reach = (net.taps - 1) * dilations[number];
    layer.ahead = 1;
    while (past && 2 * layer.ahead <= kMaxAhead && 2 * layer.ahead <= layer.dilation &&
           net.hold % (2 * layer.ahead) == 0)  // so that no block of conditioning ends on the way
      layer.ahead *= 2;
    layer.ahead_at = ahead;
    ahead += layer.ahead * 2 * hp;
    if (layer.ahead > 1) layer.past = gates(gates_of(number), past);  // apart from what is read every sample
  }
  for (int number = 0; number < net.layers; ++number) {
    Layer& layer = packed->layers[number];
    if (layer.ahead == 1) layer.past = gates(gates_of(number), past);
    layer.gate = gates(gates_of(number) + size_t(past) * 2 * half, R);
    const size_t first = number + 1 < net.layers ? rp : 0;  // the last layer's residual goes nowhere
    float* mix = take(half * (first + sp));
    const float* mixes = arrays[2].data + size_t(number) * half * (R + S);
    for (int row = 0; row < half; ++row) {
      float* to = mix + row * (first + sp);
      if (first) std::memcpy(to, mixes + size_t(row) * (R + S), sizeof(float) * R);
      std::memcpy(to + first, mixes + size_t(row) * (R + S) + R, sizeof(float) * S);
    }
    layer.mix = {mix, half, int((first + sp) / width)};
  }
  const auto matrix = [&](const float* from, int rows, int columns, size_t columns_padded) {
    float* to = take(rows * columns_padded);
    for (int row = 0; row < rows; ++row)
      std::memcpy(to + row * columns_padded, from + size_t(row) * columns, sizeof(float) * columns);
    return Matrix{to, rows, int(columns_padded / width)};
  };
  net.head1 = matrix(arrays[4].data, S, net.head, net.head_padded);
  net.head2 = matrix(arrays[6].data, net.head, net.outputs, net.outputs_padded);
  for (int number = 0; number < net.layers; ++number) {
    const bool last = number + 1 == net.layers;
    const float* from = arrays[3].data + size_t(number) * (R + S);
    float* to = take(last ? sp : columns);
    if (!last) std::memcpy(to, from, sizeof(float) * R);
    std::memcpy(to + (last ? 0 : rp), from + R, sizeof(float) * S);
    packed->layers[number].mix_bias = to;
  }
  net.head1_bias = matrix(arrays[5].data, 1, net.head, net.head_padded).data;
  net.head2_bias = matrix(arrays[7].data, 1, net.outputs, net.outputs_padded).data;
  net.inputs = matrix(arrays[0].data, int(rows), R, rp).data;
  net.layer = packed->layers.data();
  return packed;
}

std::shared_ptr<OpenStream> open(const std::shared_ptr<PackedNet>& owner) {
  const Net& net = owner->net;
  auto opened = std::make_shared<OpenStream>();
  opened->owner = owner;
  opened->positions.assign(net.layers, 0);
  opened->ahead_times.assign(net.layers, -1);
  size_t queues = 0, ahead = 0;
  for (const Layer& layer : owner->layers) {
    queues += layer.reach * net.residual_padded;
    ahead += layer.ahead * 2 * net.half_padded;
  }
  const size_t sizes[] = {net.layers * 2 * net.half_padded, net.residual_padded + net.skip_padded, net.half_padded,
                          net.head_padded, net.outputs_padded, queues + 16, ahead};
  Stream& stream = opened->stream;
  float** parts[] = {&stream.conditioning, &stream.state, &stream.gated, &stream.head, &stream.outputs, &stream.queues,
                     &stream.ahead};
  size_t total = 0;
  for (size_t size : sizes) total += (size + 15) / 16 * 16;
  opened->memory = std::make_unique<Floats>(total);
  float* at = opened->memory->data();
  for (int i = 0; i < 7; ++i) *parts[i] = std::exchange(at, at + (sizes[i] + 15) / 16 * 16);
  stream.position = opened->positions.data();
  stream.ahead_time = opened->ahead_times.data();
  stream.block = -1;
  stream.previous = net.output == kMuLaw ? 128.0f : 0.0f;
  return opened;
}

void check(const Net& net, const Stream& stream, const wavenet_job& job, int64_t samples) {
  const int64_t row = int64_t(net.layers) * 2 * net.half;
  require(job.conditioning.data && job.conditioning.floats >= row && job.conditioning.floats % row == 0,
          "conditioning has " + std::to_string(job.conditioning.floats) + " values, expected a multiple of " +
              std::to_string(row));
  const int64_t blocks = job.conditioning.floats / row;
  require(stream.time <= kMaxSamples - samples && (stream.time + samples - 1) / net.hold < blocks,
          "conditioning ends before sample " + std::to_string(stream.time + samples));
  require(job.uniforms && job.samples, "uniforms or samples are null");
  require_length(job.uniforms_length, 2 * samples, "uniforms");
  require_length(job.samples_length, samples, "samples");
  for (int64_t i = 0; i < 2 * samples; ++i)
    require(job.uniforms[i] >= 0.0 && job.uniforms[i] < 1.0, "uniforms are not in [0, 1)");
  if (job.outputs) require_length(job.outputs_length, samples * net.outputs, "outputs");
  if (!job.forced.data) return;
  require_length(job.forced.floats, samples, "forced");
  for (int64_t i = 0; i < samples; ++i) {
    const float x = job.forced.data[i];
    if (net.output == kMuLaw)
      require(x >= 0.0f && x <= 255.0f && x == float(int(x)), "forced samples are not classes 0 to 255");
    else
      require(std::isfinite(x), "forced samples are not finite");
  }
}

// Marks streams as in use, so that two calls, or one that names a stream twice, cannot meet.
class Claim {
 public:
  ~Claim() {
    for (OpenStream* one : held_) one->busy = false;
  }
  void take(OpenStream* one) {
    require(!one->busy.exchange(true), "a stream is in use already");
    held_.push_back(one);
  }

 private:
  std::vector<OpenStream*> held_;
};

template <class Body>
int32_t guarded(char* message, int64_t room, const Body& body) {
  const auto report = [&](const char* text) {
    if (message && room > 0) std::snprintf(message, size_t(room), "%s", text);
    return 1;
  };
  try {
    body();
    return 0;
  } catch (const std::bad_alloc&) {
    return report("out of memory");
  } catch (const std::exception& error) {
    return report(error.what());
  } catch (...) {
    return report("unknown error");
  }
}

}  // namespace

extern "C" {

int32_t wavenet_isas(void) {
  int32_t mask = 0;
  for (int isa = WAVENET_PORTABLE; isa <= WAVENET_AVX512; ++isa) mask |= kernel_of(isa) ? 1 << isa : 0;
  return mask;
}

int32_t wavenet_create(const wavenet_sizes* sizes, const int32_t* dilations, const wavenet_array* arrays, int32_t isa,
                       int64_t* net, char* message, int64_t room) {
  return guarded(message, room, [&] {
    require(sizes && dilations && arrays && net, "an argument is null");
    const Kernel* kernel = kernel_of(isa);
    require(kernel, "this processor or build lacks instruction set " + std::to_string(isa));
    check(*sizes, dilations, arrays);
    *net = nets.add(pack(*sizes, dilations, arrays, kernel));
  });
}

int32_t wavenet_destroy(int64_t net) { return nets.remove(net) ? 0 : 1; }

int32_t wavenet_open(int64_t net, int64_t* stream, char* message, int64_t room) {
  return guarded(message, room, [&] {
    require(stream, "an argument is null");
    *stream = streams.add(open(nets.get(net, "network")));
  });
}

int32_t wavenet_close(int64_t stream) { return streams.remove(stream) ? 0 : 1; }

int32_t wavenet_run(int64_t net, const wavenet_job* jobs, int32_t count, int64_t samples, double temperature,
                    char* message, int64_t room) {
  return guarded(message, room, [&] {
    require(jobs, "an argument is null");
    require_between(count, 1, 1 << 16, "streams");
    require_between(samples, 1, kMaxSamples, "samples");
    require(temperature >= 0.0 && temperature <= 1e3, "temperature is not in [0, 1000]");
    const auto packed = nets.get(net, "network");
    std::vector<std::shared_ptr<OpenStream>> held;
    std::vector<Stream*> states;
    std::vector<Job> parts;
    Claim claim;
    for (int32_t i = 0; i < count; ++i) {
      const wavenet_job& job = jobs[i];
      held.push_back(streams.get(job.stream, "stream"));
      require(held.back()->owner == packed, "a stream is of another network");
      claim.take(held.back().get());
      check(packed->net, held.back()->stream, job, samples);
      states.push_back(&held.back()->stream);
      parts.push_back({job.conditioning.data, job.uniforms, job.forced.data, job.samples, job.outputs});
    }
    const int failed = packed->kernel->run(packed->net, states.data(), parts.data(), count, samples, temperature);
    require(!failed, "outputs of stream " + std::to_string(failed - 1) + " are not finite");
  });
}

int32_t wavenet_products(int64_t net, int32_t streams, int64_t samples, char* message, int64_t room) {
  return guarded(message, room, [&] {
    require_between(streams, 1, kMaxStreams, "streams");
    require_between(samples, 1, kMaxSamples, "samples");
    const auto packed = nets.get(net, "network");
    const Net& n = packed->net;
    size_t length = n.taps * n.residual;
    for (size_t size : {2 * n.half_padded, n.residual_padded + n.skip_padded, n.head_padded, n.outputs_padded})
      length = size > length ? size : length;
    length = (length + 15) / 16 * 16;
    Floats inputs(length * kMaxStreams), outputs(length * kMaxStreams);
    packed->kernel->products(n, streams, inputs.data(), length, outputs.data(), samples);
  });
}

}  // extern "C"
