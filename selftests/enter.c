// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rule 5: only newcomers are kept out by a drain. A thread inside any section
 * may enter more, of either domain; only a copy in progress, or a granted
 * ticket, of the same domain makes it wait. A ticket's holder passes.
 * Rule 2: a fork waits for what was entered during its drain.
 *
 * In these tests "ticket" and "copy" are stand-ins for each other: a granted
 * ticket keeps all others out as a copy does, and lasts as long as the test
 * likes. schedule.c has the copies.
 */
#include "test/handler.h"
#include "test/harness.h"

FIXTURE_WORKERS(enter, holder, forker, other);

static long job_enter_call(void *domains)
{
	return gate_enter_by_call((uintptr_t)domains, 0);
}

static long job_leave_call(void *domains)
{
	return gate_leave_by_call((uintptr_t)domains);
}

/*
 * Open
 */

TEST_F(enter, both_count_one_level_each)
{
	EXPECT_EQ(0, gate_enter(BOTH));
	EXPECT_EQ(1, slot->depth[0]);
	EXPECT_EQ(1, slot->depth[1]);
	EXPECT_EQ(0, gate_enter_by_call(BOTH, 0));
	EXPECT_EQ(2, slot->depth[0]);
	EXPECT_EQ(2, slot->depth[1]);
	EXPECT_EQ(0, gate_leave_by_call(BOTH));
	EXPECT_EQ(0, gate_leave(BOTH));
	EXPECT_EQ(0, slot->depth[0] | slot->depth[1]);
}

TEST_F(enter, try_while_open)
{
	EXPECT_EQ(0, gate_enter_flags(BOTH, FORKGATE_NONBLOCK));
	EXPECT_EQ(1, slot->depth[0]);
	EXPECT_EQ(0, gate_enter_by_call(BOTH, FORKGATE_NONBLOCK));
	EXPECT_EQ(2, slot->depth[0]);
	EXPECT_EQ(0, gate_leave(BOTH));
	EXPECT_EQ(0, gate_leave(BOTH));
}

/* A section made by calls alone counts as one made by stores. */
TEST_F(enter, calls_count)
{
	ASSERT_EQ(0, run(&self->holder, job_enter_call, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	EXPECT_EQ(0, run(&self->holder, job_leave_call, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/*
 * Newcomers during a drain
 */

TEST_F(enter, newcomer_waits)
{
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	start(&self->other, job_enter, ARG(MEMORY));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	/* It is not inside, and its slot does not say so. */
	EXPECT_EQ(0, READ_ONCE(self->other.slot->depth[0]));
	EXPECT_EQ(1, gate_state().holders_count);
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish(&self->other));
	EXPECT_EQ(1, self->other.slot->depth[0]);
	EXPECT_EQ(0, gate_state().blocked);
	EXPECT_EQ(0, run(&self->other, job_leave, ARG(MEMORY)));
}

/* The same without COUNTED: the kernel adds the levels when it admits. */
TEST_F(enter, newcomer_by_call_waits)
{
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	start(&self->other, job_enter_call, ARG(BOTH));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	EXPECT_EQ(0, READ_ONCE(self->other.slot->depth[0]));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish(&self->other));
	EXPECT_EQ(1, self->other.slot->depth[0]);
	EXPECT_EQ(1, self->other.slot->depth[1]);
	EXPECT_EQ(0, run(&self->other, job_leave, ARG(BOTH)));
}

TEST_F(enter, newcomer_of_both_waits_for_one)
{
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(FILES)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_files, 1));
	start(&self->other, job_enter, ARG(BOTH));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	EXPECT_EQ(0, READ_ONCE(self->other.slot->depth[0]));
	EXPECT_EQ(0, READ_ONCE(self->other.slot->depth[1]));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(FILES)));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish(&self->other));
	EXPECT_EQ(0, run(&self->other, job_leave, ARG(BOTH)));
}

