/* The loops of runtime/preprocessing/torch_bilinear.py, compiled: a bilinear resize of interleaved bytes to planes.

   The same products and sums in the same order, one rounding each, so that the answer is equal to
   NumPy's to the bit; the build must not fuse them (-ffp-contract=off). The caller has the tables;
   here they are held to the arrays' bounds, whatever they say. */

#define Py_LIMITED_API 0x030b0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

enum { CHANNELS = 3, BUFFERS = 8 };

/* In the order of the arguments. */
enum { PLANES, ROWS, TOP, BOTTOM, LOW, LEFT, RIGHT, WEIGHTS };

static const struct {
    const char *name;
    const char *format;
    int dimensions;
} EXPECTED[BUFFERS] = {
    {"planes", "f", 3}, {"rows", "B", 2}, {"top", "i", 1},   {"bottom", "i", 1},
    {"low", "f", 1},    {"left", "i", 2}, {"right", "i", 2}, {"weights", "f", 2},
};

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

static int in_range(const Py_buffer *table, int64_t end, const char *name)
{
    const int32_t *index = table->buf;
    const Py_ssize_t count = table->len / (Py_ssize_t)sizeof(int32_t);
    for (Py_ssize_t i = 0; i < count; i++) {
        if (index[i] < 0 || index[i] >= end) {
            PyErr_Format(PyExc_IndexError, "%s: %d is outside 0 to %lld", name, (int)index[i],
                         (long long)end - 1);
            return 0;
        }
    }
    return 1;
}

static int consistent(const Py_buffer *b)
{
    const Py_ssize_t height = b[PLANES].shape[1], width = b[PLANES].shape[2];
    int fits = b[PLANES].shape[0] == CHANNELS && b[WEIGHTS].shape[0] == 2 &&
               b[WEIGHTS].shape[1] == width;
    for (int which = TOP; which <= LOW; which++)
        fits = fits && b[which].shape[0] == height;
    for (int which = LEFT; which <= RIGHT; which++)
        fits = fits && b[which].shape[0] == CHANNELS && b[which].shape[1] == width;
    /* The rows of a plane may lie apart, as on a padded canvas; its pixels may not. */
    fits = fits && (width < 2 || b[PLANES].strides[2] == (Py_ssize_t)sizeof(float));
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "the tables do not fit the planes");
        return 0;
    }
    const int64_t photo_rows = b[ROWS].shape[0], row_bytes = b[ROWS].shape[1];
    return in_range(&b[TOP], photo_rows, "top") && in_range(&b[BOTTOM], photo_rows, "bottom") &&
           in_range(&b[LEFT], row_bytes, "left") && in_range(&b[RIGHT], row_bytes, "right");
}

/* `mixed` has room for one row of the photo; none of these overlap. */
static void mix_rows(float *restrict mixed, const uint8_t *restrict upper,
                     const uint8_t *restrict lower, float low, Py_ssize_t count)
{
    for (Py_ssize_t i = 0; i < count; i++) {
        const float above = (float)upper[i];
        mixed[i] = above + ((float)lower[i] - above) * low;
    }
}

static void mix_columns(float *restrict line, const float *restrict mixed,
                        const int32_t *restrict left, const int32_t *restrict right,
                        const float *restrict weights, Py_ssize_t width)
{
    for (Py_ssize_t x = 0; x < width; x++)
        line[x] = mixed[left[x]] * weights[x] + mixed[right[x]] * weights[width + x];
}

static void resize_all(const Py_buffer *b, float *mixed)
{
    const Py_ssize_t height = b[PLANES].shape[1], width = b[PLANES].shape[2];
    const Py_ssize_t row_bytes = b[ROWS].shape[1];
    const uint8_t *rows = b[ROWS].buf;
    const int32_t *top = b[TOP].buf, *bottom = b[BOTTOM].buf;
    const int32_t *left = b[LEFT].buf, *right = b[RIGHT].buf;
    const float *low = b[LOW].buf;
    for (Py_ssize_t y = 0; y < height; y++) {
        mix_rows(mixed, rows + top[y] * row_bytes, rows + bottom[y] * row_bytes, low[y], row_bytes);
        for (Py_ssize_t c = 0; c < CHANNELS; c++) {
            char *plane = (char *)b[PLANES].buf + c * b[PLANES].strides[0];
            mix_columns((float *)(plane + y * b[PLANES].strides[1]), mixed, left + c * width,
                        right + c * width, b[WEIGHTS].buf, width);
        }
    }
}

static int run(const Py_buffer *b)
{
    for (int which = 0; which < BUFFERS; which++)
        if (!well_formed(&b[which], which))
            return 0;
    if (!consistent(b))
        return 0;
    float *mixed = PyMem_Malloc((size_t)b[ROWS].shape[1] * sizeof(float));
    if (mixed == NULL) {
        PyErr_NoMemory();
        return 0;
    }
    Py_BEGIN_ALLOW_THREADS
    resize_all(b, mixed);
    Py_END_ALLOW_THREADS
    PyMem_Free(mixed);
    return 1;
}

static PyObject *resize(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *given[BUFFERS];
    Py_buffer buffers[BUFFERS];
    int held = 0, done = 0;
    if (!PyArg_UnpackTuple(arguments, "resize", BUFFERS, BUFFERS, &given[0], &given[1], &given[2],
                           &given[3], &given[4], &given[5], &given[6], &given[7]))
        return NULL;
    for (; held < BUFFERS; held++) {
        const int wanted = held == PLANES ? PyBUF_STRIDES | PyBUF_FORMAT | PyBUF_WRITABLE
                                          : PyBUF_C_CONTIGUOUS | PyBUF_FORMAT;
        if (PyObject_GetBuffer(given[held], &buffers[held], wanted) != 0)
            break;
    }
    if (held == BUFFERS)
        done = run(buffers);
    while (held > 0)
        PyBuffer_Release(&buffers[--held]);
    if (!done)
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef METHODS[] = {
    {"resize", resize, METH_VARARGS, "Fill planes from rows; see runtime/preprocessing/_bilinear.pyi."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef MODULE = {
    .m_base = PyModuleDef_HEAD_INIT, .m_name = "_bilinear", .m_methods = METHODS,
};

PyMODINIT_FUNC PyInit__bilinear(void)
{
    return PyModule_Create(&MODULE);
}
