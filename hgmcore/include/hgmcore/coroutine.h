/*
 * coroutine.h: a thread of a race, on a stack of its own, that can be put back to where it was.
 *
 * What a coroutine is at a cut, its registers, its stack and what it waits for, lies side by side in memory and always at
 * the same addresses, so a copy of it is enough to go on from there again and again.
 *
 *     stack ..  unused | in use | context | racer | what the next access is        end
 *                      ^ low                                                       ^
 */
#ifndef HGMCORE_COROUTINE_H
#define HGMCORE_COROUTINE_H

#include <string.h>
#include <ucontext.h>
#include "hgmcore/hgm.h"

#ifdef __cplusplus
extern "C" {
#endif

#define HGM_STACK (32 << 10)
#define HGM_BELOW 512	/* bytes below a frame's address that the frame and a call in it may use */
#define HGM_UNUSED 4096	/* bytes below that are cleared: what a function finds there is the same whenever it comes here */

/* What the next access of a coroutine is, or which lock it waits for. */
enum hgm_next { HGM_ACCESSES, HGM_WAITS, HGM_TRIES, HGM_ENDED };

typedef struct hgm_coroutine {
	__attribute__((aligned(64))) unsigned char stack[HGM_STACK];
	ucontext_t context;
	hgm_racer racer;
	uint64_t low;		/* offset of the first byte in use */
	const void *where;
	int32_t next;		/* enum hgm_next */
	int32_t access;		/* enum hgm_access, or enum hgm_lock_class */
	int32_t how;
	int32_t number;
} hgm_coroutine;

static ucontext_t hgm_explorer;

static __attribute__((noinline, unused)) void hgm_coroutine_start(hgm_coroutine *c, void (*body)(void))
{
	memset(c->stack, 0, sizeof(c->stack));
	memset(&c->context, 0, sizeof(c->context));
	memset(&c->racer, 0, sizeof(c->racer));
	getcontext(&c->context);
	c->context.uc_stack.ss_sp = c->stack;
	c->context.uc_stack.ss_size = sizeof(c->stack);
	c->context.uc_link = &hgm_explorer;
	makecontext(&c->context, body, 0);
	c->low = 0;
	c->next = HGM_ACCESSES;
}

/* Go on behind the cut, up to the next one or to the end. */
static __attribute__((noinline, unused)) void hgm_coroutine_resume(hgm_coroutine *c)
{
	swapcontext(&hgm_explorer, &c->context);
}

/* In the coroutine: let the explorer go on. */
static __attribute__((noinline, unused)) void hgm_coroutine_cut(hgm_coroutine *c)
{
	uint64_t low = (uint64_t)((unsigned char *)__builtin_frame_address(0) - c->stack);

	c->low = low > HGM_BELOW ? low - HGM_BELOW : 0;
	swapcontext(&c->context, &hgm_explorer);
}

/* It has ended: nothing of it matters any more but that. */
HGM_INLINE void hgm_coroutine_forget(hgm_coroutine *c)
{
	memset(&c->context, 0, sizeof(c->context));
	memset(&c->racer, 0, sizeof(c->racer));
	c->low = sizeof(c->stack);
	c->where = 0;
	c->access = c->how = 0;
}

HGM_INLINE uint64_t hgm_coroutine_size(const hgm_coroutine *c)
{
	return sizeof(*c) - c->low;
}

HGM_INLINE const unsigned char *hgm_coroutine_bytes(const hgm_coroutine *c)
{
	return (const unsigned char *)c + c->low;
}

HGM_INLINE void hgm_coroutine_restore(hgm_coroutine *c, const unsigned char *bytes, uint64_t size)
{
	uint64_t low = sizeof(*c) - size, unused = low < HGM_UNUSED ? low : HGM_UNUSED;

	memset((unsigned char *)c + low - unused, 0, unused);
	memcpy((unsigned char *)c + low, bytes, size);
}

#ifdef __cplusplus
}
#endif
#endif
