/* Python bindings of bilinear_kernel.h; see runtime/preprocessing/_bilinear.pyi. */

#define Py_LIMITED_API 0x030b0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "../buffer_checks.h"
#include "bilinear_kernel.h"

/* In the order of the arguments. */
enum { PLANES, ROWS, TOP, BOTTOM, LOW, LEFT, RIGHT, WEIGHTS, BUFFERS };

static const BufferSpec EXPECTED[BUFFERS] = {
    {"planes", "f", 3, WRITE_STRIDED},   {"rows", "B", 2, READ_CONTIGUOUS},
    {"top", "i", 1, READ_CONTIGUOUS},    {"bottom", "i", 1, READ_CONTIGUOUS},
    {"low", "f", 1, READ_CONTIGUOUS},    {"left", "i", 2, READ_CONTIGUOUS},
    {"right", "i", 2, READ_CONTIGUOUS},  {"weights", "f", 2, READ_CONTIGUOUS},
};

static int consistent(const Py_buffer *b)
{
    const Py_ssize_t height = b[PLANES].shape[1], width = b[PLANES].shape[2];
    int fits = b[PLANES].shape[0] == BILINEAR_CHANNELS && b[WEIGHTS].shape[0] == 2 &&
               b[WEIGHTS].shape[1] == width;
    for (int i = TOP; i <= LOW; i++)
        fits = fits && b[i].shape[0] == height;
    for (int i = LEFT; i <= RIGHT; i++)
        fits = fits && b[i].shape[0] == BILINEAR_CHANNELS && b[i].shape[1] == width;
    fits = fits && (width < 2 || b[PLANES].strides[2] == (Py_ssize_t)sizeof(float));
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "the tables do not fit the planes");
        return 0;
    }
    const int64_t photo_rows = b[ROWS].shape[0], row_bytes = b[ROWS].shape[1];
    return indices_in_range(&b[TOP], photo_rows, "top") &&
           indices_in_range(&b[BOTTOM], photo_rows, "bottom") &&
           indices_in_range(&b[LEFT], row_bytes, "left") &&
           indices_in_range(&b[RIGHT], row_bytes, "right");
}

static int run(const Py_buffer *b)
{
    if (!consistent(b))
        return 0;
    const BilinearTables tables = {
        .planes = b[PLANES].buf, .plane_stride = b[PLANES].strides[0],
        .row_stride = b[PLANES].strides[1], .height = b[PLANES].shape[1],
        .width = b[PLANES].shape[2], .rows = b[ROWS].buf, .row_bytes = b[ROWS].shape[1],
        .top = b[TOP].buf, .bottom = b[BOTTOM].buf, .low = b[LOW].buf,
        .left = b[LEFT].buf, .right = b[RIGHT].buf, .weights = b[WEIGHTS].buf,
    };
    int is_done;
    Py_BEGIN_ALLOW_THREADS
    is_done = bilinear_resize(&tables);
    Py_END_ALLOW_THREADS
    if (!is_done)
        PyErr_NoMemory();
    return is_done;
}

static PyObject *resize(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *objects[BUFFERS];
    Py_buffer buffers[BUFFERS];
    if (!PyArg_UnpackTuple(arguments, "resize", BUFFERS, BUFFERS, &objects[0], &objects[1],
                           &objects[2], &objects[3], &objects[4], &objects[5], &objects[6],
                           &objects[7]) ||
        !acquire_buffers(objects, EXPECTED, buffers, BUFFERS))
        return NULL;
    const int is_done = run(buffers);
    release_buffers(buffers, BUFFERS);
    if (!is_done)
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef METHODS[] = {
    {"resize", resize, METH_VARARGS,
     "Fill planes from rows; see runtime/preprocessing/_bilinear.pyi."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef MODULE = {
    .m_base = PyModuleDef_HEAD_INIT, .m_name = "_bilinear", .m_methods = METHODS,
};

PyMODINIT_FUNC PyInit__bilinear(void)
{
    return PyModule_Create(&MODULE);
}
