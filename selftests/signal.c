// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rule 8: a signal restarts the clone as an interrupted fork always does; the
 * forker keeps its place for a while, so that periodic signals cannot starve
 * it; SIGKILL kills, SIGSTOP stops and the freezer freezes.
 */
#include "test/handler.h"
#include "test/harness.h"

#include <sys/stat.h>

FIXTURE_WORKERS(sig, holder, forker, other);

static int runs;		/* how often a handler ran */
static long handler_child;
static bool handler_stays;	/* until the test opens the latch */
static int handler_leave;

static void handler(int signo)
{
	__atomic_add_fetch(&runs, 1, __ATOMIC_SEQ_CST);
	if (READ_ONCE(handler_stays))
		latch_wait(&handler_leave);
}

static void handler_forks(int signo)
{
	__atomic_add_fetch(&runs, 1, __ATOMIC_SEQ_CST);
	WRITE_ONCE(handler_child, raw_fork(0, child_whole));
}

/*
 * Handlers
 */

FIXTURE_WORKERS(handler, holder, forker, other);

FIXTURE_VARIANT(handler) {
	int flags;
	struct fork_how *how;
};

FIXTURE_VARIANT_ADD(handler, restart) { .flags = SA_RESTART, .how = &fork_both };
FIXTURE_VARIANT_ADD(handler, no_restart) { .flags = 0, .how = &fork_both };
FIXTURE_VARIANT_ADD(handler, files) { .flags = 0, .how = &fork_files };
FIXTURE_VARIANT_ADD(handler, memory) { .flags = 0, .how = &fork_memory };

TEST_F(handler, runs_during_the_wait)
{
	int i;

	handle(handler, variant->flags);
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(BOTH)));
	start(&self->forker, job_fork, variant->how);
	for (i = 1; i <= 5; i++) {
		ASSERT_TRUE(wait_until(worker_waits(&self->forker, 1)));
		ASSERT_EQ(0, interrupt(&self->forker));
		ASSERT_TRUE(wait_until(READ_ONCE(runs) == i));
	}
	EXPECT_TRUE(wait_until(worker_waits(&self->forker, 1)));
	EXPECT_EQ(1, gate_state().phases);
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(BOTH)));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(1, gate_state().forks);
	EXPECT_EQ(0, gate.head->closed);
}

TEST_F(handler, may_fork)
{
	handle(handler_forks, variant->flags);
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(BOTH)));
	ASSERT_TRUE(fork_waits(&self->forker, variant->how, 1));
	ASSERT_EQ(0, interrupt(&self->forker));
	ASSERT_TRUE(wait_until(READ_ONCE(runs) == 1));
	/* Now the handler's own fork waits. */
	EXPECT_TRUE(wait_until(worker_waits(&self->forker, 1)));
	EXPECT_EQ(0, READ_ONCE(handler_child));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(BOTH)));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, child_exit(handler_child));
	EXPECT_EQ(0, gate.head->closed);
	EXPECT_EQ(0, gate_state().forkers);
}

/* It waits for what it needs itself, whatever the call that it interrupts needs (rule 1). */
static void handler_spawns(int signo)
{
	WRITE_ONCE(handler_child, spawn_vm(0, child_nothing));
}

FIXTURE_WORKERS(spawn, holder, forker);

FIXTURE_VARIANT(spawn) {
	long (*job)(void *arg);
	void *arg;
};

FIXTURE_VARIANT_ADD(spawn, amid_a_fork) { .job = job_fork, .arg = &fork_both };
FIXTURE_VARIANT_ADD(spawn, amid_a_prepare) { .job = job_prepare, .arg = ARG(BOTH) };

TEST_F(spawn, does_not_wait_for_memory)
{
	handle(handler_spawns, 0);
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(MEMORY)));
	start(&self->forker, variant->job, variant->arg);
	ASSERT_TRUE(wait_until(worker_waits(&self->forker, 1)));
	ASSERT_EQ(0, interrupt(&self->forker));
	EXPECT_TRUE(wait_until(READ_ONCE(handler_child)));
	EXPECT_EQ(0, child_exit(READ_ONCE(handler_child)));
	EXPECT_TRUE(wait_until(worker_waits(&self->forker, 1)));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(MEMORY)));
	EXPECT_LE(0, finish(&self->forker));
}

