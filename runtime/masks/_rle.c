/* The loops of runtime/masks/rle_from_masks.py, compiled: masks pasted into boxes, straight to COCO's run lengths.

   Down one column of the image a pasted mask lies between two neighbouring cells of its grid. Where
   both are clearly on one side of the threshold, so are all pixels between them, and none is
   computed. Where it rises or falls steeply from one to the other, the turn is guessed and, if the
   two pixels there do not confirm it, searched for by halves. Else every pixel is computed. That is always done with the products and sums of torch's
   kernels in their order, one rounding each (-ffp-contract=off). A fused multiply-add is the exact
   product in double, a sum there, and one rounding to float, as in runtime/masks/paste.py. The caller has
   the tables; here they are held to the arrays' bounds, whatever they say. */

#define Py_LIMITED_API 0x030b0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { BUFFERS = 8, CHARS_OF_A_RUN = 13 };

/* In the order of the arguments. */
enum { GRIDS, ORDERS, FIRST, COUNT, CELL_X, WEIGHT_X, CELL_Y, WEIGHT_Y };

/* The order of operations of a pixel. */
enum { LARGE_RESIZE, SMALL_RESIZE, GRID_SAMPLE, ORDER_COUNT };

/* Rounding moves a pixel by a few units of the last place of numbers up to one, 6e-8 each. Far more
   than that are: what makes a cell clear, and what makes two pixels differ for certain. */
static const float BAND = 1e-5f, STEEP = 2e-6f;

static const struct {
    const char *name;
    const char *format;
    int dimensions;
} EXPECTED[BUFFERS] = {
    {"grids", "f", 3},  {"orders", "B", 1},   {"first", "i", 2},  {"count", "i", 2},
    {"cell_x", "i", 1}, {"weight_x", "f", 2}, {"cell_y", "i", 1}, {"weight_y", "f", 2},
};

typedef struct {
    Py_ssize_t height, width;
    float threshold;
    int inclusive;
} Image;

/* Text that grows, and one mask's place in it. */
typedef struct {
    char *chars;
    size_t used, room;
    int64_t last_edge, run_before_last, last_run;
    int runs, is_on, failed;
} Writer;

/* Rows of the image between the same two cells. `step`: the least change of the lower one's weight
   where it changes, 0 if it does not only rise; `rows`: for a change of one, on the average. */
typedef struct {
    int32_t start, stop, cell;
    float step, rows;
} Segment;

/* Room for one mask's rows and one column's cells. */
typedef struct {
    Segment *segments;
    float *column;
    int32_t *side;
} Room;

static int well_formed(const Py_buffer *given, int which)
{
    if (given->ndim == EXPECTED[which].dimensions && given->format != NULL &&
        strcmp(given->format, EXPECTED[which].format) == 0)
        return 1;
    PyErr_Format(PyExc_ValueError, "%s: expected %d dimensions of format '%s', got %d of '%s'",
                 EXPECTED[which].name, EXPECTED[which].dimensions, EXPECTED[which].format,
                 given->ndim, given->format != NULL ? given->format : "B");
    return 0;
}

static int cells_exist(const Py_buffer *table, Py_ssize_t cells, const char *name)
{
    const int32_t *cell = table->buf;
    for (Py_ssize_t i = 0; i < table->shape[0]; i++) {
        if (cell[i] < 0 || cell[i] >= cells - 1) {
            PyErr_Format(PyExc_IndexError, "%s: %d is outside 0 to %zd", name, (int)cell[i],
                         cells - 2);
            return 0;
        }
    }
    return 1;
}

/* Every mask's columns and rows are in the image, and all together are those of the tables. */
static int places_exist(const Py_buffer *b, const Image *image)
{
    const int32_t *first = b[FIRST].buf, *count = b[COUNT].buf;
    int64_t total[2] = {0, 0};
    for (Py_ssize_t i = 0; i < 2 * b[GRIDS].shape[0]; i++) {
        const Py_ssize_t extent = i % 2 == 0 ? image->width : image->height;
        if (first[i] < 0 || count[i] < 0 || (int64_t)first[i] + count[i] > extent) {
            PyErr_Format(PyExc_IndexError, "mask %zd: %d pixels from %d on leave the image", i / 2,
                         (int)count[i], (int)first[i]);
            return 0;
        }
        total[i % 2] += count[i];
    }
    if (total[0] == b[CELL_X].shape[0] && total[1] == b[CELL_Y].shape[0])
        return 1;
    PyErr_SetString(PyExc_ValueError, "the tables do not fit the masks");
    return 0;
}

