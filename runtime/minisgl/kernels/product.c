/* y = x W^T + b on one CPU thread, at the speed of memory for few rows and of the arithmetic for many.

   W [n, k] is packed into blocks of 48 outputs, the last one narrower. A block is read once, from front to back:

       k, or pair of k ->   0                          1
       outputs              0..15   16..31   32..47    0..15   …          a vector: 16 outputs, 64 bytes

   A vector holds one number per output in float32, and two of neighbouring k in bfloat16. Up to 8 rows are multiplied at
   a time: 8 x 3 sums stay in registers, and each vector of weights is loaded once for all of them. Hardware asks for
   memory only up to the end of a page of 4 KiB, so we ask ourselves, two pages ahead. */

#include <stdint.h>
#include <string.h>

typedef uint16_t bf16;
typedef float f32;

enum { LANES = 16, WIDE = 3, ROWS = 8, AHEAD = 8192 /* bytes */ };

#ifdef __AVX512F__
#include <immintrin.h>

/* STEP: numbers of k in a vector's lane. packed: room for n rounded up to 16, times k, a multiple of STEP. */
#define PACK(TYPE, STEP)                                                                                               \
  void pack_##TYPE(const TYPE *w, int64_t n, int64_t k, TYPE *packed) {                                                \
    for (int64_t first = 0; first < n; first += WIDE * LANES) {                                                        \
      const int64_t left = n - first, wide = left >= WIDE * LANES ? WIDE : (left + LANES - 1) / LANES;                 \
      for (int64_t q = 0; q < k; q += STEP)                                                                            \
        for (int64_t lane = 0; lane < wide * LANES; lane++, packed += STEP)                                            \
          if (lane < left)                                                                                             \
            memcpy(packed, w + (first + lane) * k + q, STEP * sizeof(TYPE));                                           \
          else                                                                                                         \
            memset(packed, 0, STEP * sizeof(TYPE));                                                                    \
    }                                                                                                                  \
  }

/* Some rows by one block. `rows` and `wide` are constants where this is written out, so that no sum leaves registers. */
#define BLOCK(TYPE, STEP, VECTOR, LOAD, SPREAD, MULTIPLY, UP, STORE)                                                   \
  static inline __attribute__((always_inline)) void block_##TYPE(                                                      \
      const int rows, const int wide, const TYPE *x, int64_t stride, int64_t k, const TYPE *w, const TYPE *bias,       \
      int64_t left, int64_t n, TYPE *y) {                                                                              \
    __m512 sums[ROWS][WIDE];                                                                                           \
    _Pragma("GCC unroll 8") for (int row = 0; row < rows; row++)                                                       \
        _Pragma("GCC unroll 3") for (int j = 0; j < wide; j++) sums[row][j] = _mm512_setzero_ps();                     \
    for (int64_t q = 0; q < k; q += STEP, w += STEP * LANES * wide) {                                                  \
      VECTOR weights[WIDE];                                                                                            \
      _Pragma("GCC unroll 3") for (int j = 0; j < wide; j++) {                                                         \
        _mm_prefetch((const char *)(w + STEP * LANES * j) + AHEAD, _MM_HINT_T0);                                       \
        weights[j] = LOAD(w + STEP * LANES * j);                                                                       \
      }                                                                                                                \
      _Pragma("GCC unroll 8") for (int row = 0; row < rows; row++) {                                                   \
        const VECTOR spread = SPREAD(x + row * stride + q);                                                            \
        _Pragma("GCC unroll 3") for (int j = 0; j < wide; j++)                                                         \
            sums[row][j] = MULTIPLY(sums[row][j], weights[j], spread);                                                 \
      }                                                                                                                \
    }                                                                                                                  \
    _Pragma("GCC unroll 3") for (int j = 0; j < wide; j++) {                                                           \
      const int64_t room = left - j * LANES;                                                                           \
      const __mmask16 mask = room >= LANES ? 0xffff : (1u << room) - 1;                                                \
      const __m512 add = bias ? UP(mask, bias + j * LANES) : _mm512_setzero_ps();                                      \
      _Pragma("GCC unroll 8") for (int row = 0; row < rows; row++)                                                     \
          STORE(y + row * n + j * LANES, mask, _mm512_add_ps(sums[row][j], add));                                      \
    }                                                                                                                  \
  }

