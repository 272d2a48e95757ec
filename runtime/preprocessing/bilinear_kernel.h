/* A bilinear resize of interleaved bytes to float planes. Plain C that also compiles as C++.

   The products and sums of runtime/preprocessing/torch_bilinear.py in the same order, each rounded
   once, so that results are equal to NumPy's to the bit: compile with -ffp-contract=off.

   The kernel checks no bounds: the caller does. */

#ifndef RUNTIME_PREPROCESSING_BILINEAR_KERNEL_H
#define RUNTIME_PREPROCESSING_BILINEAR_KERNEL_H

#include <stdint.h>
#include <stdlib.h>

enum { BILINEAR_CHANNELS = 3 };

/* A photo of interleaved bytes, planes of H x W, and the tables between them. The rows of a plane
   may lie apart, as on a padded canvas; its pixels may not. */
typedef struct {
    float *planes;                     /* [3, H, W] */
    int64_t plane_stride, row_stride;  /* strides of the planes in bytes */
    int64_t height, width;             /* H and W */
    const uint8_t *rows;               /* [h, 3 w] */
    int64_t row_bytes;                 /* 3 w */
    const int32_t *top, *bottom;       /* [H], rows of the photo */
    const float *low;                  /* [H], weight of the lower row */
    const int32_t *left, *right;       /* [3, W], bytes of a row */
    const float *weights;              /* [2, W], of the left and the right byte */
} BilinearTables;

/* `mixed` holds one row of the photo; none of these overlap. */
static void bilinear_mix_rows(float *__restrict mixed, const uint8_t *__restrict upper,
                              const uint8_t *__restrict lower, float low, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        const float above = (float)upper[i];
        mixed[i] = above + ((float)lower[i] - above) * low;
    }
}

static void bilinear_mix_columns(float *__restrict line, const float *__restrict mixed,
                                 const int32_t *__restrict left, const int32_t *__restrict right,
                                 const float *__restrict weights, int64_t width)
{
    for (int64_t x = 0; x < width; x++)
        line[x] = mixed[left[x]] * weights[x] + mixed[right[x]] * weights[width + x];
}

/* Fill the planes. Returns 1, or 0 if memory ran out. */
static int bilinear_resize(const BilinearTables *t)
{
    float *mixed = (float *)malloc((size_t)t->row_bytes * sizeof(float) + 1);
    if (mixed == NULL)
        return 0;
    for (int64_t y = 0; y < t->height; y++) {
        bilinear_mix_rows(mixed, t->rows + t->top[y] * t->row_bytes,
                          t->rows + t->bottom[y] * t->row_bytes, t->low[y], t->row_bytes);
        for (int64_t c = 0; c < BILINEAR_CHANNELS; c++) {
            char *line = (char *)t->planes + c * t->plane_stride + y * t->row_stride;
            bilinear_mix_columns((float *)line, mixed, t->left + c * t->width,
                                 t->right + c * t->width, t->weights, t->width);
        }
    }
    free(mixed);
    return 1;
}

#endif
