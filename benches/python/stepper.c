/* The least that taking async generators together can cost, in C: see stepper.py.
 *
 * A `Stepper` steps its generators one after another, by the slot that CPython has for that, and hands
 * each item (or each row of them) to an `async for`. With identities each step is made under a task and
 * a context of its own. It knows no suspension, no error, no cancellation and no closing: whatever does
 * more takes longer.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

typedef struct {
    PyObject_HEAD
    PyObject *sources;    /* a list; shorter with every source that ends */
    PyObject *identities; /* a list of (task, context), or NULL */
    PyObject *tasks;      /* the dictionary of current tasks */
    PyObject *loop;
    PyObject *stop; /* the one StopIteration that carries every item, or NULL before the first */
    Py_ssize_t next;
    int rows;
} Stepper;

/* An async generator yields its items in a box; its type shows itself with the first one. */
typedef struct {
    PyObject_HEAD
    PyObject *item;
} Box;

/* One step. The item, or NULL: without an exception that was the end. */
static PyObject *
step_alone(PyObject *source)
{
    PyObject *result = NULL;
    switch (PyIter_Send(source, Py_None, &result)) {
    case PYGEN_NEXT: {
        if (strcmp(Py_TYPE(result)->tp_name, "async_generator_wrapped_value") != 0) {
            Py_DECREF(result);
            PyErr_SetString(PyExc_RuntimeError, "the sources must not suspend");
            return NULL;
        }
        PyObject *item = Py_NewRef(((Box *)result)->item);
        Py_DECREF(result);
        return item;
    }
    case PYGEN_RETURN:
        Py_DECREF(result);
        return NULL;
    default:
        if (PyErr_ExceptionMatches(PyExc_StopAsyncIteration)) {
            PyErr_Clear();
        }
        return NULL;
    }
}

static PyObject *
step(Stepper *self, Py_ssize_t number)
{
    PyObject *source = PyList_GET_ITEM(self->sources, number);
    if (self->identities == NULL) {
        return step_alone(source);
    }
    PyObject *identity = PyList_GET_ITEM(self->identities, number);
    PyObject *context = PyTuple_GET_ITEM(identity, 1);
    if (PyDict_SetItem(self->tasks, self->loop, PyTuple_GET_ITEM(identity, 0)) < 0 ||
        PyContext_Enter(context) < 0) {
        return NULL;
    }
    PyObject *item = step_alone(source);
    if (PyContext_Exit(context) < 0) {
        Py_CLEAR(item);
    }
    return item;
}

/* The next item of whose turn it is. */
static PyObject *
take_in_turn(Stepper *self)
{
    Py_ssize_t left;
    while ((left = PyList_GET_SIZE(self->sources)) > 0) {
        self->next = self->next < left ? self->next : 0;
        PyObject *item = step(self, self->next);
        if (item != NULL) {
            self->next++;
            return item;
        }
        if (PyErr_Occurred() ||
            PyList_SetSlice(self->sources, self->next, self->next + 1, NULL) < 0 ||
            (self->identities != NULL &&
             PyList_SetSlice(self->identities, self->next, self->next + 1, NULL) < 0)) {
            return NULL;
        }
    }
    return NULL;
}

static PyObject *
take_row(Stepper *self)
{
    Py_ssize_t width = PyList_GET_SIZE(self->sources);
    PyObject *row = PyTuple_New(width);
    for (Py_ssize_t number = 0; row != NULL && number < width; number++) {
        PyObject *item = step(self, number);
        if (item == NULL) {
            Py_CLEAR(row);
        } else {
            PyTuple_SET_ITEM(row, number, item);
        }
    }
    return row;
}

