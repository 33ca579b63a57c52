// SPDX-License-Identifier: GPL-2.0-only
/*
 * priority.c - how long a real-time thread's fork waits for a section of an ordinary
 * thread while a thread of middle priority has the only processor
 *
 * Prints SCENE SPIN WAIT, both in us: how long the thread of middle priority ran, and
 * how long the real-time thread waited, or "-" if its wait had an end of its own.
 * Must have the only processor for itself, and the right to real-time priorities.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <forkgate.h>

#define HOLD_US		1000
#define TIMEOUT_US	5000

enum { LOW = 0, MIDDLE = 10, HIGH = 20, CEILING = 30, MAIN = 40 };

static const char *scene;
static sem_t inside, go, spin;
static pthread_mutex_t mutex;
static int spin_us;

static bool is(const char *name)
{
	return !strcmp(scene, name);
}

static int64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

/* Run, without a system call, for so much of the thread's own time. */
static void run_for(int us)
{
	struct timespec spent, until;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &until);
	until.tv_nsec += us % 1000000 * 1000L;
	until.tv_sec += us / 1000000 + until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	do {
		clock_gettime(CLOCK_THREAD_CPUTIME_ID, &spent);
	} while (spent.tv_sec < until.tv_sec ||
		 (spent.tv_sec == until.tv_sec && spent.tv_nsec < until.tv_nsec));
}

static void set_priority(pthread_t thread, int priority)
{
	struct sched_param param = { .sched_priority = priority };
	int error = pthread_setschedparam(thread, priority ? SCHED_FIFO : SCHED_OTHER, &param);

	if (error)
		errx(2, "priority %d: %s", priority, strerror(error));
}

static void *hold(void *unused)
{
	if (is("lock") || is("inherit")) {
		pthread_mutex_lock(&mutex);
	} else {
		if (is("ceiling"))	/* by hand: nobody lends it */
			set_priority(pthread_self(), CEILING);
		if (forkgate_enter(FORKGATE_MEMORY))
			errx(2, "no gate");
	}
	sem_post(&inside);
	run_for(HOLD_US);
	if (is("lock") || is("inherit")) {
		pthread_mutex_unlock(&mutex);
	} else {
		forkgate_leave(FORKGATE_MEMORY);
		if (is("ceiling"))
			set_priority(pthread_self(), LOW);
	}
	return NULL;
}

static void *interfere(void *unused)
{
	sem_wait(&spin);
	run_for(spin_us);
	return NULL;
}

/* Return: the wait, in us; a negative number if it ended in vain */
static void *fork_or_lock(void *unused)
{
	int64_t start;
	bool vain = false;
	pid_t pid;

	sem_wait(&go);
	start = now_us();
	if (is("lock") || is("inherit")) {
		pthread_mutex_lock(&mutex);
		start = now_us() - start;
		pthread_mutex_unlock(&mutex);
		return (void *)start;
	}
	pid = forkgate_fork();
	if (!pid)
		_exit(0);
	start = now_us() - start;
	if (pid < 0) {
		if (errno != EAGAIN)
			err(2, "fork");
		vain = true;
	} else {
		waitpid(pid, NULL, 0);
	}
	return (void *)(vain ? -start : start);
}

static pthread_t start(void *(*run)(void *), int priority)
{
	pthread_t thread;
	int error = pthread_create(&thread, NULL, run, NULL);

	if (error)
		errx(2, "pthread_create: %s", strerror(error));
	set_priority(thread, priority);
	return thread;
}

int main(int argc, char **argv)
{
	pthread_mutexattr_t attr;
	struct forkgate_policy policy;
	pthread_t holder, spinner, forker;
	void *wait;

	if (argc != 3)
		errx(2, "usage: priority lock|inherit|gate|ceiling|timeout US");
	scene = argv[1];
	spin_us = atoi(argv[2]);
	if (sysconf(_SC_NPROCESSORS_ONLN) != 1)
		errx(2, "needs a machine with one processor");
	pthread_mutexattr_init(&attr);
	if (is("inherit"))
		pthread_mutexattr_setprotocol(&attr, PTHREAD_PRIO_INHERIT);
	pthread_mutex_init(&mutex, &attr);
	if (is("timeout")) {
		if (forkgate_policy_get(&policy))
			errx(2, "no gate");
		policy.timeout = TIMEOUT_US * 1000LL;
		forkgate_policy_set(&policy);
	}
	sem_init(&inside, 0, 0);
	sem_init(&go, 0, 0);
	sem_init(&spin, 0, 0);

	/* whatever becomes ready waits until this thread sleeps */
	set_priority(pthread_self(), MAIN);
	spinner = start(interfere, MIDDLE);
	forker = start(fork_or_lock, HIGH);
	holder = start(hold, LOW);
	sem_wait(&inside);
	sem_post(&spin);
	sem_post(&go);
	pthread_join(forker, &wait);
	pthread_join(spinner, NULL);
	pthread_join(holder, NULL);
	printf("%s %d %lld%s\n", scene, spin_us, llabs((long long)(intptr_t)wait),
	       (intptr_t)wait < 0 ? " in vain" : "");
	return 0;
}
