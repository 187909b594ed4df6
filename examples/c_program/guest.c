/*
 * A guest whose memory is one huge page of 1G: a VMM maps pieces of it as they arrive, under a scheme that the command line
 * names, and asks afterwards who maps what. Built against what `hgmcore export-c DIRECTORY` wrote:
 *
 *     make -C DIRECTORY && cc -IDIRECTORY/include guest.c DIRECTORY/libhgm.a -o guest && ./guest head_per_leaf
 */
#include <inttypes.h>
#include <stdio.h>

#include "hgmcore.h"

static int failed(const char *what, int64_t error)
{
	if (error < 0)
		fprintf(stderr, "%s: %s\n", what, hgm_strerror((int)error));
	return error < 0;
}

/* Map three pieces of 4K, ask for the second one again, and show what the scheme and the page tables say. */
static int postcopy(hgm_machine *m)
{
	int64_t file = hgm_file_add(m, HGM_HUGETLB, 1 << 30, 1), process = hgm_process_add(m), done, i;
	int64_t mapping = process < 0 ? process : hgm_mapping_add(m, process, 0);
	uint64_t entries[HGM_MAX_LEVELS], address;
	hgm_answer answer;
	int32_t level;

	if (failed("file", file) || failed("process", process) || failed("mapping", mapping)
	    || failed("populate", hgm_file_populate(m, file, 0, 1))
	    || failed("mmap", hgm_mapping_mmap(m, mapping, file, 0, 1 << 30, HGM_OPF_SHARED | HGM_OPF_MINOR | HGM_OPF_HGM)))
		return 1;
	for (i = 0; i < 3; i++)
		if (failed("continue", hgm_mapping_continue(m, mapping, 4096 * i, 4096)))
			return 1;
	done = hgm_mapping_continue(m, mapping, 4096, 4096);
	printf("again: %s\n", hgm_strerror((int)done));
	address = hgm_mapping_address(m, mapping);
	if (failed("walk", hgm_process_walk(m, process, address, entries, &level))
	    || failed("answer", hgm_folio_answer(m, hgm_folio_find(m, file, 0), &answer)))
		return 1;
	printf("mapcount %" PRId64 ", walk ends at level %d, atomics %" PRIu64 "\n", answer.mapcount, level,
	       hgm_machine_cost(m)->ref + hgm_machine_cost(m)->map);
	return 0;
}

int main(int argc, char **argv)
{
	const hgm_engine *engine = hgm_engine_find(argc > 1 ? argv[1] : "head_per_leaf");
	hgm_machine m;
	int error, status = 1;

	if (!engine) {
		fprintf(stderr, "no scheme '%s' in this library\n", argv[1]);
		return 2;
	}
	error = hgm_machine_init(&m, engine, &hgm_geometry_x86_64, NULL, 0);
	if (!failed("init", error))
		status = postcopy(&m);
	hgm_machine_free(&m);	/* whatever init returned */
	return status;
}
