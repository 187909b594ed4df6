/*
 * failing_memory.c: preloaded before the C library, an allocator of which every block of at least `least` bytes is
 * refused once `left` of them were given.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>

static size_t least;
static long left;

void fail_from(size_t bytes, long blocks)
{
	left = blocks;
	least = bytes;
}

static int refused(size_t size)
{
	if (!least || size < least || __atomic_fetch_sub(&left, 1, __ATOMIC_RELAXED) > 0)
		return 0;
	errno = ENOMEM;
	return 1;
}

#define NEXT(name) \
	static __typeof__(name) *next; \
	if (!next) \
		next = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

void *malloc(size_t size);
void *realloc(void *block, size_t size);

void *malloc(size_t size)
{
	NEXT(malloc);
	return refused(size) ? NULL : next(size);
}

void *realloc(void *block, size_t size)
{
	NEXT(realloc);
	return refused(size) ? NULL : next(block, size);
}
