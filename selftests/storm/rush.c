// SPDX-License-Identifier: GPL-2.0-only
/*
 * As many gated forks as a machine can do: small processes of two threads, one of
 * which does nothing but fork, while the other one does nothing but enter and leave.
 *
 * storm.c does everything at random, and mostly waits. Here the window between a
 * section and a copy is met millions of times. Every child looks whether the other
 * thread was inside, as its memory and its descriptors show, and whether its own
 * gate is open and its copy counts as safe. Must not sleep: that would be time without forks.
 */
#include "../test/fork.h"

#include <kselftest.h>

#define PAIRS_MAX	64
#define HALF_FD		200
#define MANY		64	/* sections for each that opens a descriptor */

/* A child's exit status */
#define SAW_MEMORY	1
#define SAW_FILES	2
#define NOT_SAFE	4
#define CLOSED		8

enum { FORKS, VFORKS, SECTIONS, VIOLATIONS, BAD_GATES, NR_COUNTS };

/* Of one process, shared with the one that reports */
struct pair {
	unsigned long count[NR_COUNTS];
	char failed[80];
};

static struct { int stop; struct pair pair[PAIRS_MAX]; } *all;

/* What a memory section protects: equal whenever the other thread is outside */
static unsigned long begun, ended;
/* The vfork child has its parent's memory, where the other thread goes on. */
static bool only_files;

/* half_open - does this descriptor table show a files section? */
static bool half_open(void)
{
	return (fcntl(HALF_FD, F_GETFD) >= 0) != (fcntl(HALF_FD + 1, F_GETFD) >= 0);
}

static int look(void)
{
	if (only_files)
		return half_open() ? SAW_FILES : 0;
	return (READ_ONCE(begun) != READ_ONCE(ended) ? SAW_MEMORY : 0) |
	       (half_open() ? SAW_FILES : 0) |
	       (gate.head->copy ? NOT_SAFE : 0) | (READ_ONCE(gate.head->closed) ? CLOSED : 0);
}

static void failed(struct pair *pair, const char *what, long how)
{
	if (!pair->failed[0])
		snprintf(pair->failed, sizeof(pair->failed), "%s: %ld", what, how);
	WRITE_ONCE(all->stop, 1);
}

static void *sections(void *arg)
{
	struct pair *pair = arg;
	long ret = gate_register();

	if (ret < 0)
		failed(pair, "register", ret);
	for (unsigned long n = 0; !READ_ONCE(all->stop); n++) {
		unsigned int domains = n % MANY ? MEMORY : BOTH;

		ret = gate_enter(domains);
		if (ret) {
			failed(pair, "enter", ret);
			break;
		}
		WRITE_ONCE(begun, begun + 1);
		if (domains & FILES) {
			dup2(STDIN_FILENO, HALF_FD);
			dup2(STDIN_FILENO, HALF_FD + 1);
			close(HALF_FD);
			close(HALF_FD + 1);
		}
		WRITE_ONCE(ended, ended + 1);
		ret = gate_leave(domains);
		if (ret)
			failed(pair, "leave", ret);
		pair->count[SECTIONS]++;
		/* Where processors are few, the forks have to come to one. */
		if (!(n % MANY))
			sched_yield();
	}
	return NULL;
}

static int child(void *unused)
{
	_exit(look());
}

