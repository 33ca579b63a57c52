/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * cpu.h - threads that stay on a CPU or keep it busy, and how often CPUs are
 * interrupted. Must not know the gate.
 */
#ifndef TEST_CPU_H
#define TEST_CPU_H

#include "worker.h"

#include <sched.h>

#define MAX_CPUS 64

/* job_pin - stay on one CPU, whose number is the argument */
static inline long job_pin(void *cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((uintptr_t)cpu, &set);
	return sched_setaffinity(0, sizeof(set), &set) ? -errno : 0;
}

/* job_realtime - be a SCHED_FIFO thread, whose priority is the argument */
static inline long job_realtime(void *priority)
{
	struct sched_param param = { .sched_priority = (uintptr_t)priority };

	return sched_setscheduler(0, SCHED_FIFO, &param) ? -errno : 0;
}

static int spin_runs, spin_stop;

/* job_spin - run until spin_stop is set */
static inline long job_spin(void *unused)
{
	WRITE_ONCE(spin_runs, 1);
	while (!READ_ONCE(spin_stop))
		barrier();
	return 0;
}

/* spin_on - a worker spins on a CPU from now on; 0 or a negative errno */
static inline long spin_on(struct worker *worker, int cpu)
{
	long ret = run(worker, job_pin, ARG(cpu));

	if (ret)
		return ret;
	start(worker, job_spin, NULL);
	return wait_until(READ_ONCE(spin_runs)) ? 0 : -ETIMEDOUT;
}

/* function_calls - interrupts of every CPU to have it call a function; how many CPUs */
static inline int function_calls(long *counts)
{
	static char text[262144];
	char *line, *end;
	int n = 0;

	if (read_file("/proc/interrupts", text, sizeof(text)) <= 0)
		return 0;
	line = strstr(text, "Function call interrupts");
	if (!line)
		return 0;
	while (line > text && line[-1] != '\n')
		line--;
	for (line = strchr(line, ':'); line && n < MAX_CPUS; line = end - 1) {
		counts[n] = strtol(line + 1, &end, 10);
		if (end == line + 1)
			break;
		n++;
	}
	return n;
}

#endif /* TEST_CPU_H */
