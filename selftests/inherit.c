// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rule 10: the child starts clean, with the forker's slot at the same address.
 * Its unit is made when the slot is first used, or before the copy if the forker
 * is inside a section: however a child comes to its slot, it finds what it
 * expects.
 */
#include "test/harness.h"

#define MANY	(FORKGATE_UNIT_SLOTS + 2)

/* Where the forker's slot lies: in the first unit, or in another */
FIXTURE(inherit) {
	struct worker forker;
};

FIXTURE_VARIANT(inherit) {
	int before;	/* threads registered before it */
};

FIXTURE_VARIANT_ADD(inherit, first_unit) {
	.before = 1,
};

FIXTURE_VARIANT_ADD(inherit, second_unit) {
	.before = MANY,
};

static struct worker crowd[MANY];

FIXTURE_SETUP(inherit)
{
	int i;

	ASSERT_LE(0, gate_setup());
	for (i = 1; i < variant->before; i++)
		ASSERT_EQ(0, worker_new(&crowd[i]));
	ASSERT_EQ(0, worker_new(&self->forker));
}

FIXTURE_TEARDOWN(inherit)
{
}

static int fork_and_ask(struct worker *forker, child_fn child)
{
	struct fork_how how = { .child = child };

	return run_fork(forker, &how);
}

#define CHILD(condition)	do { if (!(condition)) return __LINE__ % 250 + 1; } while (0)

static bool own_slot(void)
{
	return slot->tid == (unsigned int)sys_gettid() && !slot->depth[0] && !slot->depth[1];
}

static int child_touches(void)
{
	CHILD(own_slot());
	CHILD(gate_state().threads == 1);
	CHILD(!gate_enter(BOTH));
	CHILD(gate_state().holders_count == 1);
	CHILD(!gate_leave(BOTH));
	return 0;
}

static int child_asks(void)
{
	struct forkgate_state state = gate_state();

	CHILD(state.threads == 1 && !state.forks && !state.forkers && !state.closed);
	CHILD(own_slot());
	return 0;
}

static int child_enters_by_call(void)
{
	CHILD(!gate_enter_by_call(MEMORY, 0));
	CHILD(slot->depth[0] == 1 && gate_state().holders_count == 1);
	CHILD(!gate_leave_by_call(MEMORY));
	CHILD(own_slot());
	return 0;
}

static int child_registers(void)
{
	struct forkgate_slot *before = slot;

	CHILD(gate_register() >= 0);
	CHILD(slot == before && own_slot());
	CHILD(gate_state().threads == 1);
	return 0;
}

static int child_unregisters(void)
{
	CHILD(!gate_unregister());
	CHILD(!gate_state().threads);
	CHILD(gate_register() >= 0);
	CHILD(own_slot());
	return 0;
}

static int child_prepares(void)
{
	CHILD(!gate_prepare(BOTH));
	CHILD(slot->outcome == FORKGATE_OUTCOME_GRANTED && own_slot());
	CHILD(!gate_release());
	return 0;
}

/* The child of a child that has never touched its slot */
static int child_forks(void)
{
	CHILD(!child_exit(raw_fork(0, child_touches)));
	CHILD(slot->outcome == FORKGATE_OUTCOME_GRANTED && own_slot());
	return 0;
}

static int child_vforks(void)
{
	CHILD(!child_exit(spawn_vm(CLONE_VFORK, child_nothing)));
	CHILD(own_slot());
	return 0;
}

/* The first that it touches is another unit. */
static int child_looks_elsewhere(void)
{
	unsigned int unit = slot_header(slot) == gate.head;

	CHILD(!READ_ONCE(gate_unit(unit)->closed));
	CHILD(own_slot());
	return 0;
}

/* Another thread of the child takes no slot that is not its own. */
static struct forkgate_slot *inherited;
static int other_done;

static int other_registers(void *unused)
{
	bool good = gate_register() >= 0 && slot != inherited &&
		    slot->tid == (unsigned int)sys_gettid();

	__atomic_store_n(&other_done, good ? 1 : 2, __ATOMIC_SEQ_CST);
	for (;;)
		pause();
	return 0;
}

static bool other_thread(int (*main)(void *unused))
{
	const size_t size = 128 * 1024;
	char *stack = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (stack == MAP_FAILED)
		return false;
	/* Without libc's, so that it has this thread's "slot" */
	return clone(main, stack + size,
		     CLONE_VM | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD, NULL) > 0;
}