#define WIDTHS(TYPE, R)                                                                                                \
  case R:                                                                                                              \
    if (wide == 3) block_##TYPE(R, 3, x, stride, k, w, bias, left, n, y);                                              \
    else if (wide == 2) block_##TYPE(R, 2, x, stride, k, w, bias, left, n, y);                                         \
    else block_##TYPE(R, 1, x, stride, k, w, bias, left, n, y);                                                        \
    break;

/* x [rows, k], `stride` numbers from row to row; bias [n] or NULL; y [rows, n]. */
#define MULTIPLY_ALL(TYPE)                                                                                             \
  static void few_##TYPE(int rows, int wide, const TYPE *x, int64_t stride, int64_t k, const TYPE *w,                  \
                         const TYPE *bias, int64_t left, int64_t n, TYPE *y) {                                         \
    switch (rows) {                                                                                                    \
      WIDTHS(TYPE, 1) WIDTHS(TYPE, 2) WIDTHS(TYPE, 3) WIDTHS(TYPE, 4)                                                  \
      WIDTHS(TYPE, 5) WIDTHS(TYPE, 6) WIDTHS(TYPE, 7) WIDTHS(TYPE, 8)                                                  \
    }                                                                                                                  \
  }                                                                                                                    \
  void multiply_##TYPE(const TYPE *x, int64_t rows, int64_t stride, const TYPE *packed, const TYPE *bias, int64_t n,   \
                       int64_t k, TYPE *y) {                                                                           \
    for (int64_t first = 0; first < n; first += WIDE * LANES) {                                                        \
      const int64_t left = n - first;                                                                                  \
      const int wide = left >= WIDE * LANES ? WIDE : (int)((left + LANES - 1) / LANES);                                \
      for (int64_t row = 0; row < rows; row += ROWS) {                                                                 \
        const int count = rows - row < ROWS ? (int)(rows - row) : ROWS;                                                \
        few_##TYPE(count, wide, x + row * stride, stride, k, packed, bias ? bias + first : NULL, left, n,              \
                   y + row * n + first);                                                                               \
      }                                                                                                                \
      packed += wide * LANES * k;                                                                                      \
    }                                                                                                                  \
  }

static inline __m512 multiply_f32_lanes(__m512 sum, __m512 weights, __m512 x) {
  return _mm512_fmadd_ps(weights, x, sum);
}
static inline __m512 spread_f32(const f32 *x) { return _mm512_set1_ps(*x); }

PACK(f32, 1)
BLOCK(f32, 1, __m512, _mm512_loadu_ps, spread_f32, multiply_f32_lanes, _mm512_maskz_loadu_ps, _mm512_mask_storeu_ps)
MULTIPLY_ALL(f32)
int can_multiply_f32(void) { return 1; }

#endif

#ifdef __AVX512BF16__

static inline __m512bh load_bf16(const bf16 *w) { return (__m512bh)_mm512_loadu_si512(w); }
static inline __m512bh spread_bf16(const bf16 *x) {
  int32_t pair;
  memcpy(&pair, x, 4);
  return (__m512bh)_mm512_set1_epi32(pair);
}
static inline __m512 up_bf16(__mmask16 mask, const bf16 *x) {
  return (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, x)), 16);
}
static inline void store_bf16(bf16 *y, __mmask16 mask, __m512 sums) {
  _mm256_mask_storeu_epi16(y, mask, (__m256i)_mm512_cvtneps_pbh(sums));
}

PACK(bf16, 2)
BLOCK(bf16, 2, __m512bh, load_bf16, spread_bf16, _mm512_dpbf16_ps, up_bf16, store_bf16)
MULTIPLY_ALL(bf16)
int can_multiply_bf16(void) { return 1; }

#endif

/* Where the CPU lacks the instructions, torch multiplies. */
#define ABSENT(TYPE)                                                                                                   \
  int can_multiply_##TYPE(void) { return 0; }                                                                          \
  void pack_##TYPE(void) {}                                                                                            \
  void multiply_##TYPE(void) {}

#ifndef __AVX512F__
ABSENT(f32)
#endif
#ifndef __AVX512BF16__
ABSENT(bf16)
#endif
