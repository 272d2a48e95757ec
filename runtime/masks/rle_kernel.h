/* Masks pasted into boxes, straight to COCO's run lengths. Plain C that also compiles as C++.

   Along one column of the image a pasted mask lies between two neighboring cells of its grid. If
   both cells are clearly on one side of the threshold, so are all pixels between them, and none is
   computed. If the mask rises or falls steeply from one to the other, the crossing is estimated
   and, unless the two pixels there confirm it, found by bisection. Otherwise every pixel is
   computed. Pixels use the products and sums of torch's kernels in their order, each rounded once:
   compile with -ffp-contract=off. A fused multiply-add is the exact product in double, a sum in
   double, and one rounding to float, as in runtime/masks/paste.py.

   The kernel checks no bounds: the caller does. */

#ifndef RUNTIME_MASKS_RLE_KERNEL_H
#define RUNTIME_MASKS_RLE_KERNEL_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/* The order of operations of a pixel. */
enum { RLE_LARGE_RESIZE, RLE_SMALL_RESIZE, RLE_GRID_SAMPLE, RLE_ORDERS };

typedef struct {
    int64_t height, width;
    float threshold;
    int inclusive; /* whether the threshold itself is foreground */
} RleImage;

/* The tables of D masks with grids of G x G cells; N columns and R rows of all masks together. A
   table index is the first of two neighboring cells. */
typedef struct {
    const float *grids;               /* [D, G, G], x first */
    const uint8_t *orders;            /* [D] */
    const int32_t *first, *count;     /* [D, 2], x first, in pixels of the image */
    const int32_t *cell_x, *cell_y;   /* [N], [R] */
    const float *weight_x, *weight_y; /* [2, N], [2, R] */
    int64_t masks, cells, columns, rows;
} RleMasks;

/* The texts of all masks, one behind the other, and the state of the one being written. */
typedef struct {
    char *chars;
    size_t used, capacity;
    int64_t last_edge, run_before_last, last_run;
    int runs, is_on, failed;
} RleWriter;

/* Rows of the image between the same two cells. `step`: the smallest change of the lower cell's
   weight where it changes, 0 if it ever falls; `rows_per_unit`: rows for a change of one. */
typedef struct {
    int32_t start, stop, cell;
    float step, rows_per_unit;
} RleSegment;

/* Memory for one mask's rows and one column's cells. */
typedef struct {
    RleSegment *segments;
    float *column;
    int32_t *side;
} RleScratch;

/* One column of the image. */
typedef struct {
    const float *left, *right; /* columns of the grid */
    const float *column;       /* interpolated between them, approximate, minus the threshold */
    const int32_t *side;       /* -1 clearly below the threshold, 1 clearly above, else 0 */
    const float *weight_y0, *weight_y1;
    float weight_x[2];
    int order;
} RleColumn;

/* The pixels between two cells of a column. */
typedef struct {
    const RleColumn *column;
    const RleImage *image;
    float corner[4], top, bottom;
} RleStretch;

/* Rounding moves a pixel by a few units of the last place of numbers up to one, 6e-8 each. These
   are far larger: the distance that makes a cell clear, and a certain difference of two pixels. */
static const float RLE_BAND = 1e-5f, RLE_STEEP = 2e-6f;
enum { RLE_CHARS_OF_A_RUN = 13 };

static int rle_reserve(RleWriter *text)
{
    if (text->capacity - text->used >= RLE_CHARS_OF_A_RUN)
        return 1;
    const size_t capacity = text->capacity == 0 ? 4096 : 2 * text->capacity;
    char *chars = (char *)realloc(text->chars, capacity);
    if (chars == NULL) {
        text->failed = 1;
        return 0;
    }
    text->chars = chars;
    text->capacity = capacity;
    return 1;
}

/* `rleToString` of COCO's maskApi.c: from the fourth run on the difference to the run before the
   last, in groups of five bits, low first. */
static void rle_write_run(RleWriter *text, int64_t run)
{
    int64_t value = text->runs > 2 ? run - text->run_before_last : run;
    if (!rle_reserve(text))
        return;
    for (int more = 1; more;) {
        const int group = (int)(value & 31);
        value >>= 5;
        more = group & 16 ? value != -1 : value != 0;
        text->chars[text->used++] = (char)(group + (more ? 32 : 0) + 48);
    }
    text->run_before_last = text->last_run;
    text->last_run = run;
    text->runs++;
}

