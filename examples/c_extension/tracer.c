/*
 * A Python extension module in C that works on the machine of an hgmcore.Machine through its capsule. It is compiled with
 * hgmcore's headers alone: the functions are found by name, when they are first asked for.
 */
#include "hgmcore/capsule.h"

static PyObject *zap_each(PyObject *self, PyObject *args)
{
	PyObject *machine;
	unsigned int mapping;
	unsigned long long pages, i, zapped = 0;
	hgm_machine *m;
	hgm_mapping_dontneed_function dontneed;

	(void)self;
	if (!PyArg_ParseTuple(args, "OIK", &machine, &mapping, &pages))
		return NULL;
	m = hgm_machine_of(machine);
	if (!m || !(dontneed = (hgm_mapping_dontneed_function)hgm_function("hgm_mapping_dontneed")))
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	for (i = 0; i < pages; i++)
		zapped += dontneed(m, mapping, 4096 * i, 4096) == 4096;
	Py_END_ALLOW_THREADS
	return PyLong_FromUnsignedLongLong(zapped);
}

static PyMethodDef methods[] = {
	{"zap_each", zap_each, METH_VARARGS, "zap_each(machine, mapping, pages): MADV_DONTNEED of each 4K; returns how many."},
	{NULL, NULL, 0, NULL}
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "tracer", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_tracer(void)
{
	return PyModule_Create(&module);
}
