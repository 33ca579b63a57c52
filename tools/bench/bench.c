// SPDX-License-Identifier: GPL-2.0-only
/*
 * bench - what sections and forks cost
 *
 * "bench sections" compares a section with what else a thread might do, and a
 * fork-safe mutex with libc's;
 * "bench forks THREADS" measures a fork next to that many idle threads. Built
 * twice, with the library and (PLAIN) without, to compare the forks of a gated
 * process with those of another. It must print nothing that it did not
 * measure, and each time is the best of several rounds: noise only adds.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <error.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef PLAIN
#include <forkgate.h>
#include <forksafe_mutex.h>
#endif

#define ROUNDS		9
#define SECTIONS	10000000
#define FORKS		40

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

static void fork_round(int count)
{
	pid_t pid;

	while (count--) {
		pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
		if (!pid)
			_exit(0);
		if (pid < 0 || waitpid(pid, NULL, 0) != pid)
			error(2, errno, "fork");
	}
}

#ifndef PLAIN
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
#else
static void sections(void)
{
	error(2, 0, "built without the library");
}
#endif

static pthread_barrier_t ready;

static void *idle_thread(void *unused)
{
#ifndef PLAIN
	int err = forkgate_enter(FORKGATE_MEMORY);

	if (err)
		error(2, err, "forkgate_enter");
	forkgate_leave(FORKGATE_MEMORY);
#endif
	pthread_barrier_wait(&ready);
	for (;;)
		pause();
	return NULL;
}

int main(int argc, char **argv)
{
	bool forks = argc == 3 && !strcmp(argv[1], "forks");
	int threads = forks ? atoi(argv[2]) : 1;
	pthread_attr_t attr;
	pthread_t thread;
	int i;

	if (!forks && (argc != 2 || strcmp(argv[1], "sections")))
		error(2, 0, "usage: bench sections | bench forks THREADS");
#ifndef PLAIN
	errno = forks ? forkgate_init(FORKGATE_STRICT) : 0;
	if (errno)
		error(2, errno, "forkgate_init");
#endif
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 64 << 10);
	pthread_barrier_init(&ready, NULL, threads + 1);
	for (i = 0; i < threads; i++) {
		errno = pthread_create(&thread, &attr, idle_thread, NULL);
		if (errno)
			error(2, errno, "pthread_create");
	}
	pthread_barrier_wait(&ready);
	if (forks)
		printf("%.1f\n", best(fork_round, FORKS) / 1000);
	else
		sections();
	return 0;
}