/*
 * The place
 */

/* While the handler runs, newcomers are still kept out for the fork. */
TEST_F(sig, place_is_kept)
{
	handle(handler, 0);
	WRITE_ONCE(handler_stays, true);
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	ASSERT_EQ(0, interrupt(&self->forker));
	ASSERT_TRUE(wait_until(READ_ONCE(runs) == 1));
	EXPECT_EQ(1, gate_state().forkers);
	EXPECT_EQ(BOTH, gate.head->closed);
	EXPECT_EQ(-EBUSY, run(&self->other, job_tryenter, ARG(MEMORY)));
	latch_open(&handler_leave);
	EXPECT_TRUE(wait_until(worker_waits(&self->forker, 1)));
	EXPECT_EQ(1, gate_state().phases);
	EXPECT_EQ(0, gate_state().expired);
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/*
 * The holder leaves meanwhile: nothing is granted to a thread that is not
 * there, and nothing hangs.
 */
TEST_F(sig, place_is_kept_while_all_leave)
{
	handle(handler, 0);
	WRITE_ONCE(handler_stays, true);
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	ASSERT_EQ(0, interrupt(&self->forker));
	ASSERT_TRUE(wait_until(READ_ONCE(runs) == 1));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(MEMORY)));
	start(&self->other, job_enter, ARG(MEMORY));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	latch_open(&handler_leave);
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish(&self->other));
}

/* But not without limit: a handler that does not return must not keep the others out. */
TEST_F(sig, place_runs_out)
{
	ASSERT_EQ(0, change_policy(ticket_hold, NSEC_PER_MSEC));
	handle(handler, 0);
	WRITE_ONCE(handler_stays, true);
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	ASSERT_EQ(0, interrupt(&self->forker));
	ASSERT_TRUE(wait_until(READ_ONCE(runs) == 1));
	EXPECT_EQ(0, run(&self->other, job_enter, ARG(MEMORY)));
	EXPECT_TRUE(wait_until(gate_state().expired == 1));
	EXPECT_EQ(0, gate_state().forkers);
	EXPECT_EQ(0, gate.head->closed);
	EXPECT_EQ(0, run(&self->other, job_leave, ARG(MEMORY)));
	latch_open(&handler_leave);
	/* It starts anew, and is a good fork like any other. */
	EXPECT_TRUE(wait_until(worker_waits(&self->forker, 1)));
	EXPECT_EQ(2, gate_state().phases);
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(FORKGATE_OUTCOME_GRANTED, run(&self->forker, job_outcome, NULL));
}

