// SPDX-License-Identifier: GPL-2.0-only
/*
 * count - what forks, sections and waits cost, in executed instructions
 *
 * For a machine whose clock advances by a nanosecond with each instruction
 * ("testhost/run --count"): the times that it prints are counts there, noise
 * anywhere else. Built twice: "count" is linked with the library, "count-plain"
 * (PLAIN) knows nothing of it. Prints lines "WHAT THREADS COUNT". Must not
 * judge, and must not print what it did not measure.
 *
 *	count [-m] THREADS...		measure beside so many idle threads
 *	count -g COMMAND [ARG...]	run COMMAND while this process has a gate
 *
 * With -m the process has one more shared mapping, with a page in use.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <error.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/futex.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef PLAIN
#include <forkgate.h>

/*
 * Stands in for the C library's, which libforkgate calls: without a fence it has no
 * gate of its own, so what is measured without the module is without any gate.
 */
long syscall(long number, ...)
{
	register long a4 __asm__("r10"), a5 __asm__("r8"), a6 __asm__("r9");
	long a1, a2, a3, result;
	va_list list;

	va_start(list, number);
	a1 = va_arg(list, long);
	a2 = va_arg(list, long);
	a3 = va_arg(list, long);
	a4 = va_arg(list, long);
	a5 = va_arg(list, long);
	a6 = va_arg(list, long);
	va_end(list);
	if (number == SYS_membarrier)
		result = -ENOSYS;
	else
		__asm__ volatile("syscall" : "=a" (result)
				 : "a" (number), "D" (a1), "S" (a2), "d" (a3), "r" (a4), "r" (a5),
				   "r" (a6) : "rcx", "r11", "memory");
	if (result >= 0 || result < -4095)
		return result;
	errno = -result;
	return -1;
}
#endif

#define REPEATS		25
#define FEW_REPEATS	7	/* beside a thousand threads and more */
#define MAP_SIZE	(2 << 20)	/* of the mapping of -m; a gate's is as large */

static int threads;	/* that sleep beside this one */

static int64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

