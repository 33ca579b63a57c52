// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rule 9: the dead are released. A thread that exits, is killed, or leaves
 * the address space by exec while it is inside a section, holds a ticket,
 * waits to enter or waits to fork no longer counts; waiters are woken; the
 * abandonment is counted. (The guard "exit hook".)
 * Rule 10: exec discards everything.
 */
#include "test/harness.h"

FIXTURE_WORKERS(death, victim, forker, other);

/*
 * Threads
 */

TEST_F(death, holder_exits)
{
	ASSERT_EQ(0, run(&self->victim, job_enter, ARG(BOTH)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	start(&self->victim, job_exit, NULL);
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(1, gate_state().abandoned);
	EXPECT_EQ(3, gate_state().threads);
	EXPECT_EQ(0, gate_state().holders_count);
	EXPECT_EQ(0, READ_ONCE(self->victim.slot->depth[0]));
}

static long job_pthread_exit(void *unused)
{
	pthread_exit(NULL);
	return 0;
}

TEST_F(death, holder_ends_through_libc)
{
	ASSERT_EQ(0, run(&self->victim, job_enter, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	start(&self->victim, job_pthread_exit, NULL);
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(1, gate_state().abandoned);
}

/* Before any fork waits: the next one does not count it either. */
TEST_F(death, holder_exits_before_the_fork)
{
	pid_t tid = self->victim.tid;

	ASSERT_EQ(0, run(&self->victim, job_enter, ARG(BOTH)));
	start(&self->victim, job_exit, NULL);
	ASSERT_TRUE(wait_until(task_ended(tid)));
	EXPECT_EQ(0, run_fork(&self->forker, &fork_both));
	EXPECT_EQ(1, gate_state().abandoned);
}

/* The last of several holders dies; or any other one. */
TEST_F(death, one_of_two_holders_exits)
{
	ASSERT_EQ(0, run(&self->victim, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->other, job_hold, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	start(&self->victim, job_exit, NULL);
	ASSERT_TRUE(wait_until(gate_state().abandoned == 1));
	EXPECT_TRUE(wait_until(worker_waits(&self->forker, 1)));
	ASSERT_EQ(0, run(&self->other, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

TEST_F(death, exit_outside_is_no_abandonment)
{
	pid_t tid = self->victim.tid;

	ASSERT_EQ(0, run(&self->victim, job_enter, ARG(BOTH)));
	ASSERT_EQ(0, run(&self->victim, job_leave, ARG(BOTH)));
	start(&self->victim, job_exit, NULL);
	ASSERT_TRUE(wait_until(task_ended(tid)));
	EXPECT_TRUE(wait_until(gate_state().threads == 3));
	EXPECT_EQ(0, gate_state().abandoned);
}

TEST_F(death, ticket_holder_exits)
{
	ASSERT_EQ(0, run(&self->victim, job_prepare, ARG(BOTH)));
	start(&self->other, job_enter, ARG(MEMORY));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_files, 2));
	start(&self->victim, job_exit, NULL);
	EXPECT_EQ(0, finish(&self->other));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(1, gate_state().abandoned);
	EXPECT_EQ(0, gate.head->closed);
}

/* A slot used again knows nothing of its former owner. */
TEST_F(death, slot_of_the_dead_is_clean)
{
	struct worker fresh;

	ASSERT_EQ(0, run(&self->victim, job_enter, ARG(BOTH)));
	start(&self->victim, job_exit, NULL);
	ASSERT_TRUE(wait_until(gate_state().abandoned == 1));
	ASSERT_EQ(0, worker_new(&fresh));
	EXPECT_EQ(self->victim.slot, fresh.slot);
	EXPECT_EQ(0, fresh.slot->depth[0] | fresh.slot->depth[1]);
	EXPECT_EQ(fresh.tid, fresh.slot->tid);
}

/*
 * Processes that share the memory without being threads. Such a process uses
 * the thread-local storage of the worker that made it, which must keep still.
 */

static int guest_ready, guest_go;	/* latches */

static long job_guest(void *child)
{
	return spawn_vm(0, (child_fn)child);
}

static int enter_ready(unsigned int domains)
{
	if (gate_register() < 0)
		return 1;
	if (gate_enter(domains))
		return 2;
	latch_open(&guest_ready);
	latch_wait(&guest_go);
	return 0;
}

static int guest_exits_inside(void)
{
	int ret = enter_ready(BOTH);

	syscall(__NR_exit_group, ret);
	return 0;
}

static int guest_execs_inside(void)
{
	int ret = enter_ready(BOTH);

	if (!ret)
		exec_helper("exit", "0");
	return ret ?: 3;
}

static int guest_execs_badly_inside(void)
{
	int ret = enter_ready(BOTH);

	if (!ret)
		execl("./there-is-no-such-program", "none", NULL);
	/* Still here, and still inside. */
	if (gate_leave(BOTH))
		return 4;
	return ret;
}

static int guest_execs_with_ticket(void)
{
	if (gate_register() < 0)
		return 1;
	if (gate_prepare(BOTH))
		return 2;
	latch_open(&guest_ready);
	latch_wait(&guest_go);
	exec_helper("exit", "0");
	return 3;
}

static int guest_enters(void)
{
	if (gate_register() < 0)
		return 1;
	latch_open(&guest_ready);
	latch_wait(&guest_go);
	return gate_enter(MEMORY);
}

static int guest_forks(void)
{
	if (gate_register() < 0)
		return 1;
	latch_open(&guest_ready);
	return child_exit(raw_fork(0, child_nothing));
}

FIXTURE(sharer) {
	struct worker spawner, holder, forker, other;
};

FIXTURE_SETUP(sharer)
{
	ASSERT_EQ(0, worker_spawn(&self->spawner));
	ASSERT_EQ(0, setup_workers(&self->holder, 3));
}

FIXTURE_TEARDOWN(sharer)
{
}

#define SPAWN(child) run(&self->spawner, job_guest, (void *)(child))

TEST_F(sharer, exits_inside)
{
	pid_t pid = SPAWN(guest_exits_inside);

	ASSERT_TRUE(wait_until(READ_ONCE(guest_ready)));
	EXPECT_EQ(5, gate_state().threads);
	ASSERT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	latch_open(&guest_go);
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, child_exit(pid));
	EXPECT_EQ(1, gate_state().abandoned);
}

TEST_F(sharer, is_killed_inside)
{
	pid_t pid = SPAWN(guest_exits_inside);

	ASSERT_TRUE(wait_until(READ_ONCE(guest_ready)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	ASSERT_EQ(0, kill(pid, SIGKILL));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(CHILD_SIGNAL + SIGKILL, child_exit(pid));
	EXPECT_EQ(1, gate_state().abandoned);
}

TEST_F(sharer, execs_inside)
{
	pid_t pid = SPAWN(guest_execs_inside);

	ASSERT_TRUE(wait_until(READ_ONCE(guest_ready)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	latch_open(&guest_go);
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, child_exit(pid));
	EXPECT_EQ(1, gate_state().abandoned);
	EXPECT_EQ(4, gate_state().threads);
}

/* An exec that fails leaves nothing. */
TEST_F(sharer, execs_badly_inside)
{
	pid_t pid = SPAWN(guest_execs_badly_inside);

	ASSERT_TRUE(wait_until(READ_ONCE(guest_ready)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	latch_open(&guest_go);
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, child_exit(pid));
	EXPECT_EQ(0, gate_state().abandoned);
}

TEST_F(sharer, execs_with_a_ticket)
{
	pid_t pid = SPAWN(guest_execs_with_ticket);

	ASSERT_TRUE(wait_until(READ_ONCE(guest_ready)));
	start(&self->other, job_enter, ARG(BOTH));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	latch_open(&guest_go);
	EXPECT_EQ(0, finish(&self->other));
	EXPECT_EQ(0, child_exit(pid));
	EXPECT_EQ(0, gate_state().forkers);
	EXPECT_EQ(0, gate.head->closed);
	EXPECT_EQ(1, gate_state().abandoned);
}

TEST_F(sharer, is_killed_with_a_ticket)
{
	pid_t pid = SPAWN(guest_execs_with_ticket);

	ASSERT_TRUE(wait_until(READ_ONCE(guest_ready)));
	start(&self->other, job_enter, ARG(BOTH));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	ASSERT_EQ(0, kill(pid, SIGKILL));
	EXPECT_EQ(0, finish(&self->other));
	EXPECT_EQ(CHILD_SIGNAL + SIGKILL, child_exit(pid));
	EXPECT_EQ(0, gate.head->closed);
}

TEST_F(sharer, is_killed_while_it_waits_to_enter)
{
	pid_t pid = SPAWN(guest_enters);

	ASSERT_TRUE(wait_until(READ_ONCE(guest_ready)));
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(BOTH)));
	latch_open(&guest_go);
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	ASSERT_EQ(0, kill(pid, SIGKILL));
	EXPECT_EQ(CHILD_SIGNAL + SIGKILL, child_exit(pid));
	EXPECT_EQ(0, gate_state().blocked);
	EXPECT_EQ(0, run_fork(&self->forker, &fork_both));
	EXPECT_EQ(0, gate_state().holders_count);
	EXPECT_EQ(0, gate_state().abandoned);
}

TEST_F(sharer, is_killed_while_it_waits_to_fork)
{
	pid_t pid;

	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	pid = SPAWN(guest_forks);
	ASSERT_TRUE(wait_until(gate_state().forkers == 1 && task_asleep(pid)));
	start(&self->other, job_enter, ARG(FILES));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	ASSERT_EQ(0, kill(pid, SIGKILL));
	EXPECT_EQ(CHILD_SIGNAL + SIGKILL, child_exit(pid));
	EXPECT_EQ(0, finish(&self->other));
	EXPECT_EQ(0, gate_state().forkers);
	EXPECT_EQ(0, gate.head->closed);
	EXPECT_EQ(0, run(&self->other, job_leave, ARG(FILES)));
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, run_fork(&self->forker, &fork_both));
}

/* Another forker of the same phase goes on waiting. */
TEST_F(sharer, is_killed_in_a_phase_with_others)
{
	pid_t pid;

	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(MEMORY)));
	pid = SPAWN(guest_forks);
	ASSERT_TRUE(wait_until(gate_state().forkers == 1 && task_asleep(pid)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_both, 2));
	ASSERT_EQ(0, kill(pid, SIGKILL));
	EXPECT_EQ(CHILD_SIGNAL + SIGKILL, child_exit(pid));
	EXPECT_TRUE(wait_until(worker_waits(&self->forker, 1)));
	EXPECT_EQ(BOTH, gate.head->closed);
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/* The gate outlives the process that mapped it while another still has the memory. */
static int guest_stays(void)
{
	if (gate_register() < 0)
		return 1;
	latch_wait(&guest_go);
	if (gate_enter(BOTH) || gate_leave(BOTH))
		return 2;
	return child_exit(raw_fork(0, child_nothing));
}

TEST(gate_outlives_its_process)
{
	int fds[2], status = -1;
	pid_t pid;

	ASSERT_EQ(0, prctl(PR_SET_CHILD_SUBREAPER, 1));
	ASSERT_EQ(0, pipe(fds));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		if (gate_setup() < 0)
			_exit(1);
		status = spawn_vm(0, guest_stays);
		if (write(fds[1], &status, sizeof(status)) != sizeof(status))
			_exit(2);
		latch_open(&guest_go);
		_exit(0);
	}
	ASSERT_EQ(sizeof(status), read(fds[0], &status, sizeof(status)));
	EXPECT_EQ(0, child_exit(pid));
	EXPECT_EQ(0, child_exit(status));
}

/*
 * Whole processes: by exec and by SIGKILL, in whatever state their threads are
 */

struct cast {
	struct worker holder, forker, newcomer, nested, preparer;
};

/* One thread in every state: inside, waiting to fork, to enter, to enter more, to prepare. */
static int all_wait(struct cast *cast)
{
	if (setup_workers(&cast->holder, 5))
		return 1;
	if (run(&cast->holder, job_enter, ARG(MEMORY)) ||
	    run(&cast->nested, job_enter, ARG(MEMORY)))
		return 2;
	if (gate_prepare(FILES))
		return 3;
	start(&cast->forker, job_fork, &fork_both);
	if (!wait_until(worker_waits(&cast->forker, 2)))
		return 4;
	start(&cast->preparer, job_prepare, ARG(BOTH));
	if (!wait_until(worker_waits(&cast->preparer, 3)))
		return 5;
	start(&cast->newcomer, job_enter, ARG(FILES));
	start(&cast->nested, job_enter, ARG(FILES));
	return wait_until(gate_state().blocked == 2) ? 0 : 6;
}

static long job_exec(void *unused)
{
	return exec_helper("exit", "7");
}

enum how { KILLED, EXIT_GROUP, EXEC_MAIN, EXEC_HOLDER };

FIXTURE(whole) {
};

FIXTURE_VARIANT(whole) {
	enum how how;
	int status;
};

FIXTURE_VARIANT_ADD(whole, killed) { .how = KILLED, .status = CHILD_SIGNAL + SIGKILL };
FIXTURE_VARIANT_ADD(whole, exits) { .how = EXIT_GROUP, .status = 7 };
FIXTURE_VARIANT_ADD(whole, execs) { .how = EXEC_MAIN, .status = 7 };
FIXTURE_VARIANT_ADD(whole, execs_in_a_holder) { .how = EXEC_HOLDER, .status = 7 };

FIXTURE_SETUP(whole)
{
}

FIXTURE_TEARDOWN(whole)
{
}

/* gate_listed - does the list of all gates still know that process? */
static bool gate_listed(pid_t pid)
{
	static char text[65536];
	char word[32];

	if (read_file(DEBUGFS "/gates", text, sizeof(text)) <= 0)
		return false;
	snprintf(word, sizeof(word), "gate tgid=%d ", pid);
	return strstr(text, word);
}

TEST_F(whole, goes_away)
{
	int fds[2], i;
	pid_t pid;
	char byte;

	for (i = 0; i < 5; i++) {
		ASSERT_EQ(0, pipe(fds));
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid) {
			struct cast cast;
			int ret = all_wait(&cast);

			if (ret || write(fds[1], "", 1) != 1)
				_exit(ret);
			switch (variant->how) {
			case KILLED:
				pause();
				break;
			case EXIT_GROUP:
				_exit(7);
			case EXEC_HOLDER:
				start(&cast.holder, job_exec, NULL);
				finish(&cast.holder);
				break;
			default:
				job_exec(NULL);
			}
			_exit(9);
		}
		close(fds[1]);
		ASSERT_EQ(1, read(fds[0], &byte, 1)) {
			TH_LOG("they do not wait: %d", child_exit(pid));
		}
		if (variant->how == KILLED) {
			EXPECT_TRUE(gate_listed(pid) || access(DEBUGFS, R_OK));
			ASSERT_EQ(0, kill(pid, SIGKILL));
		}
		EXPECT_EQ(variant->status, child_exit(pid));
		EXPECT_FALSE(gate_listed(pid));
		close(fds[0]);
	}
}

/* The first thread of a process ends inside a section; the others live on. */
static long job_fork_then_exit(void *unused)
{
	_exit(child_exit(raw_fork(0, child_whole)));
	return 0;
}

TEST(leader_exits_inside)
{
	pid_t pid = fork();

	ASSERT_LE(0, pid);
	if (!pid) {
		struct worker forker;

		if (gate_setup() < 0 || worker_new(&forker) || gate_enter(BOTH))
			_exit(1);
		start(&forker, job_fork_then_exit, NULL);
		if (!wait_until(worker_waits(&forker, 1)))
			_exit(2);
		syscall(__NR_exit, 3);
	}
	EXPECT_EQ(0, child_exit(pid));
}

TEST_HARNESS_MAIN