static int consistent(const Py_buffer *b, const Image *image)
{
    const Py_ssize_t masks = b[GRIDS].shape[0], cells = b[GRIDS].shape[1];
    const int fits = cells >= 2 && b[GRIDS].shape[2] == cells && b[ORDERS].shape[0] == masks &&
                     b[FIRST].shape[0] == masks && b[FIRST].shape[1] == 2 &&
                     b[COUNT].shape[0] == masks && b[COUNT].shape[1] == 2 &&
                     b[WEIGHT_X].shape[0] == 2 && b[WEIGHT_X].shape[1] == b[CELL_X].shape[0] &&
                     b[WEIGHT_Y].shape[0] == 2 && b[WEIGHT_Y].shape[1] == b[CELL_Y].shape[0] &&
                     image->height >= 0 && image->height <= INT32_MAX && image->width >= 0 &&
                     image->width <= INT32_MAX;
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "the tables do not fit the masks");
        return 0;
    }
    const uint8_t *order = b[ORDERS].buf;
    for (Py_ssize_t mask = 0; mask < masks; mask++) {
        if (order[mask] >= ORDER_COUNT) {
            PyErr_Format(PyExc_IndexError, "orders: %d is outside 0 to %d", (int)order[mask],
                         ORDER_COUNT - 1);
            return 0;
        }
    }
    return places_exist(b, image) && cells_exist(&b[CELL_X], cells, "cell_x") &&
           cells_exist(&b[CELL_Y], cells, "cell_y");
}

static int has_room(Writer *text)
{
    if (text->room - text->used >= CHARS_OF_A_RUN)
        return 1;
    const size_t room = text->room == 0 ? 4096 : 2 * text->room;
    char *chars = realloc(text->chars, room);
    if (chars == NULL) {
        text->failed = 1;
        return 0;
    }
    text->chars = chars;
    text->room = room;
    return 1;
}

/* `rleToString` of COCO's maskApi.c: from the fourth run on the difference to the run before the
   last, in groups of five bits, low first. */
static void write_run(Writer *text, int64_t run)
{
    int64_t rest = text->runs > 2 ? run - text->run_before_last : run;
    if (!has_room(text))
        return;
    for (int more = 1; more;) {
        int group = (int)(rest & 31);
        rest >>= 5;
        more = group & 16 ? rest != -1 : rest != 0;
        text->chars[text->used++] = (char)(group + (more ? 32 : 0) + 48);
    }
    text->run_before_last = text->last_run;
    text->last_run = run;
    text->runs++;
}

/* From here on, until told otherwise, pixels are in the mask or are not. */
static void turn(Writer *text, int64_t place, int is_on)
{
    if (is_on == text->is_on)
        return;
    write_run(text, place - text->last_edge);
    text->last_edge = place;
    text->is_on = is_on;
}

static float fused(float a, float b, float c)
{
    return (float)((double)a * (double)b + (double)c);
}

/* All cells of one column of the image, nearly, from the two columns of the grid beside it: how far
   above the threshold, and on which side of it. */
static void mix(float *restrict column, int32_t *restrict side, const float *restrict left,
                const float *restrict right, const float weight[2], float threshold,
                Py_ssize_t cells)
{
    const float w0 = weight[0], w1 = weight[1];
    for (Py_ssize_t k = 0; k < cells; k++) {
        column[k] = left[k] * w0 + right[k] * w1 - threshold;
        side[k] = (column[k] > BAND) - (column[k] < -BAND);
    }
}

/* `corner`: upper left, upper right, lower left, lower right. */
static float in_products(const float corner[4], const float x[2], float y0, float y1, int order)
{
    const float total = order == SMALL_RESIZE
                            ? fused(corner[0], x[0] * y0, corner[1] * (x[1] * y0))
                            : fused(corner[1], x[1] * y0, corner[0] * (x[0] * y0));
    return fused(corner[3], x[1] * y1, fused(corner[2], x[0] * y1, total));
}

typedef struct {
    const float *left, *right; /* columns of the grid */
    const float *column;       /* what is between them here, nearly, less the threshold */
    const int32_t *side;       /* -1 clearly below it, 1 clearly above, else 0 */
    const float *weight_y0, *weight_y1;
    float weight_x[2];
    int order;
} Column;

/* What is between two cells of a column. */
typedef struct {
    const Column *column;
    const Image *image;
    float corner[4], top, bottom;
} Stretch;

static Stretch stretch_of(const Column *c, int32_t cell, const Image *image)
{
    Stretch s = {.column = c, .image = image,
                 .corner = {c->left[cell], c->right[cell], c->left[cell + 1], c->right[cell + 1]}};
    const float *x = c->weight_x;
    s.top = fused(s.corner[0], x[0], s.corner[1] * x[1]);
    s.bottom = fused(s.corner[2], x[0], s.corner[3] * x[1]);
    return s;
}