/* What the plugin in functions.c looks for: an instruction without effect */
#ifdef __x86_64__
#define MARK(number)	\
	__asm__ __volatile__(".byte 0x0f, 0x1f, 0x80, " #number ", 'F', 'G', 'K'" : : : "memory")
#else
#define MARK(number)	((void)(number))
#endif

static int64_t begin(void)
{
	int64_t time = now();

	MARK(1);
	return time;
}

static int64_t end(void)
{
	MARK(2);
	return now();
}

/* Two moments of one repetition: the call's return, the end of what it made */
struct counts {
	int64_t call;
	int64_t end;
};

/* In the parent, as soon as the call has returned */
static void forked(pid_t pid, struct counts *counts)
{
	counts->call = end();
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
	counts->call = end();
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
	counts->call = end();
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
		start = begin();
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
	woken_at = end();
	return NULL;
}

static void futex_sleep(void)
{
	word = 0;
}

static void futex_wake(void)
{
	__atomic_store_n(&word, 1, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1);
}

static void rest(void)
{
	const struct timespec time = { .tv_nsec = 20000000 };

	nanosleep(&time, NULL);
}

/*
 * measure_wake - the least of some wake-ups
 * @what: its name
 * @sleep: called before there is a sleeper
 * @sleeper: a thread that sleeps, and then sets woken_at
 * @wake: wakes it
 */
static void measure_wake(const char *what, void (*sleep)(void), void *(*sleeper)(void *unused),
			 void (*wake)(void))
{
	int64_t least = INT64_MAX, start;
	pthread_t thread;
	int i;

	for (i = 0; i < REPEATS; i++) {
		sleep();
		errno = pthread_create(&thread, NULL, sleeper, NULL);
		if (errno)
			error(2, errno, "pthread_create");
		rest();
		woken_at = 0;
		start = begin();
		wake();
		pthread_join(thread, NULL);
		if (woken_at < start)
			error(2, 0, "%s: nobody slept", what);
		if (woken_at - start < least)
			least = woken_at - start;
	}
	printf("%s %d %lld\n", what, threads, (long long)least);
}

#ifndef PLAIN
static void enter(void)
{
	forkgate_enter(FORKGATE_MEMORY);
}

static void leave(void)
{
	forkgate_leave(FORKGATE_MEMORY);
}

static void *prepare_sleeper(void *unused)
{
	errno = forkgate_prepare(FORKGATE_MEMORY, NULL);
	woken_at = end();
	if (errno)
		error(2, errno, "forkgate_prepare");
	forkgate_release();
	return NULL;
}

/*
 * The clone waits at the gate as any other, and is refused when it goes on,
 * because of its flags, before it copies anything: no copy is measured.
 */
static void *clone_sleeper(void *unused)
{
	long ret = syscall(SYS_clone, CLONE_NEWNS | CLONE_FS | SIGCHLD, 0, 0, 0, 0);

	woken_at = end();
	if (ret != -1 || errno != EINVAL)
		error(2, 0, "clone: the kernel should have refused the flags");
	return NULL;
}

static void *fork_sleeper(void *unused)
{
	struct counts counts;

	raw_fork(&counts);
	woken_at = counts.call;
	return NULL;
}

static void prepare(struct counts *counts)
{
	errno = forkgate_prepare(FORKGATE_DOMAINS, NULL);
	if (errno)
		error(2, errno, "forkgate_prepare");
	counts->call = end();
	forkgate_release();
	counts->end = now();
}

/* What a section does at its ends while the gate is closed */
static int device;

static void through_kernel(struct counts *counts)
{
	struct forkgate_enter enter = { .domains = FORKGATE_MEMORY, .flags = FORKGATE_COUNTED };
	struct forkgate_leave leave = { .domains = FORKGATE_MEMORY, .flags = FORKGATE_COUNTED };

	forkgate_self->depth[0]++;
	if (ioctl(device, FORKGATE_IOC_ENTER, &enter))
		error(2, errno, "FORKGATE_IOC_ENTER");
	counts->call = end();
	forkgate_self->depth[0]--;
	if (ioctl(device, FORKGATE_IOC_LEAVE, &leave))
		error(2, errno, "FORKGATE_IOC_LEAVE");
	counts->end = now();
}

static void measure_gate(void)
{
	measure("prepare", prepare);
	measure("enter", through_kernel);
	measure_wake("wake-prepare", enter, prepare_sleeper, leave);
	measure_wake("wake-clone", enter, clone_sleeper, leave);
	measure_wake("wake-fork", enter, fork_sleeper, leave);
}
#endif

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
	measure_wake("wake-futex", futex_sleep, futex_sleeper, futex_wake);
#ifndef PLAIN
	/* Without the module the same binary has no gate. */
	if (!forkgate_init(0))
		measure_gate();
#endif
	fflush(stdout);
}

static void one_more_mapping(void)
{
	char *map = mmap(NULL, MAP_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (map == MAP_FAILED)
		error(2, errno, "mmap");
	map[0] = 1;
}

int main(int argc, char **argv)
{
	const struct sched_param param = { .sched_priority = 1 };
	int i = 1;

	if (argc < 2 || (argv[1][0] == '-' && argc < 3))
		error(2, 0, "usage: count [-m] THREADS... | count -g COMMAND [ARG...]");
#ifndef PLAIN
	forkgate_enter(FORKGATE_MEMORY);
	forkgate_leave(FORKGATE_MEMORY);
	if (!strcmp(argv[1], "-g")) {
		pid_t pid;
		int status;

		errno = forkgate_init(0);
		if (!errno)
			errno = posix_spawnp(&pid, argv[2], NULL, NULL, argv + 2, environ);
		if (errno)
			error(2, errno, "-g");
		return waitpid(pid, &status, 0) == pid && !status ? 0 : 2;
	}
	/* The gate is that of the process, whatever the descriptor. */
	device = open("/dev/forkgate", O_RDWR | O_CLOEXEC);
#endif
	if (!strcmp(argv[1], "-m")) {
		one_more_mapping();
		i++;
	}
	/* So that a child does not run before the call that made it returns */
	if (sched_setscheduler(0, SCHED_FIFO, &param))
		error(2, errno, "sched_setscheduler");
	for (; i < argc; i++)
		beside(atoi(argv[i]));
	return 0;
}
