// SPDX-License-Identifier: GPL-2.0-only
/*
 * atfork - what a fork costs that is safe for many locks, in two ways
 *
 * "atfork sections COUNT SIZE" has taken COUNT mutexes in sections; "atfork
 * handlers COUNT SIZE" has as many handlers of pthread_atfork(), each of which
 * takes one of them, as libraries do to be safe; "atfork nothing COUNT SIZE" has the
 * mutexes alone. A mutex lies at the start of an object of SIZE bytes, as malloc()
 * gives it. Built twice, as "count" is: "atfork" is linked with the library,
 * "atfork-plain" (PLAIN) knows nothing of it and has no sections.
 *
 * Prints lines "WHAT COUNT TIME": of the call of fork(), and "-end" until the child
 * has ended; the least of some repetitions, in ns, or in instructions on a machine
 * whose clock counts them. Must not judge.
 */
#include <errno.h>
#include <error.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef PLAIN
#include <forkgate.h>
#endif

#define REPEATS	15

static pthread_mutex_t **mutexes;	/* at the start of their objects */
static int count;
static int taken;	/* by handlers, in the order of @mutexes */

static void take_next(void)
{
	pthread_mutex_lock(mutexes[taken++]);
}

static void give_back(void)
{
	pthread_mutex_unlock(mutexes[--taken]);
}

static void use_nothing(void)
{
}

static void use_handlers(void)
{
	int i;

	for (i = 0; i < count; i++) {
		errno = pthread_atfork(take_next, give_back, give_back);
		if (errno)
			error(2, errno, "pthread_atfork");
	}
}

#ifndef PLAIN
static void use_sections(void)
{
	int i;

	for (i = 0; i < count; i++) {
		forkgate_enter(FORKGATE_MEMORY);
		pthread_mutex_lock(mutexes[i]);
		pthread_mutex_unlock(mutexes[i]);
		forkgate_leave(FORKGATE_MEMORY);
	}
}
#endif

static int64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void *sleeper(void *unused)
{
	for (;;)
		pause();
	return NULL;
}

int main(int argc, char **argv)
{
	int64_t start, call, end, least_call = INT64_MAX, least_end = INT64_MAX;
	void (*use)(void) = NULL;
	pthread_t thread;
	pid_t pid;
	size_t size;
	int i;

	if (argc == 4 && !strcmp(argv[1], "nothing"))
		use = use_nothing;
	if (argc == 4 && !strcmp(argv[1], "handlers"))
		use = use_handlers;
#ifndef PLAIN
	if (argc == 4 && !strcmp(argv[1], "sections"))
		use = use_sections;
#endif
	if (!use)
		error(2, 0, "usage: atfork nothing|handlers|sections COUNT SIZE");
	count = atoi(argv[2]);
	size = atoi(argv[3]);
	if (size < sizeof(pthread_mutex_t))
		error(2, 0, "a mutex takes %zu bytes", sizeof(pthread_mutex_t));

	mutexes = malloc(count * sizeof(*mutexes));
	if (!mutexes)
		error(2, errno, "malloc");
	for (i = 0; i < count; i++) {
		mutexes[i] = malloc(size);
		if (!mutexes[i])
			error(2, errno, "malloc");
		pthread_mutex_init(mutexes[i], NULL);
	}
	errno = pthread_create(&thread, NULL, sleeper, NULL);
	if (errno)
		error(2, errno, "pthread_create");
	use();

	for (i = 0; i < REPEATS; i++) {
		start = now();
		pid = fork();
		if (!pid)
			_exit(0);
		call = now() - start;
		if (pid < 0)
			error(2, errno, "fork");
		if (waitpid(pid, NULL, 0) != pid)
			error(2, errno, "waitpid");
		end = now() - start;
		if (call < least_call)
			least_call = call;
		if (end < least_end)
			least_end = end;
	}
	printf("%s %d %lld\n", argv[1], count, (long long)least_call);
	printf("%s-end %d %lld\n", argv[1], count, (long long)least_end);
	return 0;
}
