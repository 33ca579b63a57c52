// SPDX-License-Identifier: GPL-2.0-only
/*
 * A program whose functions have the names that the static library's once had:
 * the library must not call them, and they must not keep it from doing its
 * work. Runs with and without a module. It must not use the framework of the
 * other tests, which has names too.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <forkgate.h>
#include <forksafe_mutex.h>

static int calls;

#define OWN(name)	\
int name(void);		\
int name(void)		\
{			\
	return ++calls;	\
}

OWN(fork_begin)
OWN(fork_failed)
OWN(fork_in_call)
OWN(fork_late)
OWN(fork_prepared)
OWN(fork_setup)
OWN(vfork_begin)
OWN(mutex_owned)
OWN(mutex_suspend)
OWN(mutex_resume)
OWN(find_gate)
OWN(gate_call)
OWN(setup)

unsigned int forksafe_epoch = 4711;

static int number;
static bool failed;

static void result(bool good, const char *what)
{
	failed |= !good;
	printf("%sok %d %s\n", good ? "" : "not ", ++number, what);
	fflush(stdout);
}

/* Before a fork, and before the library's own handler: is it tried? */
static bool gated;
static int tries;

static void before_fork(void)
{
	tries = forkgate_self->tries;
}

static bool child_is_well(void)
{
	pid_t tid = getpid();

	return forkgate_self->tid == (unsigned int)tid && forkgate_self->depth[0] == 1;
}

static bool forks(pid_t (*function)(void))
{
	int status;
	pid_t pid;

	tries = -1;
	forkgate_enter(FORKGATE_MEMORY);
	pid = function();
	if (!pid)
		_exit(child_is_well() ? 0 : 1);
	forkgate_leave(FORKGATE_MEMORY);
	return pid > 0 && waitpid(pid, &status, 0) == pid && !status &&
	       tries == (gated ? FORKGATE_MEMORY : 0);
}

static forksafe_mutex_t mutex = FORKSAFE_MUTEX_INITIALIZER;
static forksafe_cond_t cond = FORKSAFE_COND_INITIALIZER;

static bool waits(void)
{
	const struct timespec past = { .tv_sec = 1 };

	return !forksafe_mutex_lock(&mutex) &&
	       forksafe_cond_timedwait(&cond, &mutex, &past) == ETIMEDOUT &&
	       !forksafe_mutex_unlock(&mutex);
}

int main(void)
{
	int err = forkgate_init(0);

	/* The module is told what is tried. */
	gated = forkgate_protection(NULL) == FORKGATE_BY_MODULE;
	printf("TAP version 13\n1..5\n");
	pthread_atfork(before_fork, NULL, NULL);
	result(!err || err == ENODEV || err == EACCES, "the library has looked for a gate");
	result(forks(fork), "fork() is tried, and the library takes note in the child");
	result(forks(forkgate_fork), "and so with forkgate_fork()");
	result(waits(), "locks work");
	result(!calls && forksafe_epoch == 4711, "the library has called nothing of the program's");
	return failed;
}
