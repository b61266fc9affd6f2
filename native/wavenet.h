/* The C interface of the sampler. Every call checks what it is given and returns 0, or 1 with a message.
 *
 * Handles are numbers, not addresses: one that was never given out or is closed already is an error, not a crash.
 * Calls on different streams may run at the same time in several threads.
 */
#ifndef WAVENET_H
#define WAVENET_H

#include <stdint.h>

#if defined(_WIN32)
#define WAVENET_API __declspec(dllexport)
#else
#define WAVENET_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
  int32_t layers, taps, residual, gate, skip, head, outputs;
  int32_t output; /* 0 mu-law, 1 mixture of logistics, 2 Gaussian */
  int32_t hold;   /* samples that a block of conditioning stands for */
} wavenet_sizes;

typedef struct {
  const float* data;
  int64_t floats;
} wavenet_array;

/* One stream's part of wavenet_run. */
typedef struct {
  int64_t stream;
  wavenet_array conditioning; /* (blocks, layers, gate) of the whole utterance, from its first sample */
  const double* uniforms;     /* (samples, 2) in [0, 1) */
  int64_t uniforms_length;
  wavenet_array forced; /* (samples,) fed back instead of what is drawn; data may be null */
  float* samples;       /* (samples,) out: classes of mu-law, else values */
  int64_t samples_length;
  float* outputs; /* (samples, outputs) out, before the softmax; may be null */
  int64_t outputs_length;
} wavenet_job;

enum { WAVENET_PORTABLE = 0, WAVENET_AVX2 = 1, WAVENET_AVX512 = 2 };

/* Bit i is set where instruction set i is compiled in and this processor has it. */
WAVENET_API int32_t wavenet_isas(void);

/* Arrays, in this order: inputs, gates, mixes, mix_biases, head1, head1_bias, head2, head2_bias (see weights.py). */
WAVENET_API int32_t wavenet_create(const wavenet_sizes* sizes, const int32_t* dilations, const wavenet_array* arrays,
                                   int32_t isa, int64_t* net, char* message, int64_t room);
WAVENET_API int32_t wavenet_destroy(int64_t net);
WAVENET_API int32_t wavenet_open(int64_t net, int64_t* stream, char* message, int64_t room);
WAVENET_API int32_t wavenet_close(int64_t stream);

/* Goes on by `samples` with every stream named in the jobs. After an error the streams are of no more use. */
WAVENET_API int32_t wavenet_run(int64_t net, const wavenet_job* jobs, int32_t count, int64_t samples,
                                double temperature, char* message, int64_t room);

/* For benchmarks: the matrix products of `samples` steps of `streams` (1, 2, 4 or 8) and nothing else. */
WAVENET_API int32_t wavenet_products(int64_t net, int32_t streams, int64_t samples, char* message, int64_t room);

#ifdef __cplusplus
}
#endif

#endif
