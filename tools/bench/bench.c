// SPDX-License-Identifier: GPL-2.0-only
/*
 * bench - what a section costs, next to what else a thread might do
 *
 * "bench sections" prints lines "WHAT<TAB>TIME": ns of one pair (enter and leave,
 * lock and unlock, up and down). "bench threads" prints lines "THREADS<TAB>TIME":
 * the same for a section, of the slowest of that many threads that run at the
 * same time, each on a core of its own; again and again, because the best times of a
 * moment can be compared better than those of all.
 *
 * All contestants take turns in many rounds, so short that most of them see no
 * interrupt, and the best round counts: noise only adds. Must not judge, and must
 * print nothing that it did not measure.
 */
#define _GNU_SOURCE
#define _LGPL_SOURCE		/* liburcu: inline, as sections are */
#include <errno.h>
#include <error.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/rseq.h>
#include <time.h>
#include <unistd.h>

#include <urcu/urcu-memb.h>

#include <forkgate.h>
#include <forksafe_mutex.h>

#define ROUNDS		2000
#define TURNS		41	/* of threads, with a share of the rounds each */
#define PAIRS		10000	/* of one round */

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e9 + time.tv_nsec;
}

/* Somebody else may look at the word now: so it has to be in memory. */
static inline void seen(int *word)
{
	__asm__ __volatile__("" : "+m" (*word) : : "memory");
}

/* A round starts on a cache line, so that where it lies makes no difference. */
#define ROUND static __attribute__((__noinline__, __aligned__(64))) void

ROUND section(int pairs)
{
	while (pairs--) {
		forkgate_enter(FORKGATE_MEMORY);
		forkgate_leave(FORKGATE_MEMORY);
	}
}

ROUND both_domains(int pairs)
{
	while (pairs--) {
		forkgate_enter(FORKGATE_DOMAINS);
		forkgate_leave(FORKGATE_DOMAINS);
	}
}

ROUND urcu(int pairs)
{
	while (pairs--) {
		urcu_memb_read_lock();
		urcu_memb_read_unlock();
	}
}

/*
 * A counter of the processor that the thread runs on: a restartable sequence,
 * which the kernel aborts if it moves the thread meanwhile.
 */
static struct { long count; } __attribute__((__aligned__(64))) per_cpu[CPU_SETSIZE];

static inline void per_cpu_add(long value)
{
	struct rseq *self = (void *)((char *)__builtin_thread_pointer() + __rseq_offset);
	uint32_t cpu;

again:
	cpu = __atomic_load_n(&self->cpu_id_start, __ATOMIC_RELAXED);
	__asm__ __volatile__ goto(".pushsection __rseq_cs, \"aw\"\n"
		".balign 32\n"
		"3:\t.long 0, 0\n"		/* version, flags */
		"\t.quad 1f, 2f - 1f, 4f\n"	/* start, length, abort */
		".popsection\n"
		"\tlea	3b(%%rip), %%rax\n"
		"\tmov	%%rax, %[sequence]\n"
		"1:\n"
		"\tcmpl	%[cpu], %[cpu_now]\n"
		"\tjne	4f\n"
		"\taddq	%[value], %[count]\n"
		"2:\n"
		".pushsection __rseq_failure, \"ax\"\n"
		"\t.byte 0x0f, 0xb9, 0x3d\n"
		"\t.long %c[signature]\n"
		"4:\tjmp	%l[again]\n"
		".popsection\n"
		: : [sequence] "m" (self->rseq_cs), [cpu] "r" (cpu),
		    [cpu_now] "m" (self->cpu_id), [value] "er" (value),
		    [count] "m" (per_cpu[cpu].count), [signature] "i" (RSEQ_SIG)
		: "memory", "cc", "rax" : again);
}

ROUND rseq_counter(int pairs)
{
	while (pairs--) {
		per_cpu_add(1);
		per_cpu_add(-1);
	}
}

ROUND atomic_counter(int pairs)
{
	static int counter;

	while (pairs--) {
		__atomic_fetch_add(&counter, 1, __ATOMIC_SEQ_CST);
		__atomic_fetch_sub(&counter, 1, __ATOMIC_SEQ_CST);
	}
}

ROUND counter(int pairs)
{
	static int counter;

	while (pairs--) {
		counter++;
		seen(&counter);
		counter--;
		seen(&counter);
	}
}

ROUND stores(int pairs)
{
	static int word;

	while (pairs--) {
		word = 1;
		seen(&word);
		word = 0;
		seen(&word);
	}
}