TEST_F(enter, newcomer_of_the_other_domain_passes)
{
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(FILES)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_files, 1));
	EXPECT_EQ(FILES, gate.head->closed);
	EXPECT_EQ(0, run(&self->other, job_enter, ARG(MEMORY)));
	EXPECT_EQ(0, run(&self->other, job_leave, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(FILES)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

TEST_F(enter, newcomer_does_not_wait_nonblocking)
{
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	EXPECT_EQ(-EBUSY, run(&self->other, job_tryenter, ARG(BOTH)));
	EXPECT_EQ(0, self->other.slot->depth[0]);
	EXPECT_EQ(0, self->other.slot->depth[1]);
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, run(&self->other, job_tryenter, ARG(BOTH)));
	EXPECT_EQ(0, run(&self->other, job_leave, ARG(BOTH)));
}

static long job_tryenter_call(void *domains)
{
	return gate_enter_by_call((uintptr_t)domains, FORKGATE_NONBLOCK);
}

TEST_F(enter, newcomer_by_call_does_not_wait_nonblocking)
{
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	EXPECT_EQ(-EBUSY, run(&self->other, job_tryenter_call, ARG(MEMORY)));
	EXPECT_EQ(0, self->other.slot->depth[0]);
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/* A level that is given back was left: that must wake the fork that had seen it. */
TEST_F(enter, level_given_back_wakes_the_fork)
{
	ASSERT_EQ(0, run(&self->holder, job_count, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	/* The entry goes on from its store to the test of "closed". */
	start(&self->holder, job_admit, ARG(MEMORY));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish(&self->holder));
	EXPECT_EQ(1, self->holder.slot->depth[0]);
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
}

static long job_try_admit(void *domains)
{
	return gate_admit((uintptr_t)domains, FORKGATE_NONBLOCK);
}

TEST_F(enter, refused_try_wakes_the_fork)
{
	ASSERT_EQ(0, run(&self->holder, job_count, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	EXPECT_EQ(-EBUSY, run(&self->holder, job_try_admit, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, self->holder.slot->depth[0]);
}

/* patience 0: newcomers are never kept out by a drain, and the fork sees them. */
TEST_F(enter, newcomer_passes_without_patience)
{
	ASSERT_EQ(0, change_policy(patience, 0));
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	ASSERT_EQ(0, run(&self->other, job_hold, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(MEMORY)));
	EXPECT_TRUE(wait_until(worker_waits(&self->forker, 1)));
	ASSERT_EQ(0, run(&self->other, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/*
 * Nested entries during a drain
 */

FIXTURE_WORKERS(nested, holder, other, forker);

FIXTURE_VARIANT(nested) {
	unsigned int outer, inner;
	struct fork_how *how;
	unsigned int needs;
};

#define NESTED(name, outer_domain, inner_domain, fork, need)		\
	FIXTURE_VARIANT_ADD(nested, name) {				\
		.outer = outer_domain,					\
		.inner = inner_domain,					\
		.how = &(fork),						\
		.needs = need,						\
	}

NESTED(memory_memory, MEMORY, MEMORY, fork_both, BOTH);
NESTED(memory_files, MEMORY, FILES, fork_both, BOTH);
NESTED(files_memory, FILES, MEMORY, fork_both, BOTH);
NESTED(files_files, FILES, FILES, fork_both, BOTH);
NESTED(memory_both, MEMORY, BOTH, fork_both, BOTH);
NESTED(both_files, BOTH, FILES, fork_both, BOTH);
NESTED(memory_memory_fork_memory, MEMORY, MEMORY, fork_memory, MEMORY);
NESTED(memory_files_fork_memory, MEMORY, FILES, fork_memory, MEMORY);
NESTED(files_memory_fork_memory, FILES, MEMORY, fork_memory, MEMORY);
NESTED(memory_files_fork_files, MEMORY, FILES, fork_files, FILES);
NESTED(files_memory_fork_files, FILES, MEMORY, fork_files, FILES);
NESTED(files_files_fork_files, FILES, FILES, fork_files, FILES);

/*
 * A thread enters more during the drain, after the scan may have passed its
 * slot. Whichever section it leaves first: the fork waits while it is inside
 * any of what the fork needs.
 */
static void nested_entry(struct __test_metadata *_metadata, struct worker *holder,
			 struct worker *other, struct worker *forker, unsigned int outer,
			 unsigned int inner, struct fork_how *how, unsigned int needs,
			 bool inner_first)
{
	unsigned int first = inner_first ? inner : outer;
	unsigned int second = inner_first ? outer : inner;
	bool over;

	/* Another thread keeps the fork waiting, in the domains that it needs. */
	ASSERT_EQ(0, run(other, job_enter, ARG(needs)));
	ASSERT_EQ(0, run(holder, job_enter, ARG(outer)));
	ASSERT_TRUE(fork_waits(forker, how, 1));
	ASSERT_EQ(0, run(holder, job_hold, ARG(inner)));
	EXPECT_EQ(0, gate_state().blocked);
	ASSERT_EQ(0, run(other, job_leave, ARG(needs)));
	EXPECT_TRUE(wait_until(worker_waits(forker, 1)));
	ASSERT_EQ(0, run(holder, inner_first ? job_drop : job_leave, ARG(first)));
	over = !(second & needs);
	EXPECT_EQ(over ? 0 : 1, over ? finish_fork(forker) : wait_until(worker_waits(forker, 1)));
	ASSERT_EQ(0, run(holder, inner_first ? job_leave : job_drop, ARG(second)));
	EXPECT_EQ(0, over ? 0 : finish_fork(forker));
	EXPECT_EQ(0, holder->slot->depth[0] | holder->slot->depth[1]);
}

TEST_F(nested, inner_left_first)
{
	nested_entry(_metadata, &self->holder, &self->other, &self->forker, variant->outer,
		     variant->inner, variant->how, variant->needs, true);
}

TEST_F(nested, outer_left_first)
{
	nested_entry(_metadata, &self->holder, &self->other, &self->forker, variant->outer,
		     variant->inner, variant->how, variant->needs, false);
}

/*
 * Inside one domain, a thread goes in and out of the other while the fork
 * waits for another holder.
 */
TEST_F(nested, in_and_out_again)
{
	int i;

	ASSERT_EQ(0, run(&self->other, job_hold, ARG(variant->needs)));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(variant->outer)));
	ASSERT_TRUE(fork_waits(&self->forker, variant->how, 1));
	for (i = 0; i < 50; i++) {
		ASSERT_EQ(0, run(&self->holder, job_enter, ARG(variant->inner)));
		ASSERT_EQ(0, run(&self->holder, job_leave, ARG(variant->inner)));
	}
	EXPECT_TRUE(wait_until(worker_waits(&self->forker, 1)));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(variant->outer)));
	EXPECT_TRUE(wait_until(worker_waits(&self->forker, 1)));
	ASSERT_EQ(0, run(&self->other, job_drop, ARG(variant->needs)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/*
 * Granted: all wait, except for the other domain and the holder of the ticket
 */

TEST_F(enter, ticket_keeps_newcomers_out)
{
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(BOTH)));
	start(&self->other, job_enter, ARG(FILES));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	ASSERT_EQ(0, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, finish(&self->other));
	EXPECT_EQ(1, self->other.slot->depth[1]);
	EXPECT_EQ(0, run(&self->other, job_leave, ARG(FILES)));
}

TEST_F(enter, ticket_keeps_nested_entries_of_its_domain_out)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FILES)));
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(MEMORY)));
	start(&self->holder, job_enter, ARG(MEMORY));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	EXPECT_EQ(0, READ_ONCE(self->holder.slot->depth[0]));
	EXPECT_EQ(1, READ_ONCE(self->holder.slot->depth[1]));
	ASSERT_EQ(0, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, finish(&self->holder));
	EXPECT_EQ(1, self->holder.slot->depth[0]);
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(BOTH)));
}

