/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * cover.h - the memory that fuzz_cover shares with the fuzzer; must not include anything
 */
#ifndef FUZZ_COVER_H
#define FUZZ_COVER_H

#define COVER_EDGE_BITS	16
#define COVER_TASK_BITS	10
#define COVER_EDGES	0x10000
#define COVER_TEXT	0x100000	/* bytes, more than a module's text has */

/**
 * struct cover - a mark is 1, and is cleared by the fuzzer
 * @edges: a mark for each pair of blocks that ran one after the other, hashed
 * @blocks: a mark for each block, by its address, of which these are the lower bits
 * @before: the last block of each task, hashed
 */
struct cover {
	unsigned char edges[COVER_EDGES];
	unsigned char blocks[COVER_TEXT];
	unsigned int before[0x400];
};

#endif /* FUZZ_COVER_H */
