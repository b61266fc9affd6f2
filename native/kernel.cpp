// One time step after another of up to eight streams that share each load of a weight.
//
// Compiled once an instruction set (see simd.h). A stream's sums are added up in the same order however many streams
// share the pass, so its samples do not depend on its neighbours.
#include "kernel.h"

#include "simd.h"

namespace {

using namespace wavenet;

constexpr int kGroup = kRegisters == 32 ? 8 : 4;  // streams that share a pass; sums of more would not fit

// Vectors of outputs that are summed at a time: what fits the registers beside the inputs and a row of weights.
constexpr int tile_of(int streams) {
  return kRegisters == 32 ? (streams == 1 ? 16 : streams == 2 ? 12 : streams == 4 ? 6 : 3)
                          : (streams == 1 ? 8 : streams == 2 ? 6 : streams == 4 ? 3 : 1);
}

// sums[b][n] += sum over rows of x[b][row] * weights[row][n]. Weights are one straight line from the first layer to the
// last, which the processor prefetches by itself; prefetch instructions made it slower.
template <int B, int N>
WAVENET_INLINE void accumulate(Vec (&sums)[B][N], const float* w, size_t stride, const float* const* x, int rows) {
  const float* inputs[B];
#pragma GCC unroll 8
  for (int b = 0; b < B; ++b) inputs[b] = x[b];
  for (int row = 0; row < rows; ++row, w += stride) {
    Vec weights[N];
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) weights[n] = load(w + n * kWidth);
#pragma GCC unroll 8
    for (int b = 0; b < B; ++b) {
      const Vec input = splat(inputs[b][row]);
#pragma GCC unroll 16
      for (int n = 0; n < N; ++n) sums[b][n] = fma(input, weights[n], sums[b][n]);
    }
  }
}

// Calls body<N>(first) for tiles of N vectors that cover `vectors`, as even in size as can be.
template <int Max, class Body>
WAVENET_INLINE void each_tile(int vectors, const Body& body) {
  const int tiles = (vectors + Max - 1) / Max;
  int first = 0;
  for (int tile = 0; tile < tiles; ++tile) {
    const int size = (vectors - first + tiles - tile - 1) / (tiles - tile);
    switch (size) {
#define WAVENET_CASE(n) \
  case n:               \
    if constexpr (n <= Max) body.template run<n>(first); \
    break;
      WAVENET_CASE(1) WAVENET_CASE(2) WAVENET_CASE(3) WAVENET_CASE(4)
      WAVENET_CASE(5) WAVENET_CASE(6) WAVENET_CASE(7) WAVENET_CASE(8)
      WAVENET_CASE(9) WAVENET_CASE(10) WAVENET_CASE(11) WAVENET_CASE(12)
      WAVENET_CASE(13) WAVENET_CASE(14) WAVENET_CASE(15) WAVENET_CASE(16)
#undef WAVENET_CASE
      default: break;
    }
    first += size;
  }
}

// sums += taps * weights, oldest tap first; a matrix has `channels` rows for each of `count` taps.
template <int B, int N>
WAVENET_INLINE void accumulate_taps(Vec (&sums)[B][N], const Matrix& matrix, int first, const float* const (*taps)[B],
                                    int count, int channels) {
  const size_t stride = size_t(matrix.vectors) * kWidth;
  const float* w = matrix.data + first * kWidth;
  for (int tap = 0; tap < count; ++tap, w += stride * channels) accumulate(sums, w, stride, taps[tap], channels);
}

// gated = tanh(z) * sigmoid(z'), z = initial + taps * weights; N counts pairs of vectors.
template <int B>
struct Gate {
  const Layer& layer;
  const float* const (*taps)[B];  // (past + 1,) of each stream's vectors
  int past, channels;
  const float* const* initial;
  float* const* out;

