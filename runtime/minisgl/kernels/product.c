/* y = x W^T + b in bfloat16 on one CPU thread, at the speed of memory for few rows and of the arithmetic for many.

   W [n, k] is packed into blocks of 48 outputs, the last one narrower. A block is read once, from front to back:

       pair of k ->   0                          1
       outputs        0..15   16..31   32..47    0..15   …          a vector: 16 outputs x 2 of k, 64 bytes

   Up to 8 rows are multiplied at a time: 8 x 3 sums stay in registers, and each vector of weights is loaded once for
   all of them. Hardware asks for memory only up to the end of a page of 4 KiB, so we ask ourselves, two pages ahead. */

#include <stdint.h>
#include <string.h>

typedef uint16_t bf16;

#ifdef __AVX512BF16__
#include <immintrin.h>

enum { LANES = 16, WIDE = 3, ROWS = 8, AHEAD = 8192 /* bytes */ };

int can_multiply_bf16(void) { return 1; }

/* packed: room for n rounded up to 16, times k. k is even. */
void pack_bf16(const bf16 *w, int64_t n, int64_t k, bf16 *packed) {
  for (int64_t first = 0; first < n; first += WIDE * LANES) {
    const int64_t left = n - first, wide = left >= WIDE * LANES ? WIDE : (left + LANES - 1) / LANES;
    for (int64_t q = 0; q < k; q += 2)
      for (int64_t lane = 0; lane < wide * LANES; lane++, packed += 2)
        if (lane < left)
          memcpy(packed, w + (first + lane) * k + q, 2 * sizeof(bf16));
        else
          memset(packed, 0, 2 * sizeof(bf16));
  }
}

static inline __attribute__((always_inline)) void block(const int rows, const int wide, const bf16 *x, int64_t stride,
                                                        int64_t k, const bf16 *w, const bf16 *bias, int64_t left,
                                                        int64_t n, bf16 *y) {
  __m512 sums[ROWS][WIDE];
#pragma GCC unroll 8
  for (int row = 0; row < rows; row++)
#pragma GCC unroll 3
    for (int j = 0; j < wide; j++) sums[row][j] = _mm512_setzero_ps();
  for (int64_t q = 0; q < k; q += 2, w += 2 * LANES * wide) {
    __m512bh weights[WIDE];
#pragma GCC unroll 3
    for (int j = 0; j < wide; j++) {
      _mm_prefetch((const char *)(w + 2 * LANES * j) + AHEAD, _MM_HINT_T0);
      weights[j] = (__m512bh)_mm512_loadu_si512(w + 2 * LANES * j);
    }
#pragma GCC unroll 8
    for (int row = 0; row < rows; row++) {
      int32_t pair;
      memcpy(&pair, x + row * stride + q, 4);
      const __m512bh both = (__m512bh)_mm512_set1_epi32(pair);
#pragma GCC unroll 3
      for (int j = 0; j < wide; j++) sums[row][j] = _mm512_dpbf16_ps(sums[row][j], weights[j], both);
    }
  }
#pragma GCC unroll 3
  for (int j = 0; j < wide; j++) {
    const int64_t room = left - j * LANES;
    const __mmask16 mask = room >= LANES ? 0xffff : (1u << room) - 1;
    __m512 add = _mm512_setzero_ps();
    if (bias)
      add = (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, bias + j * LANES)), 16);
#pragma GCC unroll 8
    for (int row = 0; row < rows; row++)
      _mm256_mask_storeu_epi16(y + row * n + j * LANES, mask,
                               (__m256i)_mm512_cvtneps_pbh(_mm512_add_ps(sums[row][j], add)));
  }
}

#define WIDTHS(R)                                                                                                      \
  case R:                                                                                                              \
    if (wide == 3) block(R, 3, x, stride, k, w, bias, left, n, y);                                                     \
    else if (wide == 2) block(R, 2, x, stride, k, w, bias, left, n, y);                                                \
    else block(R, 1, x, stride, k, w, bias, left, n, y);                                                               \
    break;

static void few(int rows, int wide, const bf16 *x, int64_t stride, int64_t k, const bf16 *w, const bf16 *bias,
                int64_t left, int64_t n, bf16 *y) {
  switch (rows) { WIDTHS(1) WIDTHS(2) WIDTHS(3) WIDTHS(4) WIDTHS(5) WIDTHS(6) WIDTHS(7) WIDTHS(8) }
}

/* x [rows, k], `stride` numbers from row to row; bias [n] or NULL; y [rows, n]. */
void multiply_bf16(const bf16 *x, int64_t rows, int64_t stride, const bf16 *packed, const bf16 *bias, int64_t n,
                   int64_t k, bf16 *y) {
  for (int64_t first = 0; first < n; first += WIDE * LANES) {
    const int64_t left = n - first;
    const int wide = left >= WIDE * LANES ? WIDE : (int)((left + LANES - 1) / LANES);
    for (int64_t row = 0; row < rows; row += ROWS) {
      const int count = rows - row < ROWS ? (int)(rows - row) : ROWS;
      few(count, wide, x + row * stride, stride, k, packed, bias ? bias + first : NULL, left, n, y + row * n + first);
    }
    packed += wide * LANES * k;
  }
}

#else /* this CPU has no such instructions: torch multiplies */

int can_multiply_bf16(void) { return 0; }
void pack_bf16(const bf16 *w, int64_t n, int64_t k, bf16 *packed) { (void)w, (void)n, (void)k, (void)packed; }
void multiply_bf16(const bf16 *x, int64_t rows, int64_t stride, const bf16 *packed, const bf16 *bias, int64_t n,
                   int64_t k, bf16 *y) {
  (void)x, (void)rows, (void)stride, (void)packed, (void)bias, (void)n, (void)k, (void)y;
}

#endif
