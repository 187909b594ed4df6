/*
 * What one operation costs from C: a 1G huge page is mapped by pieces of 4K in order, one call for each piece (checked, then
 * unchecked) and all in one array of records (likewise). Prints nanoseconds of this thread's CPU time for each leaf, the
 * least of some rounds. Built by bench/test_doors.py with what export-c writes.
 */
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "hgmcore.h"

#define PIECES 262144

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static hgm_operation records[PIECES];

static double one_by_one(hgm_machine *m)
{
	double start = now();
	uint64_t i;

	for (i = 0; i < PIECES; i++)
		if (hgm_mapping_continue(m, 0, i << 12, 4096) != 4096)
			return -1;
	return (now() - start) / PIECES;
}

static double unchecked(hgm_machine *m)
{
	double start = now();
	uint64_t i;

	for (i = 0; i < PIECES; i++)
		if (hgm_mapping_continue_unchecked(m, 0, i << 12, 4096) != 4096)
			return -1;
	return (now() - start) / PIECES;
}

static double batch(hgm_machine *m)
{
	double start = now();

	if (hgm_machine_run(m, records, PIECES))
		return -1;
	return (now() - start) / PIECES;
}

static double batch_unchecked(hgm_machine *m)
{
	double start = now();

	if (hgm_machine_run_unchecked(m, records, PIECES))
		return -1;
	return (now() - start) / PIECES;
}

int main(int argc, char **argv)
{
	static double (*const loops[])(hgm_machine *) = {one_by_one, unchecked, batch, batch_unchecked};
	double least[4] = {1e9, 1e9, 1e9, 1e9}, ns;
	hgm_machine m;
	uint64_t i;
	int round, loop;

	for (i = 0; i < PIECES; i++)
		records[i] = (hgm_operation){.offset = i << 12, .length = 4096, .op = HGM_OP_CONTINUE};
	if (hgm_machine_init(&m, hgm_engine_find(argc > 1 ? argv[1] : "head_per_leaf"), &hgm_geometry_x86_64, NULL, 0))
		return 1;
	hgm_file_add(&m, HGM_HUGETLB, 1 << 30, 1);
	hgm_mapping_add(&m, (uint32_t)hgm_process_add(&m), 0);
	hgm_file_populate(&m, 0, 0, 1);
	hgm_mapping_mmap(&m, 0, 0, 0, 1 << 30, HGM_OPF_SHARED | HGM_OPF_MINOR | HGM_OPF_HGM);
	for (round = 0; round < 3; round++)
		for (loop = 0; loop < 4; loop++) {
			ns = loops[loop](&m);
			if (ns < 0 || hgm_mapping_dontneed(&m, 0, 0, 1 << 30) < 0)
				return 1;
			least[loop] = ns < least[loop] ? ns : least[loop];
		}
	printf("%.2f %.2f %.2f %.2f\n", least[0], least[1], least[2], least[3]);
	hgm_machine_free(&m);
	return 0;
}
