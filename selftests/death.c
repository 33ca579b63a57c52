// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rule 9: the dead are released. A thread that exits, is killed, or leaves
 * the address space by exec while it is inside a section, holds a ticket,
 * waits to enter or waits to fork no longer counts; waiters are woken; the
 * abandonment is counted. (The guard "exit hook".)
 * Rule 10: exec discards everything.
 */
#include "forkgate_test.h"

FIXTURE(death) {
	struct worker victim, forker, other;
};

FIXTURE_SETUP(death)
{
	ASSERT_LE(0, fg_setup());
	ASSERT_EQ(0, worker_new(&self->victim));
	ASSERT_EQ(0, worker_new(&self->forker));
	ASSERT_EQ(0, worker_new(&self->other));
}

FIXTURE_TEARDOWN(death)
{
}

/*
 * Threads
 */

TEST_F(death, holder_exits)
{
	ASSERT_EQ(0, run(&self->victim, job_enter, ARG(FG_BOTH)));
	start(&self->forker, job_fork, &fork_both);
	ASSERT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	start(&self->victim, job_exit, NULL);
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(1, fg_state().abandoned);
	EXPECT_EQ(3, fg_state().threads);
	EXPECT_EQ(0, fg_state().holders_count);
	EXPECT_EQ(0, READ_ONCE(self->victim.slot->depth[0]));
}

static long job_pthread_exit(void *unused)
{
	pthread_exit(NULL);
	return 0;
}

TEST_F(death, holder_ends_through_libc)
{
	ASSERT_EQ(0, run(&self->victim, job_enter, ARG(FG_MEMORY)));
	start(&self->forker, job_fork, &fork_both);
	ASSERT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	start(&self->victim, job_pthread_exit, NULL);
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(1, fg_state().abandoned);
}

/* While nobody waits: the next fork does not count it either. */
TEST_F(death, holder_exits_before_the_fork)
{
	pid_t tid = self->victim.tid;

	ASSERT_EQ(0, run(&self->victim, job_enter, ARG(FG_BOTH)));
	start(&self->victim, job_exit, NULL);
	ASSERT_TRUE(wait_until(fg_gone(tid)));
	EXPECT_EQ(0, child_exit(run(&self->forker, job_fork, &fork_both)));
	EXPECT_EQ(1, fg_state().abandoned);
}

