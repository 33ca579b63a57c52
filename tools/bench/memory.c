// SPDX-License-Identifier: GPL-2.0-only
/*
 * memory - the kernel memory of processes with a gate, or with a file instead
 *
 *	memory gate|file THREADS PROCESSES
 *
 * Makes so many processes of so many threads each, in a memory cgroup of their
 * own. "gate": each opens the device, maps it, and registers all its threads.
 * "file": each opens and maps a file of a file system in memory, as much of it
 * and at the same place. So both have the same threads, an open file, a mapping
 * and its page tables; what "gate" has more are the module's objects and units.
 *
 * Prints "memory-gate THREADS BYTES" for a process, then, after each process has
 * forked a child that does nothing, "memory-gate-child THREADS BYTES" for that:
 * the cgroup's kernel memory (memory.stat) less what it was before, divided by
 * the number of processes. The kernel charges an object with its size in the
 * slab and the pointer to its owner; what a module would not charge is not seen.
 * Must not judge.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gate.h"

#define CGROUPS	"/sys/fs/cgroup"
#define FILE_	"/run/forkgate-bench"

/*
 * The kernel adds up what the processors have charged every other second, unless
 * they idle, and then when they have something else to do.
 */
#define SETTLE	8

static char group[64];
static bool gated;
static int threads, fd;
static int ready[2], go[2];

static void write_text(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");

	if (!file || fputs(text, file) < 0 || fclose(file))
		error(2, errno, "%s", path);
}

static void own_cgroup(void)
{
	char path[128];

	write_text(CGROUPS "/cgroup.subtree_control", "+memory");
	snprintf(group, sizeof(group), CGROUPS "/bench-%d", getpid());
	if (mkdir(group, 0755))
		error(2, errno, "%s", group);
	snprintf(path, sizeof(path), "%s/cgroup.procs", group);
	write_text(path, "0");
}

static long kernel_memory(void)
{
	char path[128], line[128];
	long bytes = -1;
	FILE *file;
	int i;

	for (i = 0; i < SETTLE; i++)
		sleep(1);
	snprintf(path, sizeof(path), "%s/memory.stat", group);
	file = fopen(path, "r");
	if (!file)
		error(2, errno, "%s", path);
	while (bytes < 0 && fgets(line, sizeof(line), file))
		sscanf(line, "kernel %ld", &bytes);
	fclose(file);
	if (bytes < 0)
		error(2, 0, "%s: no line \"kernel\"", path);
	return bytes;
}

static void say_ready(void)
{
	if (write(ready[1], "", 1) != 1)
		error(2, errno, "write");
}

static void *idle_thread(void *unused)
{
	if (gated)
		gate_register(fd);
	say_ready();
	for (;;)
		pause();
	return NULL;
}

static void hold(void)
{
	pthread_attr_t attr;
	pthread_t thread;
	char byte;
	int i;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	fd = map_shared(gated ? "/dev/forkgate" : FILE_, PROT_READ | PROT_WRITE);
	if (gated)
		gate_register(fd);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 64 << 10);
	for (i = 1; i < threads; i++) {
		errno = pthread_create(&thread, &attr, idle_thread, NULL);
		if (errno)
			error(2, errno, "pthread_create");
	}
	say_ready();
	if (read(go[0], &byte, 1) != 1)
		error(2, errno, "read");
	switch (fork()) {
	case -1:
		error(2, errno, "fork");
		break;
	case 0:
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		say_ready();
	}
	for (;;)
		pause();
}

static void await(int count)
{
	char byte;

	while (count--) {
		/* A process that failed ends, and has said why. */
		if (read(ready[0], &byte, 1) != 1)
			error(2, errno, "read");
	}
}

static void failed(int signo)
{
	static const char text[] = "memory: a process ended early\n";

	if (write(2, text, sizeof(text) - 1) < 0)
		_exit(3);
	_exit(2);
}

int main(int argc, char **argv)
{
	const char *what = argc == 4 ? argv[1] : "";
	long before, with, children;
	int i, processes;
	pid_t *pid;

	gated = !strcmp(what, "gate");
	if (!gated && strcmp(what, "file"))
		error(2, 0, "usage: memory gate|file THREADS PROCESSES");
	threads = atoi(argv[2]);
	processes = atoi(argv[3]);
	pid = calloc(processes, sizeof(*pid));
	if (!pid || pipe(ready) || pipe(go))
		error(2, errno, "memory");
	write_text(FILE_, "a page");
	own_cgroup();
	signal(SIGCHLD, failed);

	before = kernel_memory();
	for (i = 0; i < processes; i++) {
		pid[i] = fork();
		if (pid[i] < 0)
			error(2, errno, "fork");
		if (!pid[i]) {
			signal(SIGCHLD, SIG_DFL);
			hold();
		}
	}
	await(processes * threads);
	with = kernel_memory();
	for (i = 0; i < processes; i++) {
		if (write(go[1], "", 1) != 1)
			error(2, errno, "write");
	}
	await(processes);
	children = kernel_memory();
	printf("memory-%s %d %ld\n", what, threads, (with - before) / processes);
	printf("memory-%s-child %d %ld\n", what, threads, (children - with) / processes);

	signal(SIGCHLD, SIG_DFL);
	for (i = 0; i < processes; i++) {
		kill(pid[i], SIGKILL);
		waitpid(pid[i], NULL, 0);
	}
	return 0;
}