static int child_has_another_thread(void)
{
	inherited = slot;
	CHILD(other_thread(other_registers));
	CHILD(wait_until(__atomic_load_n(&other_done, __ATOMIC_SEQ_CST)));
	CHILD(other_done == 1);
	CHILD(gate_state().threads == 2);
	slot = inherited;
	CHILD(own_slot());
	return 0;
}

/* With a thread that goes away before anyone has touched its slot that is free. */
static int other_is_alone(void)
{
	CHILD(wait_until(task_ended(getpid())));
	CHILD(!gate_state().threads);
	CHILD(gate_register() >= 0);
	CHILD(own_slot());
	CHILD(gate_state().threads == 1);
	return 0;
}

static int other_outlives(void *unused)
{
	syscall(__NR_exit_group, other_is_alone());
	return 0;
}

/* Inside a section that began without a call */
static int other_sees_an_abandonment(void *unused)
{
	bool seen = wait_until(task_ended(getpid())) && gate_state().abandoned == 1;

	syscall(__NR_exit_group, seen ? 0 : __LINE__ % 250 + 1);
	return 0;
}

static int child_ends_inside(void)
{
	CHILD(other_thread(other_sees_an_abandonment));
	gate_count(MEMORY);
	syscall(__NR_exit, 0);
	return 1;
}

static int child_is_outlived(void)
{
	CHILD(other_thread(other_outlives));
	syscall(__NR_exit, 0);
	return 1;
}

TEST_F(inherit, untouched)
{
	EXPECT_EQ(0, fork_and_ask(&self->forker, child_nothing));
}

TEST_F(inherit, touched)
{
	EXPECT_EQ(0, fork_and_ask(&self->forker, child_touches));
	EXPECT_EQ(0, fork_and_ask(&self->forker, child_looks_elsewhere));
}

TEST_F(inherit, asked)
{
	EXPECT_EQ(0, fork_and_ask(&self->forker, child_asks));
}

TEST_F(inherit, entered_by_call)
{
	EXPECT_EQ(0, fork_and_ask(&self->forker, child_enters_by_call));
}

TEST_F(inherit, registered)
{
	EXPECT_EQ(0, fork_and_ask(&self->forker, child_registers));
	EXPECT_EQ(0, fork_and_ask(&self->forker, child_unregisters));
}

TEST_F(inherit, prepared)
{
	EXPECT_EQ(0, fork_and_ask(&self->forker, child_prepares));
}

TEST_F(inherit, forked)
{
	EXPECT_EQ(0, fork_and_ask(&self->forker, child_forks));
	EXPECT_EQ(0, fork_and_ask(&self->forker, child_vforks));
}

TEST_F(inherit, another_thread)
{
	EXPECT_EQ(0, fork_and_ask(&self->forker, child_has_another_thread));
	EXPECT_EQ(0, fork_and_ask(&self->forker, child_is_outlived));
	EXPECT_EQ(0, fork_and_ask(&self->forker, child_ends_inside));
}

/* Inside a section, whose label and levels the child goes on with */

static int child_is_inside(void)
{
	CHILD(gate_state().holders_count == 1);
	CHILD(slot->tid == (unsigned int)sys_gettid());
	CHILD(slot->depth[0] == 1 && !slot->depth[1] && slot->site == 0x1234);
	CHILD(!gate_leave(MEMORY));
	CHILD(!gate_state().holders_count);
	return 0;
}

/* Its section counts though nothing in the child has touched the slot. */
static int child_makes_others_wait(void)
{
	CHILD(other_thread(other_registers));
	CHILD(wait_until(__atomic_load_n(&other_done, __ATOMIC_SEQ_CST)));
	CHILD(gate_state().holders_count == 1);
	return 0;
}

static long job_enter_at(void *site)
{
	slot->site = (uintptr_t)site;
	return gate_enter(MEMORY);
}

TEST_F(inherit, inside)
{
	ASSERT_EQ(0, run(&self->forker, job_enter_at, ARG(0x1234)));
	EXPECT_EQ(0, fork_and_ask(&self->forker, child_is_inside));
	EXPECT_EQ(0, fork_and_ask(&self->forker, child_makes_others_wait));
	EXPECT_EQ(0, run(&self->forker, job_leave, ARG(MEMORY)));
}

TEST_HARNESS_MAIN