TEST_F(enter, ticket_leaves_the_other_domain_alone)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FILES)));
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(MEMORY)));
	EXPECT_EQ(0, run(&self->holder, job_enter, ARG(FILES)));
	EXPECT_EQ(0, run(&self->other, job_enter, ARG(FILES)));
	EXPECT_EQ(0, run(&self->other, job_leave, ARG(FILES)));
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(FILES)));
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(FILES)));
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
}

TEST_F(enter, ticket_refuses_tries)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FILES)));
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(MEMORY)));
	EXPECT_EQ(-EBUSY, run(&self->other, job_tryenter, ARG(MEMORY)));
	EXPECT_EQ(-EBUSY, run(&self->holder, job_tryenter, ARG(MEMORY)));
	EXPECT_EQ(0, self->holder.slot->depth[0]);
	EXPECT_EQ(1, self->holder.slot->depth[1]);
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(FILES)));
}

TEST_F(enter, holder_of_a_ticket_passes)
{
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(BOTH)));
	EXPECT_EQ(0, run(&self->forker, job_enter, ARG(BOTH)));
	EXPECT_EQ(0, run(&self->forker, job_tryenter, ARG(MEMORY)));
	EXPECT_EQ(2, self->forker.slot->depth[0]);
	EXPECT_EQ(0, run(&self->forker, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, run(&self->forker, job_leave, ARG(BOTH)));
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
}