static int is_in(const Stretch *s, int32_t row)
{
    const Column *c = s->column;
    const float y0 = c->weight_y0[row], y1 = c->weight_y1[row];
    const float value = c->order == LARGE_RESIZE
                            ? fused(s->top, y0, s->bottom * y1)
                            : in_products(s->corner, c->weight_x, y0, y1, c->order);
    return s->image->inclusive ? value >= s->image->threshold : value > s->image->threshold;
}

/* The first row that is as the lower cell is: all behind it are, and none before. `at`: where the
   threshold lies between the cells, from 0 to 1; a guess from it is right as a rule. */
static int32_t turning_row(const Stretch *s, const Segment *rows, float at, int is_rising)
{
    int32_t start = rows->start, stop = rows->stop;
    const float ahead = (at - s->column->weight_y1[start]) * rows->rows;
    if (ahead >= 0 && ahead < (float)(stop - start - 1)) {
        const int32_t guess = start + (int32_t)ahead;
        const int is_before = is_in(s, guess) != is_rising;
        const int is_behind = is_in(s, guess + 1) == is_rising;
        if (is_before && is_behind)
            return guess + 1;
    }
    while (start < stop) {
        const int32_t middle = start + (stop - start) / 2;
        if (is_in(s, middle) == is_rising)
            stop = middle;
        else
            start = middle + 1;
    }
    return start;
}

static void write_segment(Writer *text, const Column *c, const Segment *s, int64_t place,
                          const Image *image)
{
    const int upper = c->side[s->cell], lower = c->side[s->cell + 1];
    if (upper == lower && upper != 0) {
        turn(text, place + s->start, upper > 0);
        return;
    }
    const float a = c->column[s->cell], b = c->column[s->cell + 1];
    const Stretch stretch = stretch_of(c, s->cell, image);
    if (upper * lower < 0 && (b > a ? b - a : a - b) * s->step > STEEP) {
        const int32_t row = turning_row(&stretch, s, a / (a - b), b > 0);
        if (row > s->start)
            turn(text, place + s->start, a > 0);
        if (row < s->stop)
            turn(text, place + row, b > 0);
        return;
    }
    for (int32_t row = s->start; row < s->stop; row++)
        turn(text, place + row, is_in(&stretch, row));
}

/* Answers how many there are. `weight`: of the lower cell. */
static int32_t find_segments(Segment *segments, const int32_t *cell, const float *weight,
                             int32_t rows)
{
    int32_t found = 0;
    for (int32_t row = 0; row < rows; row++) {
        if (found == 0 || segments[found - 1].cell != cell[row]) {
            segments[found++] = (Segment){row, row + 1, cell[row], 1.0f, 0.0f};
            continue;
        }
        Segment *last = &segments[found - 1];
        const float change = weight[row] - weight[row - 1];
        last->stop = row + 1;
        if (!(change >= 0))
            last->step = 0;
        else if (change > 0 && change < last->step)
            last->step = change;
        if (last->step > 0 && weight[row] > weight[last->start])
            last->rows = (float)(row - last->start) / (weight[row] - weight[last->start]);
    }
    return found;
}

/* `x`, `y`: where this mask's part of the tables starts. */
static void write_mask(Writer *text, const Py_buffer *b, Py_ssize_t mask, int64_t x, int64_t y,
                       const Room *room, const Image *image)
{
    const int32_t *first = (const int32_t *)b[FIRST].buf + 2 * mask;
    const int32_t *count = (const int32_t *)b[COUNT].buf + 2 * mask;
    const int32_t *cell_x = (const int32_t *)b[CELL_X].buf + x;
    const float *weight_x = (const float *)b[WEIGHT_X].buf + x;
    const Py_ssize_t cells = b[GRIDS].shape[1], height = image->height;
    const float *grid = (const float *)b[GRIDS].buf + mask * cells * cells;
    Column c = {.column = room->column, .side = room->side,
                .order = ((const uint8_t *)b[ORDERS].buf)[mask]};
    c.weight_y0 = (const float *)b[WEIGHT_Y].buf + y;
    c.weight_y1 = c.weight_y0 + b[CELL_Y].shape[0];
    const int32_t found =
        find_segments(room->segments, (const int32_t *)b[CELL_Y].buf + y, c.weight_y1, count[1]);
    for (int32_t i = 0; found > 0 && i < count[0]; i++) {
        const int64_t top = ((int64_t)first[0] + i) * height;
        c.left = grid + cell_x[i] * cells;
        c.right = c.left + cells;
        c.weight_x[0] = weight_x[i];
        c.weight_x[1] = weight_x[b[CELL_X].shape[0] + i];
        mix(room->column, room->side, c.left, c.right, c.weight_x, image->threshold, cells);
        if (first[1] > 0)
            turn(text, top, 0);
        for (int32_t s = 0; s < found; s++)
            write_segment(text, &c, &room->segments[s], top + first[1], image);
        if (first[1] + count[1] < height)
            turn(text, top + first[1] + count[1], 0);
    }
    if (first[0] + count[0] < image->width)
        turn(text, ((int64_t)first[0] + count[0]) * height, 0);
}