TEST_F(sig, no_place_is_kept_without_ticket_hold)
{
	ASSERT_EQ(0, change_policy(ticket_hold, 0));
	handle(handler, 0);
	WRITE_ONCE(handler_stays, true);
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	ASSERT_EQ(0, interrupt(&self->forker));
	ASSERT_TRUE(wait_until(READ_ONCE(runs) == 1));
	EXPECT_EQ(0, run(&self->other, job_enter, ARG(MEMORY)));
	EXPECT_EQ(0, run(&self->other, job_leave, ARG(MEMORY)));
	latch_open(&handler_leave);
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/* ms; a wait must not last so long between two signals, on a machine that others keep busy */
#define WAIT_MS		1000

/*
 * ends_amid_signals - does the worker's wait end while signals come on and on?
 * One that begins anew with each of them does not: they come much more often
 * than its time is up, but not before it sleeps.
 */
static bool ends_amid_signals(struct worker *worker)
{
	uint64_t limit = wait_limit();

	while (busy(worker)) {
		if (worker_waits(worker, 1))
			interrupt(worker);
		if (!wait_tick(limit))
			return false;
	}
	return true;
}

static void give_time(uint64_t backstop, uint64_t hold)
{
	struct forkgate_policy policy = gate_policy();

	policy.backstop = backstop;
	policy.ticket_hold = hold;
	gate_set_policy(&policy);
}

/* Its time asleep counts across restarts: signals must not extend a backstop without limit. */
TEST_F(sig, backstop_counts_across_restarts)
{
	give_time(WAIT_MS * NSEC_PER_MSEC, 100 * NSEC_PER_MSEC);
	handle(handler, 0);
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	start(&self->forker, job_fork, &fork_both);
	EXPECT_TRUE(ends_amid_signals(&self->forker));
	EXPECT_EQ(-EAGAIN, finish(&self->forker));
	EXPECT_EQ(FORKGATE_OUTCOME_TIMEOUT, run(&self->forker, job_outcome, NULL));
}

/* It does so even if the place is not kept, */
TEST_F(sig, backstop_counts_without_a_place)
{
	uint64_t begin, waited;

	give_time(WAIT_MS * NSEC_PER_MSEC, 0);
	handle(handler, 0);
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	start(&self->forker, job_fork, &fork_both);
	EXPECT_TRUE(ends_amid_signals(&self->forker));
	EXPECT_EQ(-EAGAIN, finish(&self->forker));
	EXPECT_EQ(FORKGATE_OUTCOME_TIMEOUT, run(&self->forker, job_outcome, NULL));
	/* The next wait has its whole time again. */
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(MEMORY)));
	give_time(10000 * NSEC_PER_MSEC, 0);
	begin = now_ms();
	ASSERT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	waited = gate_state().wait_ns / NSEC_PER_MSEC;
	EXPECT_LE(waited, now_ms() - begin + 1);
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/* and that of a prepare likewise. */
TEST_F(sig, timeout_counts_without_a_place)
{
	ASSERT_EQ(0, change_policy(timeout, WAIT_MS * NSEC_PER_MSEC));
	ASSERT_EQ(0, change_policy(ticket_hold, 0));
	handle(handler, 0);
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	start(&self->forker, job_prepare, ARG(BOTH));
	EXPECT_TRUE(ends_amid_signals(&self->forker));
	EXPECT_EQ(-ETIMEDOUT, finish(&self->forker));
	EXPECT_EQ(FORKGATE_OUTCOME_TIMEOUT, run(&self->forker, job_outcome, NULL));
}

/* A duration is the caller's for the whole wait, though every restart passes it again. */
static long job_prepare_timed(void *ms)
{
	return gate_prepare_with(BOTH, FORKGATE_TIMED, (uintptr_t)ms * NSEC_PER_MSEC, 0, NULL);
}

TEST_F(sig, duration_counts_across_restarts)
{
	ASSERT_EQ(0, change_policy(ticket_hold, 100 * NSEC_PER_MSEC));
	handle(handler, SA_RESTART);
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	start(&self->forker, job_prepare_timed, ARG(WAIT_MS));
	EXPECT_TRUE(ends_amid_signals(&self->forker));
	EXPECT_EQ(-ETIMEDOUT, finish(&self->forker));
}

TEST_F(sig, duration_counts_without_a_place)
{
	ASSERT_EQ(0, change_policy(ticket_hold, 0));
	handle(handler, SA_RESTART);
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	start(&self->forker, job_prepare_timed, ARG(WAIT_MS));
	EXPECT_TRUE(ends_amid_signals(&self->forker));
	EXPECT_EQ(-ETIMEDOUT, finish(&self->forker));
}

/* What a prepare has waited is not held against the fork of the handler that interrupts it. */
TEST_F(sig, fork_of_a_handler_has_its_own_time)
{
	const uint64_t backstop = 3000 * NSEC_PER_MSEC * slow_factor();

	give_time(backstop, 0);
	handle(handler_forks, 0);
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(MEMORY)));
	start(&self->forker, job_prepare, ARG(BOTH));
	ASSERT_TRUE(wait_until(gate_state().wait_ns > backstop + 100 * NSEC_PER_MSEC));
	ASSERT_TRUE(wait_until(worker_waits(&self->forker, 1)));
	ASSERT_EQ(0, interrupt(&self->forker));
	ASSERT_TRUE(wait_until(READ_ONCE(runs) == 1));
	/* Now the handler's own fork waits. */
	ASSERT_TRUE(wait_until(worker_waits(&self->forker, 1)));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish(&self->forker));
	EXPECT_EQ(0, child_exit(handler_child));
}

/* Nor do the forks of handlers make a wait begin anew, with or without a place. */
static int failures;

static void handler_fails_to_fork(int signo)
{
	if (raw_fork(0, child_whole) == -EAGAIN)
		__atomic_add_fetch(&failures, 1, __ATOMIC_SEQ_CST);
}

