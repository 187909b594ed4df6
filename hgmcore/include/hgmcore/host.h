/*
 * host.h: what hgmcore asks of the system that it runs on, by names that every system has. Linux commits memory ahead and
 * in huge pages where it is asked to; elsewhere pages come as they are touched, and everything works all the same.
 */
#ifndef HGMCORE_HOST_H
#define HGMCORE_HOST_H

#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef EHWPOISON
#define EHWPOISON 133	/* Linux: the memory page has a hardware error */
#endif

/* `size` bytes of address space that read as zero and are committed as they are touched; NULL: the system refuses. */
static inline void *hgm_host_reserve(size_t size)
{
	int flags = MAP_PRIVATE | MAP_ANON;
	void *base;

#ifdef __linux__
	flags |= MAP_NORESERVE;
#endif
	base = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, -1, 0);
	if (base == MAP_FAILED)
		return NULL;
#ifdef __linux__
	madvise(base, size, MADV_NOHUGEPAGE);	/* an unused struct page takes nothing */
#endif
	return base;
}

/* Give whole pages back to the system: they read as zero when they are touched again. */
static inline void hgm_host_zero(void *base, size_t size)
{
#ifdef __linux__
	madvise(base, size, MADV_DONTNEED);
#else
	/* elsewhere MADV_DONTNEED is advice that may change nothing */
	mmap(base, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON | MAP_FIXED, -1, 0);
#endif
}

/* Commit memory now. huge: in huge pages where the system has them. -1: the system refuses. */
static inline int hgm_host_commit(void *base, size_t size, int huge)
{
#ifdef __linux__
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23	/* Linux 5.14 */
#endif
	if (huge)
		madvise(base, size, MADV_HUGEPAGE);
	return madvise(base, size, MADV_POPULATE_WRITE);
#else
	(void)base, (void)size, (void)huge;
	return -1;
#endif
}

/* Which of the pages from `base` on were ever touched, bit 0 of a byte each; -1: the system does not tell. */
static inline int hgm_host_touched(void *base, size_t size, unsigned char *pages)
{
#ifdef __linux__
	return mincore(base, size, pages);
#else
	return mincore(base, size, (char *)pages);
#endif
}

#endif
