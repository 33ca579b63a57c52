// SPDX-License-Identifier: GPL-2.0-only
/*
 * bench - what sections cost, next to what else a thread might do, and a
 * fork-safe mutex next to libc's
 *
 * It must print nothing that it did not measure, and each time is the best of
 * several rounds: noise only adds.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <error.h>
#include <pthread.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include <forkgate.h>
#include <forksafe_mutex.h>

#define ROUNDS		9
#define SECTIONS	10000000

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e9 + time.tv_nsec;
}

/* What a round takes, in ns for each repetition */
static double time_of(void (*round)(int count), int count)
{
	double start = now();

	round(count);
	return (now() - start) / count;
}

/* The best of all rounds */
static double best(void (*round)(int count), int count)
{
	double least = 0, took;
	int i;

	for (i = 0; i < ROUNDS; i++) {
		took = time_of(round, count);
		if (!i || took < least)
			least = took;
	}
	return least;
}

static void section_round(int count)
{
	while (count--) {
		forkgate_enter(FORKGATE_MEMORY);
		forkgate_leave(FORKGATE_MEMORY);
	}
}

static void both_round(int count)
{
	while (count--) {
		forkgate_enter(FORKGATE_DOMAINS);
		forkgate_leave(FORKGATE_DOMAINS);
	}
}

static void counter_round(int count)
{
	static int counter;

	while (count--) {
		counter++;
		__asm__ __volatile__("" : : : "memory");
		counter--;
		__asm__ __volatile__("" : : : "memory");
	}
}

static void atomic_round(int count)
{
	static int counter;

	while (count--) {
		__atomic_fetch_add(&counter, 1, __ATOMIC_SEQ_CST);
		__atomic_fetch_sub(&counter, 1, __ATOMIC_SEQ_CST);
	}
}

static void mutex_round(int count)
{
	static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

	while (count--) {
		pthread_mutex_lock(&mutex);
		pthread_mutex_unlock(&mutex);
	}
}

static void forksafe_round(int count)
{
	static forksafe_mutex_t mutex = FORKSAFE_MUTEX_INITIALIZER;

	while (count--) {
		forksafe_mutex_lock(&mutex);
		forksafe_mutex_unlock(&mutex);
	}
}

/* Rounds take turns, so that both have the same noise. */
static void mutexes(void)
{
	double libc = 0, forksafe = 0, took;
	int i;

	for (i = 0; i < ROUNDS; i++) {
		took = time_of(mutex_round, SECTIONS);
		if (!i || took < libc)
			libc = took;
		took = time_of(forksafe_round, SECTIONS);
		if (!i || took < forksafe)
			forksafe = took;
	}
	printf("%-40s %6.1f ns\n", "a pthread mutex, lock + unlock", libc);
	printf("%-40s %6.1f ns\n", "a forksafe mutex, lock + unlock", forksafe);
	printf("%-40s %6.2f\n", "  ratio (at most 1.3)", forksafe / libc);
}

static void sections(void)
{
	static const struct {
		const char *what;
		void (*round)(int count);
	} *row, rows[] = {
		{ "section of one domain, enter + leave", section_round },
		{ "section of both domains", both_round },
		{ "a counter in memory, up + down", counter_round },
		{ "an atomic counter, up + down", atomic_round },
		{ NULL, NULL }
	};

	for (row = rows; row->what; row++)
		printf("%-40s %6.1f ns\n", row->what,
		       best(row->round, SECTIONS));
	mutexes();
}

/* The C library's mutexes are faster in a program with one thread. */
static void *sleeper(void *unused)
{
	for (;;)
		pause();
	return NULL;
}

int main(void)
{
	pthread_t thread;

	errno = pthread_create(&thread, NULL, sleeper, NULL);
	if (errno)
		error(2, errno, "pthread_create");
	sections();
	return 0;
}
