/*
 * capsule.h: hgmcore inside a Python extension module that is written in C. Nothing is linked: a machine comes in the
 * capsule "hgmcore.machine.v1", an engine in "hgmcore.engine.v1", and the functions of library.h are found by name in
 * hgmcore.core.library. A module that was compiled for another HGM_ABI is refused, with both numbers.
 */
#ifndef HGMCORE_CAPSULE_H
#define HGMCORE_CAPSULE_H

#ifndef PY_SSIZE_T_CLEAN
#define PY_SSIZE_T_CLEAN
#endif
#include <Python.h>
#include "hgmcore/library.h"

#define HGM_MACHINE_CAPSULE "hgmcore.machine.v1"
#define HGM_ENGINE_CAPSULE "hgmcore.engine.v1"

/* The types of the functions that loops call; others are cast likewise. */
typedef int64_t (*hgm_mapping_continue_function)(hgm_machine *, uint32_t, uint64_t, uint64_t);
typedef int64_t (*hgm_mapping_touch_function)(hgm_machine *, uint32_t, uint64_t, int);
typedef int64_t (*hgm_mapping_dontneed_function)(hgm_machine *, uint32_t, uint64_t, uint64_t);
typedef int (*hgm_machine_run_function)(hgm_machine *, const hgm_operation *, uint64_t);

/* What a capsule, or the attribute `capsule` of a Machine or Engine, has; NULL and an exception. It is borrowed. */
static inline void *hgm_in_capsule(PyObject *object, const char *name, size_t size)
{
	PyObject *capsule = PyCapsule_CheckExact(object) ? Py_NewRef(object) : PyObject_GetAttrString(object, "capsule");
	const uint32_t *abi_and_size;

	if (!capsule)
		return NULL;
	abi_and_size = (const uint32_t *)PyCapsule_GetPointer(capsule, name);
	Py_DECREF(capsule);	/* what is in it lives as long as `object` */
	if (!abi_and_size)
		return NULL;
	if (abi_and_size[0] != HGM_ABI || abi_and_size[1] != size) {
		PyErr_Format(PyExc_ImportError, "%s: this module was compiled for HGM_ABI %u, structs of %u bytes; the capsule has "
			     "HGM_ABI %u, %u bytes: compile the module anew", name, (unsigned)HGM_ABI, (unsigned)size,
			     (unsigned)abi_and_size[0], (unsigned)abi_and_size[1]);
		return NULL;
	}
	return (void *)abi_and_size;
}

/* The machine of an hgmcore.Machine, or of its capsule. The caller keeps `object` alive. */
static inline hgm_machine *hgm_machine_of(PyObject *object)
{
	return (hgm_machine *)hgm_in_capsule(object, HGM_MACHINE_CAPSULE, sizeof(hgm_machine));
}

static inline const hgm_engine *hgm_engine_of(PyObject *object)
{
	return (const hgm_engine *)hgm_in_capsule(object, HGM_ENGINE_CAPSULE, sizeof(hgm_engine));
}

/* A capsule of an engine that was compiled into this module, for hgmcore.Engine.from_capsule(). */
static inline PyObject *hgm_engine_capsule(const hgm_engine *engine)
{
	return PyCapsule_New((void *)engine, HGM_ENGINE_CAPSULE, NULL);
}

/* A function of library.h by its name, to be cast to its type; NULL and an exception: there is none. */
static inline void *hgm_function(const char *name)
{
	PyObject *module = PyImport_ImportModule("hgmcore.core.library"), *all, *address = NULL;
	void *function = NULL;

	all = module ? PyObject_CallMethod(module, "addresses", NULL) : NULL;
	if (all) {
		address = PyDict_GetItemString(all, name);
		if (address)
			function = PyLong_AsVoidPtr(address);
		else
			PyErr_Format(PyExc_ImportError, "hgmcore has no function %s", name);
	}
	Py_XDECREF(all);
	Py_XDECREF(module);
	return function;
}

#endif