/* Pixels from `index` on are foreground, or not. */
static void rle_set(RleWriter *text, int64_t index, int is_on)
{
    if (is_on == text->is_on)
        return;
    rle_write_run(text, index - text->last_edge);
    text->last_edge = index;
    text->is_on = is_on;
}

static float rle_fused(float a, float b, float c)
{
    return (float)((double)a * (double)b + (double)c);
}

/* All cells of one column of the image, approximately, from the two columns of the grid beside
   it: the distance from the threshold, and the side of it. */
static void rle_mix(float *__restrict column, int32_t *__restrict side,
                    const float *__restrict left, const float *__restrict right,
                    const float weight[2], float threshold, int64_t cells)
{
    const float w0 = weight[0], w1 = weight[1];
    for (int64_t k = 0; k < cells; k++) {
        column[k] = left[k] * w0 + right[k] * w1 - threshold;
        side[k] = (column[k] > RLE_BAND) - (column[k] < -RLE_BAND);
    }
}

/* `corner`: upper left, upper right, lower left, lower right. */
static float rle_in_products(const float corner[4], const float x[2], float y0, float y1, int order)
{
    const float total = order == RLE_SMALL_RESIZE
                            ? rle_fused(corner[0], x[0] * y0, corner[1] * (x[1] * y0))
                            : rle_fused(corner[1], x[1] * y0, corner[0] * (x[0] * y0));
    return rle_fused(corner[3], x[1] * y1, rle_fused(corner[2], x[0] * y1, total));
}

static RleStretch rle_stretch(const RleColumn *c, int32_t cell, const RleImage *image)
{
    const float *x = c->weight_x;
    RleStretch s;
    s.column = c;
    s.image = image;
    s.corner[0] = c->left[cell];
    s.corner[1] = c->right[cell];
    s.corner[2] = c->left[cell + 1];
    s.corner[3] = c->right[cell + 1];
    s.top = rle_fused(s.corner[0], x[0], s.corner[1] * x[1]);
    s.bottom = rle_fused(s.corner[2], x[0], s.corner[3] * x[1]);
    return s;
}

static int rle_is_foreground(const RleStretch *s, int32_t row)
{
    const RleColumn *c = s->column;
    const float y0 = c->weight_y0[row], y1 = c->weight_y1[row];
    const float value = c->order == RLE_LARGE_RESIZE
                            ? rle_fused(s->top, y0, s->bottom * y1)
                            : rle_in_products(s->corner, c->weight_x, y0, y1, c->order);
    return s->image->inclusive ? value >= s->image->threshold : value > s->image->threshold;
}

/* The first row on the lower cell's side of the threshold: all behind it are, none before it.
   `at`: where the threshold lies between the cells, from 0 to 1; the estimate is usually right. */
static int32_t rle_crossing(const RleStretch *s, const RleSegment *rows, float at, int is_rising)
{
    int32_t start = rows->start, stop = rows->stop;
    const float ahead = (at - s->column->weight_y1[start]) * rows->rows_per_unit;
    if (ahead >= 0 && ahead < (float)(stop - start - 1)) {
        const int32_t estimate = start + (int32_t)ahead;
        if (rle_is_foreground(s, estimate) != is_rising &&
            rle_is_foreground(s, estimate + 1) == is_rising)
            return estimate + 1;
    }
    while (start < stop) {
        const int32_t middle = start + (stop - start) / 2;
        if (rle_is_foreground(s, middle) == is_rising)
            stop = middle;
        else
            start = middle + 1;
    }
    return start;
}

static void rle_write_segment(RleWriter *text, const RleColumn *c, const RleSegment *s,
                              int64_t index, const RleImage *image)
{
    const int upper = c->side[s->cell], lower = c->side[s->cell + 1];
    if (upper == lower && upper != 0) {
        rle_set(text, index + s->start, upper > 0);
        return;
    }
    const float a = c->column[s->cell], b = c->column[s->cell + 1];
    const RleStretch stretch = rle_stretch(c, s->cell, image);
    if (upper * lower < 0 && (b > a ? b - a : a - b) * s->step > RLE_STEEP) {
        const int32_t row = rle_crossing(&stretch, s, a / (a - b), b > 0);
        if (row > s->start)
            rle_set(text, index + s->start, a > 0);
        if (row < s->stop)
            rle_set(text, index + row, b > 0);
        return;
    }
    for (int32_t row = s->start; row < s->stop; row++)
        rle_set(text, index + row, rle_is_foreground(&stretch, row));
}