  template <int N>
  void run(int first) const {
    Vec sums[B][2 * N];
#pragma GCC unroll 16
    for (int b = 0; b < B; ++b)
#pragma GCC unroll 16
      for (int n = 0; n < 2 * N; ++n) sums[b][n] = load(initial[b] + (2 * first + n) * kWidth);
    accumulate_taps(sums, layer.past, 2 * first, taps, past, channels);
    accumulate_taps(sums, layer.gate, 2 * first, taps + past, 1, channels);
#pragma GCC unroll 16
    for (int b = 0; b < B; ++b)
#pragma GCC unroll 16
      for (int n = 0; n < N; ++n) store(out[b] + (first + n) * kWidth, gated(sums[b][2 * n], sums[b][2 * n + 1]));
  }
};

// What the past taps of the next P samples of one stream add to their gates: out[p] = initial + taps[.][p] * weights.
template <int P>
struct Ahead {
  const Layer& layer;
  const float* const (*taps)[P];
  int past, channels;
  const float* initial;
  float* out;  // (P, columns)

  template <int N>
  void run(int first) const {
    Vec sums[P][N];
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 16
      for (int n = 0; n < N; ++n) sums[p][n] = load(initial + (first + n) * kWidth);
    accumulate_taps(sums, layer.past, first, taps, past, channels);
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 16
      for (int n = 0; n < N; ++n) store(out + (p * layer.past.vectors + first + n) * kWidth, sums[p][n]);
  }
};

// out = initial + bias + x * weights, then relu if asked for
template <int B, bool Relu>
struct Affine {
  const Matrix& matrix;
  const float* const* x;
  const float* const* initial;  // may be null
  const float* bias;
  float* const* out;

  template <int N>
  void run(int first) const {
    Vec sums[B][N];
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) {
      const Vec shared = load(bias + (first + n) * kWidth);
#pragma GCC unroll 16
      for (int b = 0; b < B; ++b)
        sums[b][n] = initial ? add(load(initial[b] + (first + n) * kWidth), shared) : shared;
    }
    accumulate(sums, matrix.data + first * kWidth, size_t(matrix.vectors) * kWidth, x, matrix.rows);
#pragma GCC unroll 16
    for (int b = 0; b < B; ++b)
#pragma GCC unroll 16
      for (int n = 0; n < N; ++n)
        store(out[b] + (first + n) * kWidth, Relu ? max(sums[b][n], splat(0.0f)) : sums[b][n]);
  }
};

void copy(float* to, const float* from, size_t floats) {
  for (size_t i = 0; i < floats; i += kWidth) store(to + i, load(from + i));
}

// A block of conditioning in the order of the gates' columns.
void load_block(const Net& net, Stream& stream, const Job& job, int64_t block) {
  const float* from = job.conditioning + size_t(block) * net.layers * 2 * net.half;
  for (int layer = 0; layer < net.layers; ++layer, from += 2 * net.half) {
    float* to = stream.conditioning + layer * 2 * net.half_padded;
    for (int i = 0; i < net.half; ++i) {
      const int at = i / kWidth * 2 * kWidth + i % kWidth;
      to[at] = from[i];
      to[at + kWidth] = from[net.half + i];
    }
  }
  stream.block = block;
}

// Inverse of the cumulative distribution of softmax(logits / temperature); the greatest logit at temperature 0.
// `logits` has room for whole vectors and is overwritten.
int draw_class(float* logits, int count, double temperature, double uniform) {
  const int vectors = (count + kWidth - 1) / kWidth;
  for (int i = count; i < vectors * kWidth; ++i) logits[i] = -3.0e38f;
  Vec greatest = load(logits);
  for (int n = 1; n < vectors; ++n) greatest = max(greatest, load(logits + n * kWidth));
  const float top = greatest_of(greatest);
  if (temperature == 0.0) {
    int best = 0;
    while (best < count - 1 && logits[best] < top) ++best;
    return best;
  }
  float sums[4096 / kWidth];
  double total = 0.0;
  const Vec shift = splat(top), least = splat(-87.0f);
  const Vec factor = splat(temperature > 1e-30 ? float(1.0 / temperature) : 1e30f);
  for (int n = 0; n < vectors; ++n) {
    const Vec scaled = mul(sub(load(logits + n * kWidth), shift), factor);
    const Vec weight = exponential(max(scaled, least));
    store(logits + n * kWidth, weight);
    sums[n] = sum_of(weight);
    total += sums[n];
  }
  double left = uniform * total;
  int vector = 0;
  while (vector < vectors - 1 && left >= sums[vector]) left -= sums[vector++];
  const int last = count - 1 < (vector + 1) * kWidth - 1 ? count - 1 : (vector + 1) * kWidth - 1;
  int drawn = vector * kWidth;
  while (drawn < last && left >= logits[drawn]) left -= logits[drawn++];
  return drawn;
}