static PyObject *
take(Stepper *self)
{
    if (self->identities == NULL) {
        return self->rows ? take_row(self) : take_in_turn(self);
    }
    PyObject *consumer = Py_XNewRef(PyDict_GetItemWithError(self->tasks, self->loop));
    if (consumer == NULL) {
        return NULL;
    }
    PyObject *item = self->rows ? take_row(self) : take_in_turn(self);
    if (PyDict_SetItem(self->tasks, self->loop, consumer) < 0) {
        Py_CLEAR(item);
    }
    Py_DECREF(consumer);
    return item;
}

/* How 3.11 and 3.15 await. */
static PySendResult
stepper_send(PyObject *self, PyObject *Py_UNUSED(value), PyObject **result)
{
    *result = take((Stepper *)self);
    if (*result != NULL) {
        return PYGEN_RETURN;
    }
    if (!PyErr_Occurred()) {
        PyErr_SetNone(PyExc_StopAsyncIteration);
    }
    return PYGEN_ERROR;
}

/* How 3.12 to 3.14 do: an item is raised, in an exception that is used again and again. */
static PyObject *
stepper_next(PyObject *object)
{
    Stepper *self = (Stepper *)object;
    PyObject *item = take(self);
    if (item == NULL) {
        if (!PyErr_Occurred()) {
            PyErr_SetNone(PyExc_StopAsyncIteration);
        }
        return NULL;
    }
#if PY_VERSION_HEX >= 0x030C0000
    if (self->stop == NULL) {
        self->stop = PyObject_CallNoArgs(PyExc_StopIteration);
    }
    if (self->stop != NULL) {
        Py_XSETREF(((PyStopIterationObject *)self->stop)->value, item);
        PyErr_SetRaisedException(Py_NewRef(self->stop));
    } else {
        Py_DECREF(item);
    }
#else
    PyErr_SetObject(PyExc_StopIteration, item);
    Py_DECREF(item);
#endif
    return NULL;
}

static PyObject *
stepper_self(PyObject *self)
{
    return Py_NewRef(self);
}

static PyObject *
stepper_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(keywords))
{
    PyObject *sources, *identities, *tasks, *loop;
    int rows;
    if (!PyArg_ParseTuple(args, "O!pO!O!O", &PyList_Type, &sources, &rows, &PyList_Type, &identities,
                          &PyDict_Type, &tasks, &loop)) {
        return NULL;
    }
    Stepper *self = (Stepper *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->sources = Py_NewRef(sources);
        self->identities = PyList_GET_SIZE(identities) > 0 ? Py_NewRef(identities) : NULL;
        self->tasks = Py_NewRef(tasks);
        self->loop = Py_NewRef(loop);
        self->rows = rows;
    }
    return (PyObject *)self;
}

static void
stepper_dealloc(PyObject *object)
{
    Stepper *self = (Stepper *)object;
    Py_XDECREF(self->sources);
    Py_XDECREF(self->identities);
    Py_XDECREF(self->tasks);
    Py_XDECREF(self->loop);
    Py_XDECREF(self->stop);
    Py_TYPE(object)->tp_free(object);
}

static PyAsyncMethods stepper_async = {
    .am_await = stepper_self,
    .am_aiter = stepper_self,
    .am_anext = stepper_self,
    .am_send = stepper_send,
};

static PyTypeObject StepperType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "stepper.Stepper",
    .tp_basicsize = sizeof(Stepper),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = stepper_new,
    .tp_dealloc = stepper_dealloc,
    .tp_iter = stepper_self,
    .tp_iternext = stepper_next,
    .tp_as_async = &stepper_async,
    .tp_doc = "Stepper(sources, rows, identities, tasks, loop)",
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, .m_name = "_stepper", .m_size = -1};

PyMODINIT_FUNC
PyInit__stepper(void)
{
    if (PyType_Ready(&StepperType) < 0) {
        return NULL;
    }
    PyObject *made = PyModule_Create(&module);
    if (made != NULL && PyModule_AddObjectRef(made, "Stepper", (PyObject *)&StepperType) < 0) {
        Py_CLEAR(made);
    }
    return made;
}