/* The last of several holders dies; or any other one. */
TEST_F(death, one_of_two_holders_exits)
{
	ASSERT_EQ(0, run(&self->victim, job_enter, ARG(FG_MEMORY)));
	ASSERT_EQ(0, run(&self->other, job_hold, ARG(FG_MEMORY)));
	start(&self->forker, job_fork, &fork_both);
	ASSERT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	start(&self->victim, job_exit, NULL);
	ASSERT_TRUE(wait_until(fg_state().abandoned == 1));
	EXPECT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	ASSERT_EQ(0, run(&self->other, job_drop, ARG(FG_MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

TEST_F(death, exit_outside_is_no_abandonment)
{
	pid_t tid = self->victim.tid;

	ASSERT_EQ(0, run(&self->victim, job_enter, ARG(FG_BOTH)));
	ASSERT_EQ(0, run(&self->victim, job_leave, ARG(FG_BOTH)));
	start(&self->victim, job_exit, NULL);
	ASSERT_TRUE(wait_until(fg_gone(tid)));
	EXPECT_TRUE(wait_until(fg_state().threads == 3));
	EXPECT_EQ(0, fg_state().abandoned);
}

TEST_F(death, ticket_holder_exits)
{
	ASSERT_EQ(0, run(&self->victim, job_prepare, ARG(FG_BOTH)));
	start(&self->other, job_enter, ARG(FG_MEMORY));
	ASSERT_TRUE(wait_until(fg_state().blocked == 1));
	start(&self->forker, job_fork, &fork_files);
	ASSERT_TRUE(wait_until(fg_waiting(&self->forker, 2)));
	start(&self->victim, job_exit, NULL);
	EXPECT_EQ(0, finish(&self->other));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(1, fg_state().abandoned);
	EXPECT_EQ(0, gate.head->closed);
}

/* A slot used again knows nothing of its former owner. */
TEST_F(death, slot_of_the_dead_is_clean)
{
	struct worker fresh;

	ASSERT_EQ(0, run(&self->victim, job_enter, ARG(FG_BOTH)));
	start(&self->victim, job_exit, NULL);
	ASSERT_TRUE(wait_until(fg_state().abandoned == 1));
	ASSERT_EQ(0, worker_new(&fresh));
	EXPECT_EQ(self->victim.slot, fresh.slot);
	EXPECT_EQ(0, fresh.slot->depth[0] | fresh.slot->depth[1]);
	EXPECT_EQ(fresh.tid, fresh.slot->tid);
}

/*
 * Processes that share the memory without being threads. Such a process uses
 * the thread-local storage of the worker that made it, which must keep still.
 */

static struct {
	int ready;
	int go;		/* futex */
} guest;

static void guest_ready(void)
{
	WRITE_ONCE(guest.ready, 1);
}

static void guest_wait(void)
{
	while (!READ_ONCE(guest.go))
		fg_futex(&guest.go, FUTEX_WAIT, 0, NULL);
}

static void guest_go(void)
{
	WRITE_ONCE(guest.go, 1);
	fg_futex(&guest.go, FUTEX_WAKE, 1, NULL);
}

static long job_guest(void *child)
{
	return spawn_vm(0, (child_fn)child);
}

static int enter_ready(unsigned int domains)
{
	if (fg_register() < 0)
		return 1;
	if (fg_enter(domains))
		return 2;
	guest_ready();
	guest_wait();
	return 0;
}

static int guest_exits_inside(void)
{
	int ret = enter_ready(FG_BOTH);

	syscall(__NR_exit_group, ret);
	return 0;
}

static int guest_execs_inside(void)
{
	int ret = enter_ready(FG_BOTH);

	if (!ret)
		fg_exec_helper("exit", "0");
	return ret ?: 3;
}

static int guest_execs_badly_inside(void)
{
	int ret = enter_ready(FG_BOTH);

	if (!ret)
		execl("./there-is-no-such-program", "none", NULL);
	/* Still here, and still inside. */
	if (fg_leave(FG_BOTH))
		return 4;
	return ret;
}

static int guest_execs_with_ticket(void)
{
	if (fg_register() < 0)
		return 1;
	if (fg_prepare(FG_BOTH))
		return 2;
	guest_ready();
	guest_wait();
	fg_exec_helper("exit", "0");
	return 3;
}

static int guest_enters(void)
{
	if (fg_register() < 0)
		return 1;
	guest_ready();
	guest_wait();
	return fg_enter(FG_MEMORY);
}

static int guest_forks(void)
{
	if (fg_register() < 0)
		return 1;
	guest_ready();
	return child_exit(raw_fork(0, child_nothing));
}

FIXTURE(sharer) {
	struct worker spawner, holder, forker, other;
};

FIXTURE_SETUP(sharer)
{
	ASSERT_LE(0, fg_setup());
	ASSERT_EQ(0, worker_spawn(&self->spawner));
	ASSERT_EQ(0, worker_new(&self->holder));
	ASSERT_EQ(0, worker_new(&self->forker));
	ASSERT_EQ(0, worker_new(&self->other));
}

FIXTURE_TEARDOWN(sharer)
{
}

#define SPAWN(child) run(&self->spawner, job_guest, (void *)(child))

TEST_F(sharer, exits_inside)
{
	pid_t pid = SPAWN(guest_exits_inside);

	ASSERT_TRUE(wait_until(READ_ONCE(guest.ready)));
	EXPECT_EQ(5, fg_state().threads);
	start(&self->forker, job_fork, &fork_both);
	ASSERT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	guest_go();
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, child_exit(pid));
	EXPECT_EQ(1, fg_state().abandoned);
}

TEST_F(sharer, is_killed_inside)
{
	pid_t pid = SPAWN(guest_exits_inside);

	ASSERT_TRUE(wait_until(READ_ONCE(guest.ready)));
	start(&self->forker, job_fork, &fork_both);
	ASSERT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	ASSERT_EQ(0, kill(pid, SIGKILL));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(CHILD_SIGNAL + SIGKILL, child_exit(pid));
	EXPECT_EQ(1, fg_state().abandoned);
}

TEST_F(sharer, execs_inside)
{
	pid_t pid = SPAWN(guest_execs_inside);

	ASSERT_TRUE(wait_until(READ_ONCE(guest.ready)));
	start(&self->forker, job_fork, &fork_both);
	ASSERT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	guest_go();
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, child_exit(pid));
	EXPECT_EQ(1, fg_state().abandoned);
	EXPECT_EQ(4, fg_state().threads);
}

/* An exec that fails leaves nothing. */
TEST_F(sharer, execs_badly_inside)
{
	pid_t pid = SPAWN(guest_execs_badly_inside);

	ASSERT_TRUE(wait_until(READ_ONCE(guest.ready)));
	start(&self->forker, job_fork, &fork_both);
	ASSERT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	guest_go();
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, child_exit(pid));
	EXPECT_EQ(0, fg_state().abandoned);
}

TEST_F(sharer, execs_with_a_ticket)
{
	pid_t pid = SPAWN(guest_execs_with_ticket);

	ASSERT_TRUE(wait_until(READ_ONCE(guest.ready)));
	start(&self->other, job_enter, ARG(FG_BOTH));
	ASSERT_TRUE(wait_until(fg_state().blocked == 1));
	guest_go();
	EXPECT_EQ(0, finish(&self->other));
	EXPECT_EQ(0, child_exit(pid));
	EXPECT_EQ(0, fg_state().forkers);
	EXPECT_EQ(0, gate.head->closed);
	EXPECT_EQ(1, fg_state().abandoned);
}

TEST_F(sharer, is_killed_with_a_ticket)
{
	pid_t pid = SPAWN(guest_execs_with_ticket);

	ASSERT_TRUE(wait_until(READ_ONCE(guest.ready)));
	start(&self->other, job_enter, ARG(FG_BOTH));
	ASSERT_TRUE(wait_until(fg_state().blocked == 1));
	ASSERT_EQ(0, kill(pid, SIGKILL));
	EXPECT_EQ(0, finish(&self->other));
	EXPECT_EQ(CHILD_SIGNAL + SIGKILL, child_exit(pid));
	EXPECT_EQ(0, gate.head->closed);
}

TEST_F(sharer, is_killed_while_it_waits_to_enter)
{
	pid_t pid = SPAWN(guest_enters);

	ASSERT_TRUE(wait_until(READ_ONCE(guest.ready)));
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(FG_BOTH)));
	guest_go();
	ASSERT_TRUE(wait_until(fg_state().blocked == 1));
	ASSERT_EQ(0, kill(pid, SIGKILL));
	EXPECT_EQ(CHILD_SIGNAL + SIGKILL, child_exit(pid));
	EXPECT_EQ(0, fg_state().blocked);
	EXPECT_EQ(0, child_exit(run(&self->forker, job_fork, &fork_both)));
	EXPECT_EQ(0, fg_state().holders_count);
	EXPECT_EQ(0, fg_state().abandoned);
}