/* `stops`: where each mask's text ends. Needs no interpreter. */
static void write_all(Writer *text, size_t *stops, const Py_buffer *b, const Room *room,
                      const Image *image)
{
    const int32_t *count = b[COUNT].buf;
    int64_t x = 0, y = 0;
    for (Py_ssize_t mask = 0; mask < b[GRIDS].shape[0] && !text->failed; mask++) {
        text->last_edge = text->runs = text->is_on = 0;
        write_mask(text, b, mask, x, y, room, image);
        const int64_t rest = (int64_t)image->height * image->width - text->last_edge;
        /* COCO writes no empty run at the end, but an empty mask has its one run. */
        if (rest > 0 || text->runs == 0)
            write_run(text, rest);
        stops[mask] = text->used;
        x += count[2 * mask];
        y += count[2 * mask + 1];
    }
}

static PyObject *as_list(const Writer *text, const size_t *stops, Py_ssize_t masks)
{
    PyObject *list = PyList_New(masks);
    for (Py_ssize_t mask = 0; list != NULL && mask < masks; mask++) {
        const size_t start = mask == 0 ? 0 : stops[mask - 1];
        PyObject *one =
            PyUnicode_FromStringAndSize(text->chars + start, (Py_ssize_t)(stops[mask] - start));
        if (one == NULL)
            Py_CLEAR(list);
        else
            PyList_SetItem(list, mask, one);
    }
    return list;
}

static PyObject *run(const Py_buffer *b, const Image *image)
{
    for (int which = 0; which < BUFFERS; which++)
        if (!well_formed(&b[which], which))
            return NULL;
    if (!consistent(b, image))
        return NULL;
    const Py_ssize_t masks = b[GRIDS].shape[0];
    Writer text = {0};
    size_t *stops = PyMem_Calloc((size_t)masks, sizeof(size_t));
    const Room room = {
        PyMem_Calloc((size_t)b[CELL_Y].shape[0], sizeof(Segment)),
        PyMem_Calloc((size_t)b[GRIDS].shape[1], sizeof(float)),
        PyMem_Calloc((size_t)b[GRIDS].shape[1], sizeof(int32_t)),
    };
    PyObject *list = NULL;
    if (stops != NULL && room.segments != NULL && room.column != NULL && room.side != NULL) {
        Py_BEGIN_ALLOW_THREADS
        write_all(&text, stops, b, &room, image);
        Py_END_ALLOW_THREADS
        if (!text.failed)
            list = as_list(&text, stops, masks);
    }
    free(text.chars);
    PyMem_Free(stops);
    PyMem_Free(room.segments);
    PyMem_Free(room.column);
    PyMem_Free(room.side);
    return list != NULL || PyErr_Occurred() ? list : PyErr_NoMemory();
}

static PyObject *encode(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *given[BUFFERS], *list = NULL;
    Py_buffer buffers[BUFFERS];
    Image image;
    int held = 0;
    if (!PyArg_ParseTuple(arguments, "OOOOOOOOnnfp:encode", &given[0], &given[1], &given[2],
                          &given[3], &given[4], &given[5], &given[6], &given[7], &image.height,
                          &image.width, &image.threshold, &image.inclusive))
        return NULL;
    for (; held < BUFFERS; held++)
        if (PyObject_GetBuffer(given[held], &buffers[held], PyBUF_C_CONTIGUOUS | PyBUF_FORMAT) != 0)
            break;
    if (held == BUFFERS)
        list = run(buffers, &image);
    while (held > 0)
        PyBuffer_Release(&buffers[--held]);
    return list;
}

static PyMethodDef METHODS[] = {
    {"encode", encode, METH_VARARGS, "Run lengths of pasted masks; see runtime/masks/_rle.pyi."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef MODULE = {
    .m_base = PyModuleDef_HEAD_INIT, .m_name = "_rle", .m_methods = METHODS,
};

PyMODINIT_FUNC PyInit__rle(void)
{
    return PyModule_Create(&MODULE);
}