static bool ends_amid_forks_of_handlers(struct worker *worker)
{
	uint64_t limit = wait_limit();
	int sent = 0;

	while (busy(worker)) {
		if (READ_ONCE(failures) == sent && worker_waits(worker, 1)) {
			for (int i = 0; i < 10; i++)
				wait_tick(limit);
			interrupt(worker);
			sent++;
		}
		if (!wait_tick(limit))
			return false;
	}
	return true;
}

TEST_F(sig, backstop_counts_without_the_forks_of_handlers)
{
	give_time(100 * NSEC_PER_MSEC, 0);
	handle(handler_fails_to_fork, 0);
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	start(&self->forker, job_fork, &fork_both);
	EXPECT_TRUE(ends_amid_forks_of_handlers(&self->forker));
	EXPECT_EQ(-EAGAIN, finish(&self->forker));
}

TEST_F(sig, backstop_counts_without_the_forks_of_handlers_that_have_its_place)
{
	give_time(100 * NSEC_PER_MSEC, 100 * NSEC_PER_MSEC);
	handle(handler_fails_to_fork, 0);
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	start(&self->forker, job_fork, &fork_both);
	EXPECT_TRUE(ends_amid_forks_of_handlers(&self->forker));
	EXPECT_EQ(-EAGAIN, finish(&self->forker));
}

/* A profiler's periodic signal does not starve the fork. */
static int stop;

static long job_enter_on(void *unused)
{
	while (!READ_ONCE(stop)) {
		long ret = job_hold(ARG(MEMORY));

		if (!ret)
			ret = job_drop(ARG(MEMORY));
		if (ret)
			return ret;
	}
	return 0;
}

static long job_fork_profiled(void *unused)
{
	/* A fork that takes longer than the period never ends, also without us. */
	const uint64_t period = 20 * NSEC_PER_MSEC * slow_factor();
	struct itimerspec time = {
		.it_interval.tv_sec = period / NSEC_PER_SEC,
		.it_interval.tv_nsec = period % NSEC_PER_SEC,
		.it_value.tv_nsec = 1000000,
	};
	struct sigevent event = {
		.sigev_notify = SIGEV_THREAD_ID,
		.sigev_signo = SIGUSR1,
		._sigev_un._tid = sys_gettid(),
	};
	timer_t timer;
	int i, status = 0;

	if (timer_create(CLOCK_MONOTONIC, &event, &timer) || timer_settime(timer, 0, &time, NULL))
		return -errno;
	for (i = 0; i < 20 && !status; i++)
		status = child_exit(raw_fork(0, child_whole));
	timer_delete(timer);
	return status;
}

TEST_F(sig, periodic_signals_do_not_starve)
{
	handle(handler, SA_RESTART);
	start(&self->holder, job_enter_on, NULL);
	start(&self->other, job_enter_on, NULL);
	EXPECT_EQ(0, run(&self->forker, job_fork_profiled, NULL));
	WRITE_ONCE(stop, 1);
	EXPECT_EQ(0, finish(&self->holder));
	EXPECT_EQ(0, finish(&self->other));
	EXPECT_LT(0, runs);
}

/* Ignored and blocked signals do not interrupt at all. */
static long job_fork_blocking_signals(void *how)
{
	sigset_t all, old;
	long ret;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = job_fork(how);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return ret;
}

TEST_F(sig, blocked_signals_are_for_later)
{
	handle(handler, 0);
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(MEMORY)));
	start(&self->forker, job_fork_blocking_signals, &fork_both);
	ASSERT_TRUE(wait_until(worker_waits(&self->forker, 1)));
	ASSERT_EQ(0, interrupt(&self->forker));
	EXPECT_TRUE(wait_until(worker_waits(&self->forker, 1)));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(1, runs);
}

/*
 * Stop, freeze, kill: seen from outside
 */