TEST_F(sharer, is_killed_while_it_waits_to_fork)
{
	pid_t pid;

	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_MEMORY)));
	pid = SPAWN(guest_forks);
	ASSERT_TRUE(wait_until(fg_state().forkers == 1 && fg_asleep(pid)));
	start(&self->other, job_enter, ARG(FG_FILES));
	ASSERT_TRUE(wait_until(fg_state().blocked == 1));
	ASSERT_EQ(0, kill(pid, SIGKILL));
	EXPECT_EQ(CHILD_SIGNAL + SIGKILL, child_exit(pid));
	EXPECT_EQ(0, finish(&self->other));
	EXPECT_EQ(0, fg_state().forkers);
	EXPECT_EQ(0, gate.head->closed);
	EXPECT_EQ(0, run(&self->other, job_leave, ARG(FG_FILES)));
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(FG_MEMORY)));
	EXPECT_EQ(0, child_exit(run(&self->forker, job_fork, &fork_both)));
}

/* Another forker of the same phase goes on waiting. */
TEST_F(sharer, is_killed_in_a_phase_with_others)
{
	pid_t pid;

	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(FG_MEMORY)));
	pid = SPAWN(guest_forks);
	ASSERT_TRUE(wait_until(fg_state().forkers == 1 && fg_asleep(pid)));
	start(&self->forker, job_fork, &fork_both);
	ASSERT_TRUE(wait_until(fg_waiting(&self->forker, 2)));
	ASSERT_EQ(0, kill(pid, SIGKILL));
	EXPECT_EQ(CHILD_SIGNAL + SIGKILL, child_exit(pid));
	EXPECT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	EXPECT_EQ(FG_BOTH, gate.head->closed);
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(FG_MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/* The gate outlives the process that mapped it, while somebody still has the memory. */
static int guest_stays(void)
{
	if (fg_register() < 0)
		return 1;
	guest_wait();
	if (fg_enter(FG_BOTH) || fg_leave(FG_BOTH))
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
		if (fg_setup() < 0)
			_exit(1);
		status = spawn_vm(0, guest_stays);
		if (write(fds[1], &status, sizeof(status)) != sizeof(status))
			_exit(2);
		guest_go();
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

/* Everybody is somewhere: inside, waiting to fork, to enter, to enter more, to prepare. */
static int everybody_waits(struct cast *cast)
{
	if (fg_setup() < 0 || worker_new(&cast->holder) || worker_new(&cast->forker) ||
	    worker_new(&cast->newcomer) || worker_new(&cast->nested) ||
	    worker_new(&cast->preparer))
		return 1;
	if (run(&cast->holder, job_enter, ARG(FG_MEMORY)) ||
	    run(&cast->nested, job_enter, ARG(FG_MEMORY)))
		return 2;
	if (fg_prepare(FG_FILES))
		return 3;
	start(&cast->forker, job_fork, &fork_both);
	if (!wait_until(fg_waiting(&cast->forker, 2)))
		return 4;
	start(&cast->preparer, job_prepare, ARG(FG_BOTH));
	if (!wait_until(fg_waiting(&cast->preparer, 3)))
		return 5;
	start(&cast->newcomer, job_enter, ARG(FG_FILES));
	start(&cast->nested, job_enter, ARG(FG_FILES));
	return wait_until(fg_state().blocked == 2) ? 0 : 6;
}

static long job_exec(void *unused)
{
	return fg_exec_helper("exit", "7");
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

	if (fg_read_file(FG_DEBUGFS "/gates", text, sizeof(text)) <= 0)
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
			int ret = everybody_waits(&cast);

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
			TH_LOG("nobody waits: %d", child_exit(pid));
		}
		if (variant->how == KILLED) {
			EXPECT_TRUE(gate_listed(pid) || access(FG_DEBUGFS, R_OK));
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

		if (fg_setup() < 0 || worker_new(&forker) || fg_enter(FG_BOTH))
			_exit(1);
		start(&forker, job_fork_then_exit, NULL);
		if (!wait_until(fg_waiting(&forker, 1)))
			_exit(2);
		syscall(__NR_exit, 3);
	}
	EXPECT_EQ(0, child_exit(pid));
}

TEST_HARNESS_MAIN