/* Returns the number of segments. `weight`: of the lower cell. */
static int32_t rle_segments(RleSegment *segments, const int32_t *cell, const float *weight,
                            int32_t rows)
{
    int32_t count = 0;
    for (int32_t row = 0; row < rows; row++) {
        if (count == 0 || segments[count - 1].cell != cell[row]) {
            const RleSegment one = {row, row + 1, cell[row], 1.0f, 0.0f};
            segments[count++] = one;
            continue;
        }
        RleSegment *last = &segments[count - 1];
        const float change = weight[row] - weight[row - 1];
        last->stop = row + 1;
        if (!(change >= 0))
            last->step = 0;
        else if (change > 0 && change < last->step)
            last->step = change;
        if (last->step > 0 && weight[row] > weight[last->start])
            last->rows_per_unit =
                (float)(row - last->start) / (weight[row] - weight[last->start]);
    }
    return count;
}

/* `x`, `y`: offsets of this mask's part of the tables. */
static void rle_write_mask(RleWriter *text, const RleMasks *masks, int64_t mask, int64_t x,
                           int64_t y, const RleScratch *scratch, const RleImage *image)
{
    const int32_t *first = masks->first + 2 * mask, *count = masks->count + 2 * mask;
    const int32_t *cell_x = masks->cell_x + x;
    const float *weight_x = masks->weight_x + x;
    const int64_t cells = masks->cells, height = image->height;
    const float *grid = masks->grids + mask * cells * cells;
    RleColumn c;
    c.column = scratch->column;
    c.side = scratch->side;
    c.order = masks->orders[mask];
    c.weight_y0 = masks->weight_y + y;
    c.weight_y1 = c.weight_y0 + masks->rows;
    const int32_t segments =
        rle_segments(scratch->segments, masks->cell_y + y, c.weight_y1, count[1]);
    for (int32_t i = 0; segments > 0 && i < count[0]; i++) {
        const int64_t top = ((int64_t)first[0] + i) * height;
        c.left = grid + cell_x[i] * cells;
        c.right = c.left + cells;
        c.weight_x[0] = weight_x[i];
        c.weight_x[1] = weight_x[masks->columns + i];
        rle_mix(scratch->column, scratch->side, c.left, c.right, c.weight_x, image->threshold,
                cells);
        if (first[1] > 0)
            rle_set(text, top, 0);
        for (int32_t s = 0; s < segments; s++)
            rle_write_segment(text, &c, &scratch->segments[s], top + first[1], image);
        if (first[1] + count[1] < height)
            rle_set(text, top + first[1] + count[1], 0);
    }
    if (first[0] + count[0] < image->width)
        rle_set(text, ((int64_t)first[0] + count[0]) * height, 0);
}

/* Encode all masks. The caller frees `text->chars`, whether or not it fails.

   Args: text, zeroed; stops, [D], filled with where each mask's text ends.
   Returns 1, or 0 if memory ran out. */
static int rle_encode(RleWriter *text, size_t *stops, const RleMasks *masks, const RleImage *image)
{
    /* One more, so that no size is zero. */
    const size_t rows = (size_t)masks->rows + 1, cells = (size_t)masks->cells + 1;
    RleScratch scratch;
    scratch.segments = (RleSegment *)calloc(rows, sizeof(RleSegment));
    scratch.column = (float *)calloc(cells, sizeof(float));
    scratch.side = (int32_t *)calloc(cells, sizeof(int32_t));
    text->failed = scratch.segments == NULL || scratch.column == NULL || scratch.side == NULL;
    int64_t x = 0, y = 0;
    for (int64_t mask = 0; mask < masks->masks && !text->failed; mask++) {
        text->last_edge = text->runs = text->is_on = 0;
        rle_write_mask(text, masks, mask, x, y, &scratch, image);
        const int64_t last_run = image->height * image->width - text->last_edge;
        /* COCO writes no empty run at the end, but an empty mask has its one run. */
        if (last_run > 0 || text->runs == 0)
            rle_write_run(text, last_run);
        stops[mask] = text->used;
        x += masks->count[2 * mask];
        y += masks->count[2 * mask + 1];
    }
    free(scratch.segments);
    free(scratch.column);
    free(scratch.side);
    return !text->failed;
}

#endif