double clamp(double x, double low, double high) { return x < low ? low : x > high ? high : x; }

float draw_scalar(const Net& net, float* outputs, double temperature, const double* uniforms) {
  double x;
  if (net.output == kGaussian) {
    const double u = uniforms[0] < 1e-7 ? 1e-7 : uniforms[0];
    const double normal = std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * uniforms[1]);
    x = outputs[0] + temperature * std::exp(clamp(outputs[1], -9.0, 88.0)) * normal;
  } else {
    const int mixtures = net.outputs / 3;
    float logits[(4096 / 3 / 16 + 2) * 16];
    std::memcpy(logits, outputs, sizeof(float) * mixtures);
    const int one = draw_class(logits, mixtures, temperature == 0.0 ? 0.0 : 1.0, uniforms[0]);
    const double u = clamp(uniforms[1], 1e-5, 1.0 - 1e-5);
    const double scale = std::exp(clamp(outputs[2 * mixtures + one], -9.0, 88.0));
    x = outputs[mixtures + one] + temperature * scale * (std::log(u) - std::log1p(-u));
  }
  return float(clamp(x, -1.0, 1.0));
}

// Draws the next sample from the stream's outputs. Returns false where they are not finite.
bool finish(const Net& net, Stream& stream, const Job& job, int64_t sample, double temperature) {
  Vec check = splat(0.0f);
  for (size_t i = 0; i < net.outputs_padded; i += kWidth) {
    const Vec y = load(stream.outputs + i);
    check = add(check, sub(y, y));  // NaN where y is NaN or infinite
  }
  if (!(sum_of(check) == 0.0f)) return false;
  if (job.outputs) std::memcpy(job.outputs + sample * net.outputs, stream.outputs, sizeof(float) * net.outputs);
  const double* uniforms = job.uniforms + 2 * sample;
  const float drawn = net.output == kMuLaw ? float(draw_class(stream.outputs, net.outputs, temperature, uniforms[0]))
                                           : draw_scalar(net, stream.outputs, temperature, uniforms);
  job.samples[sample] = drawn;
  stream.previous = job.forced ? job.forced[sample] : drawn;
  ++stream.time;
  return true;
}

void begin(const Net& net, Stream& stream, const Job& job) {
  if (stream.time / net.hold != stream.block) load_block(net, stream, job, stream.time / net.hold);
  if (net.output == kMuLaw) {
    copy(stream.state, net.inputs + size_t(stream.previous) * net.residual_padded, net.residual_padded);
  } else {
    const Vec x = splat(stream.previous);
    for (size_t i = 0; i < net.residual_padded; i += kWidth)
      store(stream.state + i, fma(x, load(net.inputs + i), load(net.inputs + net.residual_padded + i)));
  }
  for (size_t i = 0; i < net.skip_padded; i += kWidth) store(stream.state + net.residual_padded + i, splat(0.0f));
}

template <int B>
struct Pass {
  const Net& net;
  Stream* const* streams;
  float *state[B], *skip[B], *gates[B], *head[B], *outputs[B], *queue[B];
  const float *initial[B], *taps[kMaxTaps][B];

