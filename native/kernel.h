// What the C boundary (wavenet.cpp) and the kernels (kernel.cpp, compiled once an instruction set) share.
#pragma once

#include <cstddef>
#include <cstdint>

namespace wavenet {

enum Output { kMuLaw = 0, kLogistics = 1, kGaussian = 2 };

constexpr int kMaxStreams = 8;  // that one pass over the weights serves
constexpr int kMaxTaps = 32;
constexpr int kMaxAhead = 8;

// A matrix of `rows` inputs and `vectors * width` outputs, row after row; columns beyond the outputs are zero.
struct Matrix {
  const float* data;
  int rows, vectors;
};

struct Layer {
  Matrix past;  // rows: (taps - 1) * residual, of the oldest tap first; columns as gate
  Matrix gate;  // rows: residual; vectors alternate between the tanh half and the sigmoid half
  Matrix mix;  // columns: residual, then skip; the last layer has skip alone
  const float* mix_bias;
  int dilation;
  int reach;  // samples in the queue: (taps - 1) * dilation
  int ahead;  // samples whose products with `past` a single stream computes at once: 1, 2, 4 or 8
  size_t ahead_at;  // where in Stream::ahead
};

// Weights lie in the order in which they are read; those of past taps that are computed ahead come before all others.
struct Net {
  int layers, taps, residual, half, skip, head, outputs, output, hold, rows;
  int width;  // floats in a vector; sizes below are padded to it
  size_t residual_padded, half_padded, skip_padded, head_padded, outputs_padded;
  size_t state_floats, queue_floats;
  const float* inputs;  // (rows, residual_padded)
  const Layer* layer;
  Matrix head1, head2;
  const float *head1_bias, *head2_bias;
};

// One utterance. Its memory, in this order: conditioning of the current block (layers, 2 half_padded); residual and
// skip (one array: a mix adds to both); gated; head; outputs; the layers' queues; what was computed ahead.
struct Stream {
  int64_t time, block;
  float previous;
  int32_t* position;  // (layers,) time modulo reach
  int64_t* ahead_time;  // (layers,) first sample of what is in `ahead`
  float *conditioning, *state, *gated, *head, *outputs, *queues, *ahead;
};

// One stream's part of a call.
struct Job {
  const float* conditioning;  // (blocks, layers, 2 half)
  const double* uniforms;  // (samples, 2)
  const float* forced;  // (samples,) fed back instead of what is drawn; may be null
  float* samples;  // (samples,)
  float* outputs;  // (samples, outputs) before the softmax; may be null
};

struct Kernel {
  int width;
  // Returns 1 + the number of the stream whose outputs are not finite, else 0.
  int (*run)(const Net&, Stream* const*, const Job*, int streams, int64_t samples, double temperature);
  // The matrix products of `samples` steps and nothing else, for benchmarks. Inputs and room: (streams, length).
  float (*products)(const Net&, int streams, const float* inputs, size_t length, float* room, int64_t samples);
};

extern const Kernel kernel_portable;
#if defined(WAVENET_X86)
extern const Kernel kernel_avx2;
extern const Kernel kernel_avx512;
#endif

}  // namespace wavenet
