/* Python bindings of rle_kernel.h; see runtime/masks/_rle.pyi. */

#define Py_LIMITED_API 0x030b0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "../buffer_checks.h"
#include "rle_kernel.h"

/* In the order of the arguments. */
enum { GRIDS, ORDERS, FIRST, COUNT, CELL_X, WEIGHT_X, CELL_Y, WEIGHT_Y, BUFFERS };

static const BufferSpec EXPECTED[BUFFERS] = {
    {"grids", "f", 3, READ_CONTIGUOUS},  {"orders", "B", 1, READ_CONTIGUOUS},
    {"first", "i", 2, READ_CONTIGUOUS},  {"count", "i", 2, READ_CONTIGUOUS},
    {"cell_x", "i", 1, READ_CONTIGUOUS}, {"weight_x", "f", 2, READ_CONTIGUOUS},
    {"cell_y", "i", 1, READ_CONTIGUOUS}, {"weight_y", "f", 2, READ_CONTIGUOUS},
};

/* Every mask's columns and rows are in the image, and their sums are the lengths of the tables. */
static int spans_in_image(const RleMasks *masks, const RleImage *image)
{
    int64_t total[2] = {0, 0};
    for (int64_t i = 0; i < 2 * masks->masks; i++) {
        const int64_t extent = i % 2 == 0 ? image->width : image->height;
        const int32_t first = masks->first[i], count = masks->count[i];
        if (first < 0 || count < 0 || (int64_t)first + count > extent) {
            PyErr_Format(PyExc_IndexError, "mask %lld: %d pixels from %d on leave the image",
                         (long long)(i / 2), (int)count, (int)first);
            return 0;
        }
        total[i % 2] += count;
    }
    if (total[0] == masks->columns && total[1] == masks->rows)
        return 1;
    PyErr_SetString(PyExc_ValueError, "the tables do not fit the masks");
    return 0;
}

static int consistent(const Py_buffer *b, const RleMasks *masks, const RleImage *image)
{
    const Py_ssize_t count = b[GRIDS].shape[0], cells = b[GRIDS].shape[1];
    const int fits = cells >= 2 && b[GRIDS].shape[2] == cells && b[ORDERS].shape[0] == count &&
                     b[FIRST].shape[0] == count && b[FIRST].shape[1] == 2 &&
                     b[COUNT].shape[0] == count && b[COUNT].shape[1] == 2 &&
                     b[WEIGHT_X].shape[0] == 2 && b[WEIGHT_X].shape[1] == b[CELL_X].shape[0] &&
                     b[WEIGHT_Y].shape[0] == 2 && b[WEIGHT_Y].shape[1] == b[CELL_Y].shape[0] &&
                     image->height >= 0 && image->height <= INT32_MAX && image->width >= 0 &&
                     image->width <= INT32_MAX;
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "the tables do not fit the masks");
        return 0;
    }
    for (Py_ssize_t mask = 0; mask < count; mask++) {
        if (masks->orders[mask] >= RLE_ORDERS) {
            PyErr_Format(PyExc_IndexError, "orders: %d is outside 0 to %d",
                         (int)masks->orders[mask], RLE_ORDERS - 1);
            return 0;
        }
    }
    return spans_in_image(masks, image) && indices_in_range(&b[CELL_X], cells - 1, "cell_x") &&
           indices_in_range(&b[CELL_Y], cells - 1, "cell_y");
}

static PyObject *as_list(const RleWriter *text, const size_t *stops, Py_ssize_t masks)
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

static PyObject *run(const Py_buffer *b, const RleImage *image)
{
    const RleMasks masks = {
        .grids = b[GRIDS].buf, .orders = b[ORDERS].buf, .first = b[FIRST].buf,
        .count = b[COUNT].buf, .cell_x = b[CELL_X].buf, .cell_y = b[CELL_Y].buf,
        .weight_x = b[WEIGHT_X].buf, .weight_y = b[WEIGHT_Y].buf,
        .masks = b[GRIDS].shape[0], .cells = b[GRIDS].shape[1],
        .columns = b[CELL_X].shape[0], .rows = b[CELL_Y].shape[0],
    };
    if (!consistent(b, &masks, image))
        return NULL;
    size_t *stops = PyMem_Calloc((size_t)masks.masks, sizeof(size_t));
    if (stops == NULL)
        return PyErr_NoMemory();
    RleWriter text = {0};
    PyObject *list = NULL;
    int is_done;
    Py_BEGIN_ALLOW_THREADS
    is_done = rle_encode(&text, stops, &masks, image);
    Py_END_ALLOW_THREADS
    list = is_done ? as_list(&text, stops, (Py_ssize_t)masks.masks) : PyErr_NoMemory();
    free(text.chars);
    PyMem_Free(stops);
    return list;
}

static PyObject *encode(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *objects[BUFFERS];
    Py_buffer buffers[BUFFERS];
    Py_ssize_t height, width;
    RleImage image;
    if (!PyArg_ParseTuple(arguments, "OOOOOOOOnnfp:encode", &objects[0], &objects[1], &objects[2],
                          &objects[3], &objects[4], &objects[5], &objects[6], &objects[7], &height,
                          &width, &image.threshold, &image.inclusive) ||
        !acquire_buffers(objects, EXPECTED, buffers, BUFFERS))
        return NULL;
    image.height = height;
    image.width = width;
    PyObject *list = run(buffers, &image);
    release_buffers(buffers, BUFFERS);
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
