// SPDX-License-Identifier: GPL-2.0-only
/*
 * A program as it would be written for QNX: it knows <forksafe_mutex.h>, the
 * names and error numbers of QNX's manual, and POSIX. It is compiled strictly,
 * and must not use anything of forkgate beyond that; works with and without a
 * module.
 */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <forksafe_mutex.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef EOK
#define EOK 0
#endif

static forksafe_mutex_t mutex = FORKSAFE_MUTEX_INITIALIZER;
static forksafe_mutex_t rmutex = FORKSAFE_RMUTEX_INITIALIZER;

struct cache {
	forksafe_mutex_t lock;
	int entries[100];
};

static struct cache cache;
static int number;

static void check(int result, int expected, const char *what)
{
	printf("%sok %d %s\n", result == expected ? "" : "not ", ++number, what);
	if (result != expected)
		printf("# %d instead of %d\n", result, expected);
	fflush(stdout);
}

static void *try_to_lock(void *arg)
{
	static int result;

	result = forksafe_mutex_trylock(arg);
	if (result == EOK)
		forksafe_mutex_unlock(arg);
	return &result;
}

static int busy(forksafe_mutex_t *which)
{
	pthread_t thread;
	void *result;

	pthread_create(&thread, NULL, try_to_lock, which);
	pthread_join(thread, &result);
	return *(int *)result;
}

static void *fill(void *arg)
{
	int round, i;

	for (round = 1; round <= 2000; round++) {
		forksafe_mutex_lock(&cache.lock);
		for (i = 0; i < 100; i++)
			cache.entries[i] = round;
		forksafe_mutex_unlock(&cache.lock);
	}
	return arg;
}

/* Without a module the child would not come back now and then: it has to hold. */
static int fork_with_the_lock(void)
{
	int status = -1;
	pid_t pid;

	forksafe_mutex_lock(&cache.lock);
	pid = fork();
	if (pid == 0) {
		if (cache.entries[0] != cache.entries[99])
			_exit(1);
		if (forksafe_mutex_unlock(&cache.lock) != EOK)
			_exit(2);
		_exit(forksafe_mutex_lock(&cache.lock));
	}
	forksafe_mutex_unlock(&cache.lock);
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -1;
	return status;
}

int main(void)
{
	pthread_mutexattr_t attr;
	pthread_t thread;
	int i, bad = 0;

	printf("TAP version 13\n1..15\n");
	check(forksafe_mutex_init(&cache.lock, NULL), EOK, "init");
	check(forksafe_mutex_lock(&mutex), EOK, "lock");
	check(forksafe_mutex_lock(&mutex), EDEADLK, "lock one's own");
	check(busy(&mutex), EBUSY, "trylock another's");
	check(forksafe_mutex_unlock(&mutex), EOK, "unlock");
	check(forksafe_mutex_unlock(&mutex), EPERM, "unlock what is not locked");
	forksafe_mutex_lock(&rmutex);
	check(forksafe_mutex_lock(&rmutex), EOK, "lock a recursive one twice");
	forksafe_mutex_unlock(&rmutex);
	check(busy(&rmutex), EBUSY, "trylock it while it is locked once");
	forksafe_mutex_unlock(&rmutex);
	check(busy(&rmutex), EOK, "trylock it when it is free");
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutexattr_setprotocol(&attr, PTHREAD_PRIO_INHERIT);
	check(forksafe_mutex_init(&mutex, &attr), EOK, "init with attributes");
	forksafe_mutex_lock(&mutex);
	check(forksafe_mutex_lock(&mutex), EOK, "which count");
	check(forksafe_mutex_destroy(&mutex), EOK, "destroy one's own");
	check(forksafe_mutex_lock(&mutex), EINVAL, "lock what is destroyed");

	pthread_create(&thread, NULL, fill, NULL);
	for (i = 0; i < 50; i++)
		bad += fork_with_the_lock() != 0;
	pthread_join(thread, NULL);
	check(bad, 0, "fork while holding a lock that another thread wants");
	check(forksafe_mutex_destroy(&cache.lock), EOK, "destroy");
	return 0;
}