/* Also as a newcomer, and past the drain of another forker: no other is granted meanwhile. */
TEST_F(enter, holder_of_a_ticket_passes_the_drain_of_another)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->other, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(FILES)));
	ASSERT_TRUE(fork_waits(&self->other, &fork_memory, 2));
	EXPECT_EQ(0, run(&self->forker, job_enter, ARG(MEMORY)));
	EXPECT_EQ(0, run(&self->forker, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->other));
	EXPECT_EQ(0, run(&self->other, job_leave, ARG(MEMORY)));
}

TEST_F(enter, patience_0_does_not_open_a_ticket)
{
	ASSERT_EQ(0, change_policy(patience, 0));
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(BOTH)));
	start(&self->other, job_enter, ARG(MEMORY));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, finish(&self->other));
	EXPECT_EQ(0, run(&self->other, job_leave, ARG(MEMORY)));
}

/* Many at once, more than one batch of released newcomers. */
TEST_F(enter, crowd_is_let_in)
{
	static struct worker crowd[150];
	int i;

	for (i = 0; i < ARRAY_SIZE(crowd); i++)
		ASSERT_EQ(0, worker_new(&crowd[i]));
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(BOTH)));
	for (i = 0; i < ARRAY_SIZE(crowd); i++)
		start(&crowd[i], job_enter, ARG(i % 3 + 1));
	ASSERT_TRUE(wait_until(gate_state().blocked == ARRAY_SIZE(crowd)));
	ASSERT_EQ(0, run(&self->forker, job_release, NULL));
	for (i = 0; i < ARRAY_SIZE(crowd); i++) {
		EXPECT_EQ(0, finish(&crowd[i]));
		EXPECT_EQ(!!(MEMORY & (i % 3 + 1)), crowd[i].slot->depth[0]);
		EXPECT_EQ(!!(FILES & (i % 3 + 1)), crowd[i].slot->depth[1]);
	}
	EXPECT_EQ(ARRAY_SIZE(crowd), gate_state().holders_count);
	ASSERT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	for (i = 0; i < ARRAY_SIZE(crowd); i++)
		EXPECT_EQ(0, run(&crowd[i], job_leave, ARG(i % 3 + 1)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/*
 * Signal handlers that interrupt an entry
 */

static struct {
	int depth[2];	/* of the thread that runs the handler */
	long result;
	int runs;
	bool begun;
} handled;

/* A handler that has a section of its own */
static void handler_enter(int signo)
{
	handled.depth[0] = slot->depth[0];
	handled.depth[1] = slot->depth[1];
	WRITE_ONCE(handled.begun, true);
	handled.result = gate_enter(MEMORY);
	if (!handled.result)
		handled.result = gate_leave(MEMORY);
	__atomic_add_fetch(&handled.runs, 1, __ATOMIC_SEQ_CST);
}

static void handler_look(int signo)
{
	handled.depth[0] = slot->depth[0];
	handled.depth[1] = slot->depth[1];
	__atomic_add_fetch(&handled.runs, 1, __ATOMIC_SEQ_CST);
}

/* expect_handler - let it begin with nothing noted */
static void expect_handler(void (*function)(int signo), int flags)
{
	memset(&handled, 0, sizeof(handled));
	handle(function, flags);
}

/* The gate is open: nothing to it. */
TEST_F(enter, handler_between_store_and_test_while_open)
{
	expect_handler(handler_enter, 0);
	EXPECT_EQ(0, run(&self->other, job_enter_interrupted, ARG(MEMORY)));
	EXPECT_EQ(1, handled.runs);
	EXPECT_EQ(1, handled.depth[0]);
	EXPECT_EQ(0, handled.result);
	EXPECT_EQ(1, self->other.slot->depth[0]);
	EXPECT_EQ(0, run(&self->other, job_leave, ARG(MEMORY)));
}

/*
 * The fork waits, and its scan has not passed the slot: the entry that was
 * interrupted is one of a newcomer, so is that of the handler.
 */
TEST_F(enter, handler_between_store_and_test_during_a_drain)
{
	bool blocked;

	expect_handler(handler_enter, 0);
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	start(&self->other, job_enter_interrupted, ARG(MEMORY));
	/* Either it waits, or it was taken for one that is inside already and the fork sees it. */
	ASSERT_TRUE(wait_until((blocked = gate_state().blocked == 1) || !busy(&self->other)));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(MEMORY)));
	if (blocked) {
		EXPECT_EQ(0, finish_fork(&self->forker));
		EXPECT_EQ(0, finish(&self->other));
		EXPECT_EQ(0, run(&self->other, job_leave, ARG(MEMORY)));
	} else {
		EXPECT_TRUE(wait_until(worker_waits(&self->forker, 1)));
		EXPECT_EQ(0, finish(&self->other));
		EXPECT_EQ(0, run(&self->other, job_leave, ARG(MEMORY)));
		EXPECT_EQ(0, finish_fork(&self->forker));
	}
	EXPECT_EQ(1, handled.runs);
	EXPECT_EQ(0, handled.result);
	EXPECT_EQ(0, self->other.slot->depth[0]);
}

