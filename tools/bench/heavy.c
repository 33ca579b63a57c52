// SPDX-License-Identifier: GPL-2.0-only
/*
 * heavy - a program that does little but lock, or allocate
 *
 * "heavy locks" counts words in a table with a mutex for each row; "heavy
 * allocations" builds a sorted tree of strings and frees it. Each has a second
 * thread that sleeps, as the C library is faster in a program with one. Knows
 * nothing of forkgate, and prints the time of the best of many short rounds, in
 * ns for each lock or allocation.
 */
#define _GNU_SOURCE
#include <err.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS	20
#define STEPS	20000
#define ROWS	64
#define WORDS	8

static struct {
	pthread_mutex_t mutex;
	struct {
		uint32_t word;
		uint32_t count;
	} words[WORDS];
} rows[ROWS];

static uint32_t next_random(uint32_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state;
}

/* Count a word; a new one takes the place of the least frequent. */
static void locks(void)
{
	uint32_t random = 1, word;
	int step, i, least;

	for (step = 0; step < STEPS; step++) {
		word = next_random(&random) % (ROWS * WORDS * 2);
		pthread_mutex_lock(&rows[word % ROWS].mutex);
		for (i = 0, least = 0; i < WORDS; i++) {
			if (rows[word % ROWS].words[i].word == word)
				break;
			if (rows[word % ROWS].words[i].count < rows[word % ROWS].words[least].count)
				least = i;
		}
		if (i == WORDS) {
			i = least;
			rows[word % ROWS].words[i].word = word;
		}
		rows[word % ROWS].words[i].count++;
		pthread_mutex_unlock(&rows[word % ROWS].mutex);
	}
}

struct node {
	struct node *left;
	struct node *right;
	char *key;
};

static void free_tree(struct node *node)
{
	if (!node)
		return;
	free_tree(node->left);
	free_tree(node->right);
	free(node->key);
	free(node);
}

static void allocations(void)
{
	struct node *root = NULL, **place;
	uint32_t random = 1;
	char key[64];
	int step;

	for (step = 0; step < STEPS; step += 2) {
		uint32_t value = next_random(&random);
		int length = 8 + value % 48;

		memset(key, 'a' + value % 26, length);
		memcpy(key, &value, sizeof(value));
		key[length] = '\0';
		for (place = &root; *place; )
			place = memcmp(key, (*place)->key, 8) < 0 ? &(*place)->left :
								    &(*place)->right;
		*place = calloc(1, sizeof(**place));
		(*place)->key = malloc(length + 1);
		memcpy((*place)->key, key, length + 1);
		if (step % 512 == 510) {
			free_tree(root);
			root = NULL;
		}
	}
	free_tree(root);
}

static void *sleeper(void *unused)
{
	for (;;)
		pause();
	return NULL;
}

int main(int argc, char **argv)
{
	void (*work)(void) = argc == 2 && !strcmp(argv[1], "locks") ? locks :
			     argc == 2 && !strcmp(argv[1], "allocations") ? allocations : NULL;
	struct timespec start, end;
	double took, best = 0;
	pthread_t thread;
	int i;

	if (!work)
		errx(2, "usage: heavy locks|allocations");
	for (i = 0; i < ROWS; i++)
		pthread_mutex_init(&rows[i].mutex, NULL);
	if (pthread_create(&thread, NULL, sleeper, NULL))
		errx(2, "pthread_create");
	for (i = 0; i < ROUNDS; i++) {
		clock_gettime(CLOCK_MONOTONIC, &start);
		work();
		clock_gettime(CLOCK_MONOTONIC, &end);
		took = ((end.tv_sec - start.tv_sec) * 1e9 + end.tv_nsec - start.tv_nsec) / STEPS;
		if (!i || took < best)
			best = took;
	}
	printf("%.2f\n", best);
	exit(0);
}