  Pass(const Net& net, Stream* const* streams) : net(net), streams(streams) {
    for (int b = 0; b < B; ++b) {
      state[b] = streams[b]->state;
      skip[b] = state[b] + net.residual_padded;
      gates[b] = streams[b]->gated;
      head[b] = streams[b]->head;
      outputs[b] = streams[b]->outputs;
    }
  }

  void step() {
    for (int b = 0; b < B; ++b) queue[b] = streams[b]->queues;
    for (int number = 0; number < net.layers; ++number) layer(number);
    for (int b = 0; b < B; ++b)
      for (size_t i = 0; i < net.skip_padded; i += kWidth) store(skip[b] + i, max(load(skip[b] + i), splat(0.0f)));
    each_tile<tile_of(B)>(net.head1.vectors, Affine<B, true>{net.head1, skip, nullptr, net.head1_bias, head});
    each_tile<tile_of(B)>(net.head2.vectors, Affine<B, false>{net.head2, head, nullptr, net.head2_bias, outputs});
  }

  void layer(int number) {
    const Layer& layer = net.layer[number];
    const size_t padded = net.residual_padded;
    float* slot[B];
    for (int b = 0; b < B; ++b) {
      const int position = streams[b]->position[number];
      initial[b] = streams[b]->conditioning + number * 2 * net.half_padded;
      slot[b] = queue[b] + position * padded;  // of the oldest, which the newest replaces
      for (int tap = 0; tap < net.taps - 1; ++tap) {
        int at = position + tap * layer.dilation;
        if (at >= layer.reach) at -= layer.reach;
        taps[tap][b] = queue[b] + at * padded;
      }
      taps[net.taps - 1][b] = state[b];
      queue[b] += layer.reach * padded;
      if (number + 1 < net.layers) {
        const Layer& next = net.layer[number + 1];
        const bool known = B == 1 && next.ahead > 1;
        const size_t floats = known ? 2 * net.half_padded : padded;
        const float* wanted = known ? streams[b]->ahead + next.ahead_at + streams[b]->time % next.ahead * floats
                                    : queue[b] + streams[b]->position[number + 1] * padded;
        for (size_t i = 0; i < floats; i += 16) WAVENET_PREFETCH(wanted + i);  // 16 floats are a cache line
      }
    }
    int past = net.taps - 1;
    if constexpr (B == 1) {
      if (const float* known = ahead(number, slot[0] - streams[0]->position[number] * padded)) {
        initial[0] = known;
        taps[0][0] = state[0];
        past = 0;
      }
    }
    for (int b = 0; b < B; ++b)
      if (++streams[b]->position[number] >= layer.reach) streams[b]->position[number] = 0;
    each_tile<tile_of(B) / 2 ? tile_of(B) / 2 : 1>(
        layer.gate.vectors / 2, Gate<B>{layer, taps, past, net.residual, initial, gates});
    if (layer.reach)
      for (int b = 0; b < B; ++b) copy(slot[b], state[b], padded);
    float* const* changed = number + 1 < net.layers ? state : skip;
    each_tile<tile_of(B)>(layer.mix.vectors, Affine<B, false>{layer.mix, gates, changed, layer.mix_bias, changed});
  }

  // One stream waits for its weights to come from memory. The past taps of samples up to a dilation ahead are known, so
  // their weights are read once for several samples. Sums are added up in the same order as without, to the same bits.
  const float* ahead(int number, const float* queue) {
    const Layer& layer = net.layer[number];
    Stream& stream = *streams[0];
    const int64_t phase = stream.time % layer.ahead, block = stream.time - phase;
    if (layer.ahead == 1 || (phase && stream.ahead_time[number] != block)) return nullptr;
    if (!phase) {
      layer.ahead == 8 ? look_ahead<8>(number, queue) : layer.ahead == 4 ? look_ahead<4>(number, queue)
                                                                          : look_ahead<2>(number, queue);
      stream.ahead_time[number] = block;
    }
    return stream.ahead + layer.ahead_at + phase * 2 * net.half_padded;
  }