/*
 * The scan has passed the slot: all its levels, also the one stored by the
 * interrupted entry, are given back. The handler's entry waits although the
 * depth made it look nested. (The guard "test of closed on nested entries".)
 */
TEST_F(enter, nested_entries_test_closed)
{
	struct worker *early = &self->holder, *late = &self->other;
	unsigned int i;

	/* The scan passes the lower slot while the thread of the higher one is inside. */
	if (early->slot > late->slot) {
		early = &self->other;
		late = &self->holder;
	}
	for (i = 1; i < 3; i++) {
		expect_handler(handler_enter, 0);
		ASSERT_EQ(0, run(late, job_hold, ARG(MEMORY)));
		ASSERT_TRUE(fork_waits(&self->forker, i == 1 ? &fork_both : &fork_memory, 1));
		start(early, job_enter_interrupted, ARG(MEMORY));
		ASSERT_TRUE(wait_until(gate_state().blocked == 1));
		EXPECT_EQ(0, READ_ONCE(handled.runs));
		EXPECT_EQ(0, READ_ONCE(early->slot->depth[0]));
		ASSERT_EQ(0, run(late, job_drop, ARG(MEMORY)));
		EXPECT_EQ(0, finish_fork(&self->forker));
		EXPECT_EQ(0, finish(early));
		EXPECT_EQ(1, handled.runs);
		EXPECT_EQ(0, handled.result);
		EXPECT_EQ(1, early->slot->depth[0]);
		EXPECT_EQ(0, run(early, job_leave, ARG(MEMORY)));
	}
}

/*
 * The same while everything is kept out: the outermost entry was stored too
 * late for any scan to see it.
 */
TEST_F(enter, nested_entries_test_closed_during_a_ticket)
{
	expect_handler(handler_enter, 0);
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(BOTH)));
	start(&self->other, job_enter_interrupted, ARG(MEMORY));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	EXPECT_EQ(0, READ_ONCE(handled.runs));
	ASSERT_EQ(0, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, finish(&self->other));
	EXPECT_EQ(1, handled.runs);
	EXPECT_EQ(0, handled.result);
	EXPECT_EQ(1, self->other.slot->depth[0]);
	EXPECT_EQ(0, run(&self->other, job_leave, ARG(MEMORY)));
}

