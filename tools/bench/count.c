// SPDX-License-Identifier: GPL-2.0-only
/*
 * count - what forks, sections and waits cost, in executed instructions
 *
 * For a machine whose clock advances by a nanosecond with each instruction
 * ("testhost/run --count"): the times that it prints are counts there, noise
 * anywhere else. Built twice: "count" is linked with the library, "count-plain"
 * (PLAIN) knows nothing of it. Prints lines "WHAT THREADS COUNT". Must not
 * judge, and must not print what it did not measure.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <error.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/futex.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef PLAIN
#include <forkgate.h>
#endif

#define REPEATS		25
#define FEW_REPEATS	7	/* beside a thousand threads and more */

static int threads;	/* that sleep beside this one */

static int64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

/* Two moments of one repetition: the call's return, the end of what it made */
struct counts {
	int64_t call;
	int64_t end;
};

/* In the parent, as soon as the call has returned */
static void forked(pid_t pid, struct counts *counts)
{
	counts->call = now();
	if (pid < 0)
		error(2, errno, "fork");
	if (waitpid(pid, NULL, 0) != pid)
		error(2, errno, "waitpid");
	counts->end = now();
}

static void raw_fork(struct counts *counts)
{
	pid_t pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);

	if (!pid)
		syscall(SYS_exit_group, 0);
	forked(pid, counts);
}

static void libc_fork(struct counts *counts)
{
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	forked(pid, counts);
}

static void libc_vfork(struct counts *counts)
{
	pid_t pid = vfork();

	if (!pid)
		_exit(0);
	forked(pid, counts);
}

/* The program is not there: what an exec costs is the same for all. */
static void libc_spawn(struct counts *counts)
{
	static char *const arguments[] = { (char *)"/nonexistent", NULL };
	pid_t pid;

	if (posix_spawn(&pid, arguments[0], NULL, NULL, arguments, arguments + 1) != ENOENT)
		error(2, 0, "posix_spawn: a program that is not there");
	counts->call = now();
	counts->end = counts->call;
}

static void *return_at_once(void *unused)
{
	return NULL;
}

static void libc_thread(struct counts *counts)
{
	pthread_t thread;

	errno = pthread_create(&thread, NULL, return_at_once, NULL);
	if (errno)
		error(2, errno, "pthread_create");
	counts->call = now();
	pthread_join(thread, NULL);
	counts->end = now();
}

/* measure - the least of some repetitions */
static void measure(const char *what, void (*function)(struct counts *counts))
{
	int i, repeats = threads < 1000 ? REPEATS : FEW_REPEATS;
	struct counts least = { INT64_MAX, INT64_MAX }, counts;
	int64_t start;

	for (i = 0; i < repeats; i++) {
		start = now();
		function(&counts);
		if (counts.call - start < least.call)
			least.call = counts.call - start;
		if (counts.end - start < least.end)
			least.end = counts.end - start;
	}
	printf("%s %d %lld\n", what, threads, (long long)least.call);
	printf("%s-end %d %lld\n", what, threads, (long long)least.end);
}

/*
 * A wake-up: from just before the call that wakes to the return of the call that
 * slept
 */
static int word;
static int64_t woken_at;

static void *futex_sleeper(void *unused)
{
	while (!__atomic_load_n(&word, __ATOMIC_SEQ_CST))
		syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, NULL);
	woken_at = now();
	return NULL;
}

static void rest(void)
{
	const struct timespec time = { .tv_nsec = 20000000 };

	nanosleep(&time, NULL);
}

static void futex_wake(struct counts *counts)
{
	pthread_t thread;
	int64_t start;

	word = 0;
	pthread_create(&thread, NULL, futex_sleeper, NULL);
	rest();
	start = now();
	__atomic_store_n(&word, 1, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1);
	pthread_join(thread, NULL);
	counts->call = woken_at - start;
}

#ifndef PLAIN
static void *prepare_sleeper(void *unused)
{
	errno = forkgate_prepare(FORKGATE_MEMORY, NULL);
	woken_at = now();
	if (errno)
		error(2, errno, "forkgate_prepare");
	forkgate_release();
	return NULL;
}

static void last_leave(struct counts *counts)
{
	pthread_t thread;
	int64_t start;

	forkgate_enter(FORKGATE_MEMORY);
	pthread_create(&thread, NULL, prepare_sleeper, NULL);
	rest();
	start = now();
	forkgate_leave(FORKGATE_MEMORY);
	pthread_join(thread, NULL);
	counts->call = woken_at - start;
}

static void prepare(struct counts *counts)
{
	errno = forkgate_prepare(FORKGATE_DOMAINS, NULL);
	if (errno)
		error(2, errno, "forkgate_prepare");
	counts->call = now();
	forkgate_release();
	counts->end = now();
}
#endif

static void measure_wake(const char *what, void (*function)(struct counts *counts))
{
	int64_t least = INT64_MAX;
	struct counts counts;
	int i;

	for (i = 0; i < REPEATS; i++) {
		function(&counts);
		if (counts.call < least)
			least = counts.call;
	}
	printf("%s %d %lld\n", what, threads, (long long)least);
}

static void *idle_thread(void *unused)
{
#ifndef PLAIN
	forkgate_enter(FORKGATE_MEMORY);
	forkgate_leave(FORKGATE_MEMORY);
#endif
	__atomic_add_fetch(&threads, 1, __ATOMIC_SEQ_CST);
	for (;;)
		pause();
	return NULL;
}

static void beside(int count)
{
	pthread_attr_t attr;
	pthread_t thread;
	int i;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 64 << 10);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	for (i = threads; i < count; i++) {
		errno = pthread_create(&thread, &attr, idle_thread, NULL);
		if (errno)
			error(2, errno, "pthread_create");
	}
	while (__atomic_load_n(&threads, __ATOMIC_SEQ_CST) < count)
		rest();
	rest();	/* they sleep then */

	measure("fork", raw_fork);
	measure("libc-fork", libc_fork);
	measure("vfork", libc_vfork);
	measure("spawn", libc_spawn);
	measure("thread", libc_thread);
#ifndef PLAIN
	measure("prepare", prepare);
#endif
	fflush(stdout);
}

int main(int argc, char **argv)
{
	const struct sched_param param = { .sched_priority = 1 };
	int i;

	if (argc < 2)
		error(2, 0, "usage: count THREADS...");
	/* So that a child does not run before the call that made it returns */
	if (sched_setscheduler(0, SCHED_FIFO, &param))
		error(2, errno, "sched_setscheduler");
#ifndef PLAIN
	/* Without the module the same binary has no gate. */
	forkgate_enter(FORKGATE_MEMORY);
	forkgate_leave(FORKGATE_MEMORY);
#endif
	measure_wake("futex-wake", futex_wake);
#ifndef PLAIN
	measure_wake("last-leave", last_leave);
#endif
	for (i = 1; i < argc; i++)
		beside(atoi(argv[i]));
	return 0;
}