  template <int P>
  void look_ahead(int number, const float* queue) {
    const Layer& layer = net.layer[number];
    const float* known[kMaxTaps][P];
    for (int tap = 0; tap < net.taps - 1; ++tap)
      for (int p = 0; p < P; ++p) {
        int at = streams[0]->position[number] + p + tap * layer.dilation;
        if (at >= layer.reach) at -= layer.reach;
        known[tap][p] = queue + at * net.residual_padded;
      }
    each_tile<tile_of(P)>(layer.past.vectors, Ahead<P>{layer, known, net.taps - 1, net.residual, initial[0],
                                                       streams[0]->ahead + layer.ahead_at});
  }
};

template <int B>
int run_group(const Net& net, Stream* const* streams, const Job* jobs, int64_t samples, double temperature) {
  Pass<B> pass(net, streams);
  for (int64_t sample = 0; sample < samples; ++sample) {
    for (int b = 0; b < B; ++b) begin(net, *streams[b], jobs[b]);
    pass.step();
    for (int b = 0; b < B; ++b)
      if (!finish(net, *streams[b], jobs[b], sample, temperature)) return b + 1;
  }
  return 0;
}

int run(const Net& net, Stream* const* streams, const Job* jobs, int count, int64_t samples, double temperature) {
  for (int done = 0; done < count;) {
    const int left = count - done;
    const int size = left >= kGroup ? kGroup : left >= 4 ? 4 : left >= 2 ? 2 : 1;
    auto* group = size == 8 ? run_group<8> : size == 4 ? run_group<4> : size == 2 ? run_group<2> : run_group<1>;
    const int failed = group(net, streams + done, jobs + done, samples, temperature);
    if (failed) return done + failed;
    done += size;
  }
  return 0;
}

template <int N>
struct Count {
  constexpr int operator()() const { return N; }
};

// The least that any loop over these weights can do: the same tiles, with inputs that do not wait for one another.
template <int B>
float products_of_group(const Net& net, const float* inputs, size_t length, float* room, int64_t samples) {
  const float* x[8];
  float* out[8];
  for (int b = 0; b < 8; ++b) {
    x[b] = inputs + b * length;
    out[b] = room + b * length;
  }
  const auto product = [&](const Matrix& matrix, auto rows) {
    each_tile<tile_of(rows())>(matrix.vectors, Affine<rows(), false>{matrix, x, nullptr, inputs, out});
  };
  for (int64_t sample = 0; sample < samples; ++sample) {
    for (int number = 0; number < net.layers; ++number) {
      const Layer& layer = net.layer[number];
      if (B > 1 || layer.ahead == 1)
        product(layer.past, Count<B>());
      else if (sample % layer.ahead == 0)
        layer.ahead == 8   ? product(layer.past, Count<8>())
        : layer.ahead == 4 ? product(layer.past, Count<4>())
                           : product(layer.past, Count<2>());
      product(layer.gate, Count<B>());
      product(layer.mix, Count<B>());
    }
    product(net.head1, Count<B>());
    product(net.head2, Count<B>());
  }
  return room[0];
}

float products(const Net& net, int count, const float* inputs, size_t length, float* room, int64_t samples) {
  if (count > kGroup) samples *= count / kGroup;
  return count >= 8 && kGroup == 8 ? products_of_group<8>(net, inputs, length, room, samples)
         : count >= 4 ? products_of_group<4>(net, inputs, length, room, samples)
         : count >= 2 ? products_of_group<2>(net, inputs, length, room, samples)
                      : products_of_group<1>(net, inputs, length, room, samples);
}

}  // namespace

namespace wavenet {
#if WAVENET_ISA == 2
extern const Kernel kernel_avx512 = {kWidth, run, products};
#elif WAVENET_ISA == 1
extern const Kernel kernel_avx2 = {kWidth, run, products};
#else
extern const Kernel kernel_portable = {kWidth, run, products};
#endif
}  // namespace wavenet
