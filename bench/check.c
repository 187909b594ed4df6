/*
 * check.c: what a search cannot do without for each step: copy the packed state, hash it, probe a table of as many
 * states. Beside it hgmcore runs an operation, judges it and packs the machine.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static uint64_t hash(const uint64_t *key, int words)
{
	uint64_t h = 0x9e3779b97f4a7c15ull;
	int i;

	for (i = 0; i < words; i++) {
		h = (h ^ key[i]) * 0xd6e8feb86659fd93ull;
		h ^= h >> 32;
	}
	return h;
}

/* `steps` look-ups among `states` states of `words` words; returns how many were found, 0 where there is no memory. */
uint64_t copy_hash_probe(uint64_t states, int words, uint64_t steps)
{
	uint64_t size = 1, i, at, found = 0, random = 1, key[32];
	uint64_t *keys;
	uint32_t *table;
	int k;

	while (size < 2 * states)
		size *= 2;
	keys = calloc(states * words, sizeof(*keys));
	table = malloc(size * sizeof(*table));
	if (!keys || !table)
		return 0;
	memset(table, 0xff, size * sizeof(*table));
	for (i = 0; i < states; i++) {
		for (k = 0; k < words; k++)
			keys[i * words + k] = (i + 1) * 0x2545f4914f6cdd1dull >> k;
		for (at = hash(keys + i * words, words) & (size - 1); table[at] != UINT32_MAX; at = (at + 1) & (size - 1))
			;
		table[at] = (uint32_t)i;
	}
	for (i = 0; i < steps; i++) {
		random = random * 6364136223846793005ull + 1442695040888963407ull;
		memcpy(key, keys + (random >> 33) % states * words, words * sizeof(*key));
		for (at = hash(key, words) & (size - 1); table[at] != UINT32_MAX; at = (at + 1) & (size - 1))
			if (!memcmp(keys + table[at] * (uint64_t)words, key, words * sizeof(*key))) {
				found++;
				break;
			}
	}
	free(keys);
	free(table);
	return found;
}