FIXTURE_WORKERS(signal, forker, other);

FIXTURE_VARIANT(signal) {
	int flags;
	bool call;
};

FIXTURE_VARIANT_ADD(signal, restart) { .flags = SA_RESTART };
FIXTURE_VARIANT_ADD(signal, no_restart) { .flags = 0 };
FIXTURE_VARIANT_ADD(signal, restart_by_call) { .flags = SA_RESTART, .call = true };
FIXTURE_VARIANT_ADD(signal, no_restart_by_call) { .flags = 0, .call = true };

/* A signal while the entry waits: the handler runs outside, then the entry goes on waiting. */
TEST_F(signal, during_a_blocked_entry)
{
	expect_handler(handler_look, variant->flags);
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(BOTH)));
	start(&self->other, variant->call ? job_enter_call : job_enter, ARG(BOTH));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1 && task_asleep(self->other.tid)));
	ASSERT_EQ(0, interrupt(&self->other));
	ASSERT_TRUE(wait_until(READ_ONCE(handled.runs) == 1));
	EXPECT_EQ(0, handled.depth[0] | handled.depth[1]);
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	EXPECT_TRUE(busy(&self->other));
	ASSERT_EQ(0, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, finish(&self->other));
	EXPECT_EQ(1, self->other.slot->depth[0]);
	EXPECT_EQ(1, self->other.slot->depth[1]);
	EXPECT_EQ(0, run(&self->other, job_leave, ARG(BOTH)));
}

/* Inside the other domain, and the handler enters too. */
TEST_F(signal, during_a_blocked_nested_entry)
{
	expect_handler(handler_enter, variant->flags);
	ASSERT_EQ(0, run(&self->other, job_enter, ARG(FILES)));
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(MEMORY)));
	start(&self->other, variant->call ? job_enter_call : job_enter, ARG(MEMORY));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1 && task_asleep(self->other.tid)));
	ASSERT_EQ(0, interrupt(&self->other));
	/* Now the handler's own entry waits. */
	ASSERT_TRUE(wait_until(READ_ONCE(handled.begun) && gate_state().blocked == 1));
	EXPECT_EQ(0, READ_ONCE(handled.runs));
	ASSERT_EQ(0, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, finish(&self->other));
	EXPECT_EQ(1, handled.runs);
	EXPECT_EQ(0, handled.depth[0]);
	EXPECT_EQ(1, handled.depth[1]);
	EXPECT_EQ(0, handled.result);
	EXPECT_EQ(1, self->other.slot->depth[0]);
	EXPECT_EQ(1, self->other.slot->depth[1]);
	EXPECT_EQ(0, run(&self->other, job_leave, ARG(BOTH)));
}

/* Many signals into blocked entries that are released meanwhile: no level is lost or doubled. */
TEST_F(signal, storm_into_blocked_entries)
{
	int i, before;

	expect_handler(handler_look, variant->flags);
	for (i = 0; i < 50; i++) {
		ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(BOTH)));
		start(&self->other, variant->call ? job_enter_call : job_enter, ARG(BOTH));
		ASSERT_TRUE(wait_until(gate_state().blocked == 1));
		before = READ_ONCE(handled.runs);
		interrupt(&self->other);
		start(&self->forker, job_release, NULL);
		interrupt(&self->other);
		ASSERT_EQ(0, finish(&self->forker));
		ASSERT_EQ(0, finish(&self->other));
		EXPECT_LT(before, handled.runs);
		EXPECT_EQ(1, self->other.slot->depth[0]);
		EXPECT_EQ(1, self->other.slot->depth[1]);
		EXPECT_EQ(0, run(&self->other, job_leave, ARG(BOTH)));
	}
	EXPECT_EQ(0, gate_state().blocked);
	EXPECT_EQ(0, gate_state().holders_count);
}

TEST_HARNESS_MAIN