/* A process with a holder, a fork that waits and a newcomer; goes on when the pipe says so */
static int scenario(int ready, int go)
{
	struct worker holder, forker, newcomer;
	char byte;

	if (gate_setup() < 0 || worker_new(&holder) || worker_new(&forker) || worker_new(&newcomer))
		return 1;
	if (run(&holder, job_hold, ARG(MEMORY)))
		return 2;
	start(&forker, job_fork_blocking_signals, &fork_both);
	if (!wait_until(worker_waits(&forker, 1)))
		return 3;
	start(&newcomer, job_enter, ARG(MEMORY));
	if (!wait_until(gate_state().blocked == 1 && task_asleep(newcomer.tid)))
		return 4;
	if (write(ready, "", 1) != 1 || read(go, &byte, 1) != 1)
		return 5;
	if (!wait_until(worker_waits(&forker, 1) && gate_state().blocked == 1))
		return 6;
	if (run(&holder, job_drop, ARG(MEMORY)))
		return 7;
	if (finish_fork(&forker))
		return 8;
	if (finish(&newcomer))
		return 9;
	return 0;
}

FIXTURE(process) {
	pid_t pid;
	int ready[2], go[2];
};

FIXTURE_SETUP(process)
{
	char byte;

	ASSERT_EQ(0, pipe(self->ready));
	ASSERT_EQ(0, pipe(self->go));
	self->pid = fork();
	ASSERT_LE(0, self->pid);
	if (!self->pid)
		_exit(scenario(self->ready[1], self->go[0]));
	close(self->ready[1]);
	ASSERT_EQ(1, read(self->ready[0], &byte, 1)) {
		TH_LOG("scenario ended with %d", child_exit(self->pid));
	}
}

FIXTURE_TEARDOWN(process)
{
	kill(self->pid, SIGKILL);
	kill(self->pid, SIGCONT);
}

TEST_F(process, waits_on)
{
	ASSERT_EQ(1, write(self->go[1], "", 1));
	EXPECT_EQ(0, child_exit(self->pid));
}

TEST_F(process, stops_and_continues)
{
	int status, i;

	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, kill(self->pid, SIGSTOP));
		ASSERT_EQ(self->pid, waitpid(self->pid, &status, WUNTRACED));
		ASSERT_TRUE(WIFSTOPPED(status));
		ASSERT_EQ(0, kill(self->pid, SIGCONT));
		ASSERT_EQ(self->pid, waitpid(self->pid, &status, WCONTINUED));
		ASSERT_TRUE(WIFCONTINUED(status));
	}
	ASSERT_EQ(1, write(self->go[1], "", 1));
	EXPECT_EQ(0, child_exit(self->pid));
}

TEST_F(process, is_killed)
{
	ASSERT_EQ(0, kill(self->pid, SIGKILL));
	EXPECT_EQ(CHILD_SIGNAL + SIGKILL, child_exit(self->pid));
}

TEST_F(process, is_killed_while_stopped)
{
	int status;

	ASSERT_EQ(0, kill(self->pid, SIGSTOP));
	ASSERT_EQ(self->pid, waitpid(self->pid, &status, WUNTRACED));
	ASSERT_EQ(0, kill(self->pid, SIGKILL));
	EXPECT_EQ(CHILD_SIGNAL + SIGKILL, child_exit(self->pid));
}

#define FREEZER		"/sys/fs/cgroup/forkgate_freezer"

static bool is_frozen(int yes)
{
	char text[256];

	if (read_file(FREEZER "/cgroup.events", text, sizeof(text)) <= 0)
		return false;
	return strstr(text, yes ? "frozen 1" : "frozen 0");
}

TEST_F(process, freezes_and_thaws)
{
	char text[32];
	int i;

	if (mkdir(FREEZER, 0755) && errno != EEXIST)
		SKIP(return, "no cgroup v2: %s", strerror(errno));
	snprintf(text, sizeof(text), "%d", self->pid);
	if (write_file(FREEZER "/cgroup.procs", text)) {
		rmdir(FREEZER);
		SKIP(return, "cannot enter a cgroup");
	}
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, write_file(FREEZER "/cgroup.freeze", "1"));
		EXPECT_TRUE(wait_until(is_frozen(1)));
		ASSERT_EQ(0, write_file(FREEZER "/cgroup.freeze", "0"));
		EXPECT_TRUE(wait_until(is_frozen(0)));
	}
	ASSERT_EQ(1, write(self->go[1], "", 1));
	EXPECT_EQ(0, child_exit(self->pid));
	rmdir(FREEZER);
}

TEST_HARNESS_MAIN
