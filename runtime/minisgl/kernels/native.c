/* What a CPU computes between matrix products, for one thread: each a single pass over its numbers, in float32, read from
   and written to the model's type. In torch each is several operations that cost more to begin than to do.

   Written so that a compiler makes vectors of the innermost loops. NaN goes in and comes out: a request whose numbers are
   not finite must be seen to fail. */

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef uint16_t bf16; /* the upper half of a float32 */

static inline float up_bf16(bf16 x) {
  uint32_t bits = (uint32_t)x << 16;
  float f;
  memcpy(&f, &bits, 4);
  return f;
}

static inline bf16 down_bf16(float f) { /* to nearest, ties to even */
  uint32_t bits;
  memcpy(&bits, &f, 4);
  if (f != f) return 0x7fc0;
  return (bf16)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

static inline float up_f32(float x) { return x; }
static inline float down_f32(float x) { return x; }

/* e^x for x <= 0, to 2e-7 relative: 2^n by exponent bits times a polynomial on [-ln2/2, ln2/2] (Cephes' expf). */
static inline float exp_negative(float x) {
  x = x < -87.0f ? -87.0f : x;
  float n = floorf(x * 1.44269504f + 0.5f);
  float r = x - n * 0.693359375f + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  int32_t bits = ((int32_t)n + 127) << 23;
  float two_n;
  memcpy(&two_n, &bits, 4);
  return p * two_n;
}

/* x += delta; out = x / rms(x) * weight, over rows of `size`. */
#define ADD_NORM(NAME, TYPE, UP, DOWN)                                                                                 \
  void NAME(TYPE *x, const TYPE *delta, const TYPE *weight, float eps, int64_t rows, int64_t size, TYPE *out) {        \
    for (int64_t row = 0; row < rows; row++, x += size, delta += size, out += size) {                                  \
      float squares = 0;                                                                                               \
      for (int64_t i = 0; i < size; i++) {                                                                             \
        x[i] = DOWN(UP(x[i]) + UP(delta[i]));                                                                          \
        squares += UP(x[i]) * UP(x[i]);                                                                                \
      }                                                                                                                \
      const float inverse = 1.0f / sqrtf(squares / (float)size + eps);                                                 \
      for (int64_t i = 0; i < size; i++) out[i] = DOWN(UP(x[i]) * inverse * UP(weight[i]));                            \
    }                                                                                                                  \
  }

/* out = silu(gate) * up; a row is its gates, then its ups. */
#define GATE(NAME, TYPE, UP, DOWN)                                                                                     \
  void NAME(const TYPE *both, int64_t rows, int64_t width, TYPE *out) {                                                \
    for (int64_t row = 0; row < rows; row++, both += 2 * width, out += width)                                          \
      for (int64_t i = 0; i < width; i++) {                                                                            \
        const float x = UP(both[i]), e = exp_negative(x < 0 ? x : -x);                                                 \
        out[i] = DOWN(x * (x < 0 ? e : 1.0f) / (1.0f + e) * UP(both[width + i]));                                      \
      }                                                                                                                \
  }

/* Rotate the first `heads` heads of each row in place; `cosine` and signed `sine` are tables [positions, dim]. */
#define ROTATE(NAME, TYPE, UP, DOWN)                                                                                   \
  void NAME(TYPE *x, const TYPE *cosine, const TYPE *sine, const int64_t *positions, int64_t rows, int64_t stride,     \
            int64_t heads, int64_t dim) {                                                                              \
    const int64_t half = dim / 2;                                                                                      \
    for (int64_t row = 0; row < rows; row++) {                                                                         \
      const TYPE *c = cosine + positions[row] * dim, *s = sine + positions[row] * dim;                                 \
      for (int64_t head = 0; head < heads; head++) {                                                                   \
        TYPE *lower = x + row * stride + head * dim, *upper = lower + half;                                            \
        for (int64_t i = 0; i < half; i++) {                                                                           \
          const float a = UP(lower[i]), b = UP(upper[i]);                                                              \
          lower[i] = DOWN(a * UP(c[i]) + b * UP(s[i]));                                                                \
          upper[i] = DOWN(b * UP(c[half + i]) + a * UP(s[half + i]));                                                  \
        }                                                                                                              \
      }                                                                                                                \
    }                                                                                                                  \
  }

/* Decode attention: one token of each request over its pages, without copying a key or a value. New keys and values are
   stored first; then for each request and KV head: scores of the head's group of queries, softmax, sum of values. */
typedef struct {
  int32_t rows, heads, kv_heads, dim, page_size, width; /* width: entries of a row of `pages` */
  int64_t q_stride, k_stride, v_stride;                 /* numbers between two rows */
  float scale;
} Shape;

/* Ask for the keys and values of a token that is needed a little later: they were last read a step ago, and since then
   all weights went through the caches. */
static inline void ask_for(const char *keys, const char *values, int64_t slot, int64_t token_bytes) {
  for (int64_t byte = slot * token_bytes; byte < (slot + 1) * token_bytes; byte += 64) {
    __builtin_prefetch(keys + byte, 0, 2);
    __builtin_prefetch(values + byte, 0, 2);
  }
}

/* scores: room for heads / kv_heads * the longest request's tokens */
#define DECODE(NAME, TYPE, UP, DOWN)                                                                                   \
  static inline __attribute__((always_inline)) void NAME##_of(                                                         \
      const Shape *s, const int dim, const TYPE *q, const TYPE *k, const TYPE *v, TYPE *keys, TYPE *values,            \
      const int32_t *pages, const int64_t *slots, const int32_t *lengths, float *scores, TYPE *out) {                  \
    const int group = s->heads / s->kv_heads;                                                                          \
    const int64_t token = (int64_t)s->kv_heads * dim;                                                                  \
    for (int row = 0; row < s->rows; row++) {                                                                          \
      memcpy(keys + slots[row] * token, k + row * s->k_stride, token * sizeof(TYPE));                                  \
      memcpy(values + slots[row] * token, v + row * s->v_stride, token * sizeof(TYPE));                                \
    }                                                                                                                  \
    for (int row = 0; row < s->rows; row++) {                                                                          \
      const int length = lengths[row];                                                                                 \
      const int32_t *table = pages + (int64_t)row * s->width;                                                          \
      const int next = row + 1 < s->rows ? lengths[row + 1] : 0;                                                       \
      for (int head = 0; head < s->kv_heads; head++) {                                                                 \
        float query[group * dim], sums[group * dim];                                                                   \
        const TYPE *from = q + row * s->q_stride + (int64_t)head * group * dim;                                        \
        for (int i = 0; i < group * dim; i++) query[i] = UP(from[i]) * s->scale, sums[i] = 0;                          \
        for (int t = 0; t < length; t++) {                                                                             \
          const int64_t slot = (int64_t)table[t / s->page_size] * s->page_size + t % s->page_size;                     \
          if (head == 0 && t < next)                                                                                   \
            ask_for((const char *)keys, (const char *)values,                                                          \
                    (int64_t)table[s->width + t / s->page_size] * s->page_size + t % s->page_size,                     \
                    token * (int64_t)sizeof(TYPE));                                                                    \
          const TYPE *at = keys + slot * token + (int64_t)head * dim;                                                  \
          float key[dim];                                                                                              \
          for (int d = 0; d < dim; d++) key[d] = UP(at[d]);                                                            \
          for (int g = 0; g < group; g++) {                                                                            \
            float dot = 0;                                                                                             \
            for (int d = 0; d < dim; d++) dot += query[g * dim + d] * key[d];                                          \
            scores[(int64_t)g * length + t] = dot;                                                                     \
          }                                                                                                            \
        }                                                                                                              \
        float shares[group];                                                                                           \
        for (int g = 0; g < group; g++) {                                                                              \
          float *mine = scores + (int64_t)g * length, best = mine[0], sum = 0, wrong = 0;                              \
          for (int t = 0; t < length; t++) best = mine[t] > best ? mine[t] : best, wrong += mine[t] * 0.0f;            \
          for (int t = 0; t < length; t++) mine[t] = exp_negative(mine[t] - best), sum += mine[t];                     \
          shares[g] = (wrong == 0 ? 1.0f : NAN) / sum;                                                                 \
        }                                                                                                              \
        for (int t = 0; t < length; t++) {                                                                             \
          const int64_t slot = (int64_t)table[t / s->page_size] * s->page_size + t % s->page_size;                     \
          const TYPE *at = values + slot * token + (int64_t)head * dim;                                                \
          float value[dim];                                                                                            \
          for (int d = 0; d < dim; d++) value[d] = UP(at[d]);                                                          \
          for (int g = 0; g < group; g++) {                                                                            \
            const float weight = scores[(int64_t)g * length + t];                                                      \
            for (int d = 0; d < dim; d++) sums[g * dim + d] += weight * value[d];                                      \
          }                                                                                                            \
        }                                                                                                              \
        TYPE *to = out + ((int64_t)row * s->heads + (int64_t)head * group) * dim;                                      \
        for (int g = 0; g < group; g++)                                                                                \
          for (int d = 0; d < dim; d++) to[g * dim + d] = DOWN(sums[g * dim + d] * shares[g]);                         \
      }                                                                                                                \
    }                                                                                                                  \
  }                                                                                                                    \
  void NAME(const Shape *s, const TYPE *q, const TYPE *k, const TYPE *v, TYPE *keys, TYPE *values,                     \
            const int32_t *pages, const int64_t *slots, const int32_t *lengths, float *scores, TYPE *out) {            \
    switch (s->dim) { /* a constant dim lets the compiler unroll */                                                    \
      case 64: NAME##_of(s, 64, q, k, v, keys, values, pages, slots, lengths, scores, out); break;                     \
      case 128: NAME##_of(s, 128, q, k, v, keys, values, pages, slots, lengths, scores, out); break;                   \
      default: NAME##_of(s, s->dim, q, k, v, keys, values, pages, slots, lengths, scores, out);                        \
    }                                                                                                                  \
  }

DECODE(decode_bf16, bf16, up_bf16, down_bf16)
DECODE(decode_f32, float, up_f32, down_f32)
ADD_NORM(add_norm_bf16, bf16, up_bf16, down_bf16)
ADD_NORM(add_norm_f32, float, up_f32, down_f32)
GATE(gate_bf16, bf16, up_bf16, down_bf16)
GATE(gate_f32, float, up_f32, down_f32)
ROTATE(rotate_bf16, bf16, up_bf16, down_bf16)
ROTATE(rotate_f32, float, up_f32, down_f32)
