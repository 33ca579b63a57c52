// SPDX-License-Identifier: GPL-2.0-only
/*
 * interrupts - how many interrupts forks of a process with threads send
 *
 *	interrupts gate|none asleep|running
 *
 * The process has a thread on every processor but the first, on which it forks;
 * these have run there since the last fork, and sleep, or run without end. Prints lines
 * "interrupts-gate-asleep THREADS NUMBER", for a raw fork, and with a gate the
 * same with "prepared", for one with a ticket: how many functions the other
 * processors were interrupted for, for each fork, as the kernel's tracepoint
 * csd_function_entry tells. Not counted is what has nothing to do with gates and
 * varies: waking tasks, balancing load, flushing page tables (which a fork does
 * anyway), and the tracepoint's own. With "none" there is no gate. Must not judge.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/futex.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "gate.h"

#define FORKS	200

#define TRACING	"/sys/kernel/tracing"
#define EVENT	TRACING "/events/csd/csd_function_entry"

static bool gated, running;
static int fd, threads, turn;

static void write_text(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");

	if (!file || fputs(text, file) < 0 || fclose(file))
		error(2, errno, "%s", path);
}

/* Opening the file to write forgets what was counted before. */
static void count_function_calls(void)
{
	write_text(EVENT "/trigger", "hist:keys=func.sym if CPU != 0");
}

static long function_calls(void)
{
	static const char *const other[] = {
		"sched_ttwu_pending", "nohz_csd_func", "flush_tlb_func", "do_sync_core", NULL
	};
	char line[512], function[256];
	long sum = 0, hits;
	int i;
	FILE *file = fopen(EVENT "/hist", "r");

	if (!file)
		error(2, errno, EVENT "/hist");
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "{ func: [%*[^]]] %255s", function) != 1)
			continue;
		if (sscanf(strstr(line, "hitcount:") ?: "", "hitcount: %ld", &hits) != 1)
			error(2, 0, EVENT "/hist: %s", line);
		for (i = 0; other[i]; i++) {
			if (!strcmp(function, other[i]))
				hits = 0;
		}
		sum += hits;
	}
	fclose(file);
	return sum;
}

static void run_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		error(2, errno, "sched_setaffinity");
}

static void *sibling(void *cpu)
{
	run_on((intptr_t)cpu);
	if (gated)
		gate_register(fd);
	__atomic_add_fetch(&threads, 1, __ATOMIC_SEQ_CST);
	while (running)
		__asm__ __volatile__("" : : : "memory");
	for (;;)
		syscall(SYS_futex, &turn, FUTEX_WAIT_PRIVATE,
			__atomic_load_n(&turn, __ATOMIC_SEQ_CST), NULL);
	return NULL;
}

/* Siblings that are to sleep run a moment: their processors know this process again. */
static void siblings_run(void)
{
	const struct timespec moment = { .tv_nsec = 10000000 };

	__atomic_add_fetch(&turn, 1, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, &turn, FUTEX_WAKE_PRIVATE, threads);
	nanosleep(&moment, NULL);
}

static void one_fork(bool prepared)
{
	struct forkgate_prepare prepare = { .domains = FORKGATE_DOMAINS };
	pid_t pid;

	if (prepared && ioctl(fd, FORKGATE_IOC_PREPARE, &prepare))
		error(2, errno, "FORKGATE_IOC_PREPARE");
	pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	if (!pid)
		syscall(SYS_exit_group, 0);
	if (pid < 0 || waitpid(pid, NULL, 0) != pid)
		error(2, errno, "fork");
}

static void measure(const char *name, bool prepared)
{
	int i;

	count_function_calls();
	for (i = 0; i < FORKS; i++) {
		if (!running)
			siblings_run();
		one_fork(prepared);
	}
	printf("%s%s %d %.2f\n", name, prepared ? "-prepared" : "", threads,
	       (double)function_calls() / FORKS);
}

int main(int argc, char **argv)
{
	const struct timespec moment = { .tv_nsec = 200000000 };
	long cpus = sysconf(_SC_NPROCESSORS_ONLN), cpu;
	pthread_t thread;
	char name[64];

	if (argc != 3)
		error(2, 0, "usage: interrupts gate|none asleep|running");
	gated = !strcmp(argv[1], "gate");
	running = !strcmp(argv[2], "running");
	if (cpus < 2)
		error(2, 0, "needs two processors");
	if (mount("tracefs", TRACING, "tracefs", 0, NULL) && errno != EBUSY)
		error(2, errno, TRACING);
	run_on(0);
	if (gated) {
		fd = map_shared("/dev/forkgate", PROT_READ | PROT_WRITE);
		gate_register(fd);
	}
	for (cpu = 1; cpu < cpus; cpu++) {
		errno = pthread_create(&thread, NULL, sibling, (void *)(intptr_t)cpu);
		if (errno)
			error(2, errno, "pthread_create");
	}
	while (__atomic_load_n(&threads, __ATOMIC_SEQ_CST) < cpus - 1)
		nanosleep(&moment, NULL);
	nanosleep(&moment, NULL);	/* those that are to sleep do */
	snprintf(name, sizeof(name), "interrupts-%s-%s", argv[1], argv[2]);
	measure(name, false);
	if (gated)
		measure(name, true);
	return 0;
}
