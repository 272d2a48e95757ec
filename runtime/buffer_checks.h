/* Buffer arguments of the C extensions: acquired together, checked, released. */

#ifndef RUNTIME_BUFFER_CHECKS_H
#define RUNTIME_BUFFER_CHECKS_H

#include <Python.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    const char *name;
    const char *format; /* of the struct module */
    int dimensions;
    int flags; /* of PyObject_GetBuffer */
} BufferSpec;

enum {
    READ_CONTIGUOUS = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT,
    WRITE_STRIDED = PyBUF_STRIDES | PyBUF_FORMAT | PyBUF_WRITABLE
};

static void release_buffers(Py_buffer *buffers, int count)
{
    while (count > 0)
        PyBuffer_Release(&buffers[--count]);
}

/* Returns 1, or 0 with a Python error set and no buffer held. */
static int acquire_buffers(PyObject *const *objects, const BufferSpec *specs, Py_buffer *buffers,
                           int count)
{
    for (int i = 0; i < count; i++) {
        if (PyObject_GetBuffer(objects[i], &buffers[i], specs[i].flags) != 0) {
            release_buffers(buffers, i);
            return 0;
        }
    }
    for (int i = 0; i < count; i++) {
        const char *format = buffers[i].format != NULL ? buffers[i].format : "B";
        if (buffers[i].ndim == specs[i].dimensions && strcmp(format, specs[i].format) == 0)
            continue;
        PyErr_Format(PyExc_ValueError, "%s: expected %d dimensions of format '%s', got %d of '%s'",
                     specs[i].name, specs[i].dimensions, specs[i].format, buffers[i].ndim, format);
        release_buffers(buffers, count);
        return 0;
    }
    return 1;
}

/* Every int32 of the buffer is from 0 to end - 1; else 0 with an IndexError set. */
static int indices_in_range(const Py_buffer *buffer, int64_t end, const char *name)
{
    const int32_t *index = buffer->buf;
    const Py_ssize_t count = buffer->len / (Py_ssize_t)sizeof(int32_t);
    for (Py_ssize_t i = 0; i < count; i++) {
        if (index[i] < 0 || index[i] >= end) {
            PyErr_Format(PyExc_IndexError, "%s: %d is outside 0 to %lld", name, (int)index[i],
                         (long long)end - 1);
            return 0;
        }
    }
    return 1;
}

#endif
