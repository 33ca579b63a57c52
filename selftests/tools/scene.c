// SPDX-License-Identifier: GPL-2.0-only
/*
 * A known situation for the command forkgate to look at: the thread "holder"
 * is inside a memory section, "forker" forks and waits for it, "newcomer" wants
 * to enter and is kept out.
 *
 *	scene [nolabel] [raw] [own] [auto]
 *	scene timeout
 *
 * With "raw" the fork is a bare clone, with "own" the forker is inside a section
 * itself, with "nolabel" sections have no names.
 *
 * Prints "ready PID HOLDER FORKER NEWCOMER" once all that is so, waits for the
 * end of its input (with auto, only for a moment), and then lets all go on. It
 * must not end well unless the fork did. With "timeout" there is no newcomer,
 * and the fork has to fail because its time is over.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <forkgate.h>

static bool label = true, raw, own, automatic, in_vain;
static pid_t tids[3];
static pthread_barrier_t started, inside;
static volatile bool over;
static const void *mapping;

static long call(unsigned long request, void *arg)
{
	return syscall(SYS_msync, mapping, 4096, MS_SYNC, request, arg);
}

static void pause_a_bit(void)
{
	usleep(1000);
}

static void begin(int number, const char *name)
{
	tids[number] = syscall(SYS_gettid);
	prctl(PR_SET_NAME, name);
	pthread_barrier_wait(&started);
}

__attribute__((noinline)) void hold_archive(void)
{
	forkgate_enter(FORKGATE_MEMORY);
	if (label)
		forkgate_label("archive <1> & \"2\"");
	pthread_barrier_wait(&inside);
	while (!over)
		pause_a_bit();
	forkgate_leave(FORKGATE_MEMORY);
}

static void *holder(void *unused)
{
	begin(0, "holder");
	hold_archive();
	return unused;
}

static void *forker(void *unused)
{
	long ok = 0, pid;
	int status;

	begin(1, "fork \\\"er");
	pthread_barrier_wait(&inside);
	if (own)
		forkgate_enter(FORKGATE_MEMORY);
	pid = raw ? syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL) : fork();
	if (!pid)
		_exit(7);
	if (own)
		forkgate_leave(FORKGATE_MEMORY);
	if (in_vain)
		return pid < 0 && errno == EAGAIN ? unused : forker;
	if (pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status))
		ok = WEXITSTATUS(status) == 7;
	return ok ? unused : forker;
}

static void *newcomer(void *unused)
{
	struct forkgate_state state;

	begin(2, "newcomer");
	do {
		pause_a_bit();
		memset(&state, 0, sizeof(state));
		call(FORKGATE_IOC_STATE, &state);
		/* fork() is tried first */
	} while (!state.forkers || state.phases < (raw ? 1 : 2));
	forkgate_enter(FORKGATE_MEMORY);
	forkgate_leave(FORKGATE_MEMORY);
	return unused;
}

int main(int argc, char **argv)
{
	void *(*const mains[])(void *) = { holder, forker, newcomer };
	struct forkgate_policy policy;
	struct forkgate_state state;
	pthread_t threads[3];
	void *result = NULL;
	int i, error, count;

	for (i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "nolabel"))
			label = false;
		else if (!strcmp(argv[i], "raw"))
			raw = true;
		else if (!strcmp(argv[i], "own"))
			own = true;
		else if (!strcmp(argv[i], "timeout"))
			in_vain = true;
		else if (!strcmp(argv[i], "auto"))
			automatic = true;
		else
			return 2;
	}
	error = forkgate_init(FORKGATE_STRICT);
	if (error) {
		fprintf(stderr, "scene: no gate: %s\n", strerror(error));
		return 4;
	}
	forkgate_enter(FORKGATE_MEMORY);
	forkgate_leave(FORKGATE_MEMORY);
	mapping = forkgate_header_of(forkgate_self);

	/* Nothing but this program lets anybody go on. */
	call(FORKGATE_IOC_POLICY_GET, &policy);
	policy.patience = FORKGATE_FOREVER;
	policy.backstop = FORKGATE_FOREVER;
	policy.ticket_hold = FORKGATE_TIME_MAX;
	if (in_vain)	/* time to look at it */
		policy.timeout = 2000000000;
	call(FORKGATE_IOC_POLICY_SET, &policy);

	count = in_vain ? 2 : 3;
	pthread_barrier_init(&started, NULL, count + 1);
	pthread_barrier_init(&inside, NULL, 2);
	for (i = 0; i < count; i++)
		if (pthread_create(&threads[i], NULL, mains[i], NULL))
			return 3;
	pthread_barrier_wait(&started);
	if (in_vain) {
		pthread_join(threads[1], &result);
		over = true;
		pthread_join(threads[0], NULL);
		printf("ready %d %d %d 0\n", getpid(), tids[0], tids[1]);
		return !!result;
	}
	do {
		pause_a_bit();
		memset(&state, 0, sizeof(state));
		call(FORKGATE_IOC_STATE, &state);
	} while (state.forkers != 1 || state.blocked != 1);
	printf("ready %d %d %d %d\n", getpid(), tids[0], tids[1], tids[2]);
	fflush(stdout);
	if (automatic)
		usleep(2000000);
	else
		while (getchar() != EOF)
			;
	over = true;
	for (i = 0; i < 3; i++) {
		pthread_join(threads[i], &result);
		if (result)
			return 1;
	}
	return 0;
}
