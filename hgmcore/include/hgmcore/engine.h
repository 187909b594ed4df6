/*
 * engine.h: the engine's own declarations. No scheme and no other program includes it.
 */
#ifndef HGMCORE_ENGINE_H
#define HGMCORE_ENGINE_H

#include "hgmcore/scheme.h"

/*
 * The engine's loops over base pages (streaks.pxd, loops.pxd). A loop that runs most is a function of its own, which leaves it
 * all the registers; into it the compiler puts one that serves several, with constants for its last arguments, and
 * the scheme's functions.
 */
#define HGM_LOOP static __attribute__((noinline))
struct hgm_core;
struct hgm_huge_page;
HGM_LOOP uint64_t hgm_continues(struct hgm_core *, struct hgm_huge_page *, const hgm_operation *, uint64_t);
HGM_LOOP uint64_t hgm_touches(struct hgm_core *, struct hgm_huge_page *, const hgm_operation *, uint64_t);
HGM_LOOP uint64_t hgm_uncounted(struct hgm_core *, struct hgm_huge_page *, const hgm_operation *, uint64_t, int);
HGM_LOOP uint64_t hgm_dontneeds(struct hgm_core *, struct hgm_huge_page *, const hgm_operation *, uint64_t);
HGM_LOOP uint64_t hgm_collapses(struct hgm_core *, struct hgm_huge_page *, const hgm_operation *, uint64_t);
HGM_LOOP uint64_t hgm_zap_ptes(struct hgm_core *, uint64_t *, uint64_t, const hgm_leaf *, uint64_t);
HGM_LOOP void hgm_continue_run(struct hgm_core *, struct hgm_huge_page *, uint64_t *, uint64_t, uint64_t, const uint32_t *);
HGM_LOOP void hgm_fork_run(struct hgm_core *, struct hgm_huge_page *, uint64_t *, uint64_t, uint64_t, const uint32_t *);
HGM_INLINE uint64_t hgm_install_streak(struct hgm_core *, struct hgm_huge_page *, const hgm_operation *, uint64_t,
				       int, int, int, int, int);
HGM_INLINE uint64_t hgm_zap_streak(struct hgm_core *, struct hgm_huge_page *, const hgm_operation *, uint64_t, int, int);
HGM_INLINE uint64_t hgm_collapse_streak(struct hgm_core *, struct hgm_huge_page *, const hgm_operation *, uint64_t,
					int, int);
HGM_INLINE uint64_t hgm_zap_leaves(hgm_cost *, const hgm_options *, hgm_leaf *, uint64_t *, uint64_t, uint64_t);
HGM_INLINE void hgm_install_run(struct hgm_core *, struct hgm_huge_page *, uint64_t *, uint64_t, uint64_t,
				const uint32_t *, int);
HGM_INLINE uint64_t hgm_install_leaves(struct hgm_core *, struct hgm_huge_page *, uint64_t *, uint64_t, uint64_t, uint32_t,
				       int, int, int);

#endif