ROUND libc_mutex(int pairs)
{
	static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

	while (pairs--) {
		pthread_mutex_lock(&mutex);
		pthread_mutex_unlock(&mutex);
	}
}

ROUND forksafe_mutex(int pairs)
{
	static forksafe_mutex_t mutex = FORKSAFE_MUTEX_INITIALIZER;

	while (pairs--) {
		forksafe_mutex_lock(&mutex);
		forksafe_mutex_unlock(&mutex);
	}
}

/* The C library's mutexes are faster in a program with one thread. */
static void *sleeper(void *unused)
{
	for (;;)
		pause();
	return NULL;
}

static int sections(void)
{
	static struct {
		const char *what;
		void (*round)(int pairs);
		double best;
	} *one, all[] = {
		{ .what = "section", .round = section },
		{ .what = "both domains", .round = both_domains },
		{ .what = "liburcu memb", .round = urcu },
		{ .what = "rseq counter", .round = rseq_counter },
		{ .what = "atomic counter", .round = atomic_counter },
		{ .what = "pthread_mutex", .round = libc_mutex },
		{ .what = "forksafe_mutex", .round = forksafe_mutex },
		{ .what = "constant stores", .round = stores },
		{ .what = "counter in memory", .round = counter },
		{ .what = NULL }
	};
	pthread_t thread;
	double took;
	int i;

	if (!__rseq_size)
		error(2, 0, "the C library has not registered rseq");
	urcu_memb_register_thread();
	errno = pthread_create(&thread, NULL, sleeper, NULL);
	if (errno)
		error(2, errno, "pthread_create");

	for (i = 0; i < ROUNDS; i++) {
		for (one = all; one->what; one++) {
			took = now();
			one->round(PAIRS);
			took = now() - took;
			if (!i || took < one->best)
				one->best = took;
		}
	}
	for (one = all; one->what; one++)
		printf("%s\t%.3f\n", one->what, one->best / PAIRS);
	return 0;
}

static int cores[CPU_SETSIZE], cores_count;

/* One processor of each core: two of one core share what executes. */
static void find_cores(void)
{
	char path[80];
	cpu_set_t set;
	int cpu, first;
	FILE *file;

	if (sched_getaffinity(0, sizeof(set), &set))
		error(2, errno, "sched_getaffinity");
	for (cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &set))
			continue;
		snprintf(path, sizeof(path),
			 "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
		file = fopen(path, "r");
		if (!file || fscanf(file, "%d", &first) != 1)
			error(2, errno, "%s", path);
		fclose(file);
		if (first == cpu || !CPU_ISSET(first, &set))
			cores[cores_count++] = cpu;
	}
}

/*
 * A round of "threads": each thread says that it is there, and starts when all
 * are. What it does for the first time is over by then.
 */
static int members, there;
static double took[CPU_SETSIZE];

static void *run(void *arg)
{
	int number = (intptr_t)arg;
	cpu_set_t set;
	double start;

	CPU_ZERO(&set);
	CPU_SET(cores[number], &set);
	errno = pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
	if (errno)
		error(2, errno, "pthread_setaffinity_np");
	section(PAIRS);
	__atomic_add_fetch(&there, 1, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&there, __ATOMIC_SEQ_CST) < members)
		;
	start = now();
	section(PAIRS);
	took[number] = now() - start;
	return NULL;
}

/* Return: what the slowest of @count threads took. */
static double together(int count)
{
	pthread_t thread[CPU_SETSIZE];
	double slowest = 0;
	intptr_t i;

	members = count;
	there = 0;
	for (i = 0; i < count; i++) {
		errno = pthread_create(&thread[i], NULL, run, (void *)i);
		if (errno)
			error(2, errno, "pthread_create");
	}
	for (i = 0; i < count; i++) {
		pthread_join(thread[i], NULL);
		if (took[i] > slowest)
			slowest = took[i];
	}
	return slowest;
}

/* Also for half of the cores, a quarter and so on, down to one */
static void threads_turn(void)
{
	double best, slowest;
	int round, count;

	for (count = cores_count; count; count /= 2) {
		for (round = 0; round < ROUNDS / TURNS; round++) {
			slowest = together(count);
			if (!round || slowest < best)
				best = slowest;
		}
		printf("%d\t%.3f\n", count, best / PAIRS);
	}
}

static int threads(void)
{
	int turn;

	find_cores();
	for (turn = 0; turn < TURNS; turn++)
		threads_turn();
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "sections"))
		return sections();
	if (argc == 2 && !strcmp(argv[1], "threads"))
		return threads();
	error(2, 0, "usage: bench sections|threads");
}