static void fork_one(struct pair *pair, unsigned long n)
{
	static char stack[16384] __attribute__((aligned(16)));
	int status;
	pid_t pid;

	only_files = n % 4 == 3;
	if (only_files)
		pid = clone(child, stack + sizeof(stack), CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
	else
		pid = raw_fork(0, look);
	if (pid < 0)
		return failed(pair, "clone", pid == -1 ? -errno : pid);
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return failed(pair, "child", status);
	pair->count[only_files ? VFORKS : FORKS]++;
	status = WEXITSTATUS(status);
	if (status & (SAW_MEMORY | SAW_FILES))
		pair->count[VIOLATIONS]++;
	if (status & (NOT_SAFE | CLOSED))
		pair->count[BAD_GATES]++;
}

static int pair_main(struct pair *pair)
{
	struct forkgate_state state;
	pthread_t other;
	long ret;

	ret = gate_setup();
	if (ret) {
		failed(pair, "set-up", ret);
		return 1;
	}
	ret = pthread_create(&other, NULL, sections, pair);
	if (ret) {
		failed(pair, "thread", ret);
		return 1;
	}
	for (unsigned long n = 0; !READ_ONCE(all->stop); n++)
		fork_one(pair, n);
	pthread_join(other, NULL);
	state = gate_state();
	if (state.closed || state.forkers || state.blocked || state.holders_count || state.bypasses)
		failed(pair, "the gate is not idle, forkers", state.forkers);
	return !!pair->failed[0];
}

/* stuck - the first of them that has done nothing since, or -1. Two threads, two counts */
static int stuck(int pairs, unsigned long (*before)[2])
{
	for (int i = 0; i < pairs; i++) {
		struct pair *pair = &all->pair[i];

		if (READ_ONCE(pair->count[FORKS]) == before[i][0] ||
		    READ_ONCE(pair->count[SECTIONS]) == before[i][1])
			return i;
	}
	return -1;
}

int main(int argc, char **argv)
{
	static const char *const names[NR_COUNTS] = {
		"forks", "vforks", "sections", "violations", "bad gates",
	};
	unsigned long sum[NR_COUNTS] = { 0 }, before[PAIRS_MAX][2] = { { 0 } };
	int pairs = argc > 1 ? atoi(argv[1]) : 4;
	int seconds = argc > 2 ? atoi(argv[2]) : 10;
	int idle = -1, status;
	bool hang = false, good = true;
	pid_t pids[PAIRS_MAX];
	uint64_t end;

	if (pairs < 1 || pairs > PAIRS_MAX || seconds < 1) {
		fprintf(stderr, "usage: rush [PROCESSES [SECONDS]]: 1 to %d (4), 1 or more (10)\n",
			PAIRS_MAX);
		return 2;
	}
	ksft_print_header();
	if (access(DEVICE, R_OK | W_OK))
		ksft_exit_skip(DEVICE " cannot be used\n");
	ksft_set_plan(3);
	all = mmap(NULL, sizeof(*all), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (all == MAP_FAILED)
		ksft_exit_fail_msg("mmap: %s\n", strerror(errno));
	fflush(stdout);
	for (int i = 0; i < pairs; i++) {
		pids[i] = fork();
		if (!pids[i]) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			_exit(pair_main(&all->pair[i]));
		}
		if (pids[i] < 0)
			ksft_exit_fail_msg("fork: %s\n", strerror(errno));
	}
	/* At least one round of each, however slow the machine is. */
	end = now_ms() + 1000ULL * seconds;
	while (!hang && now_ms() < end && !READ_ONCE(all->stop)) {
		for (int i = 0; i < pairs; i++) {
			before[i][0] = READ_ONCE(all->pair[i].count[FORKS]);
			before[i][1] = READ_ONCE(all->pair[i].count[SECTIONS]);
		}
		hang = !wait_until((idle = stuck(pairs, before)) < 0 || READ_ONCE(all->stop));
		if (hang)
			ksft_print_msg("process %d does nothing\n", idle);
	}
	WRITE_ONCE(all->stop, 1);
	for (int i = 0; i < pairs; i++) {
		struct pair *pair = &all->pair[i];

		/* Once one has been waited for in vain, the others are not. */
		if (hang)
			kill(pids[i], SIGKILL);
		status = child_exit(pids[i]);
		if (status && !hang) {
			ksft_print_msg("process %d %s %s\n", i, status == CHILD_HANGS ?
				       "does not end" : "failed", pair->failed);
			good = false;
		}
		if (status == CHILD_HANGS) {
			kill(pids[i], SIGKILL);
			hang = true;
		}
		for (int j = 0; j < NR_COUNTS; j++)
			sum[j] += pair->count[j];
	}
	for (int j = 0; j < NR_COUNTS; j++)
		ksft_print_msg("%s: %lu\n", names[j], sum[j]);
	ksft_test_result(!sum[VIOLATIONS], "no child sees another thread's open section\n");
	ksft_test_result(!sum[BAD_GATES] && good,
			 "every child's gate is new, every call succeeds\n");
	ksft_test_result(!hang, "every thread gets on\n");
	ksft_finished();
}
