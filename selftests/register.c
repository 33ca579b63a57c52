// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rule 2: every thread counts, even one of thousands; one that is not
 * registered has no section to wait for.
 * Rule 9: a slot is free again when its thread has ended.
 *
 * And the units of the mapping: every unit with a slot in use has a header of
 * its own, which says "closed" to the threads of that unit.
 */
#include "test/harness.h"

#include <sys/sysinfo.h>

FIXTURE(reg) {
	struct worker a, b;
};

/* "b" is not registered. */
FIXTURE_SETUP(reg)
{
	ASSERT_EQ(0, setup_workers(&self->a, 1));
	ASSERT_EQ(0, worker_spawn(&self->b));
}

FIXTURE_TEARDOWN(reg)
{
}

TEST_F(reg, slot_is_where_it_says)
{
	struct forkgate_register reg = { .slot = ~0u };

	ASSERT_EQ(0, gate_call(FORKGATE_IOC_REGISTER, &reg));
	EXPECT_GT(FORKGATE_SLOTS, reg.slot);
	EXPECT_EQ((uint64_t)FORKGATE_SLOT_OFFSET(reg.slot), reg.offset);
	EXPECT_EQ(sys_gettid(), gate_slot(reg.slot)->tid);
	EXPECT_EQ(FORKGATE_OUTCOME_NONE, gate_slot(reg.slot)->outcome);
}

TEST_F(reg, again_is_the_same_slot)
{
	struct forkgate_slot *first = slot;

	ASSERT_EQ(0, gate_enter(MEMORY));
	ASSERT_LE(0, gate_register());
	EXPECT_EQ(first, slot);
	EXPECT_EQ(1, slot->depth[0]);
	EXPECT_EQ(2, gate_state().threads);
	EXPECT_EQ(0, gate_leave(MEMORY));
}

TEST_F(reg, each_thread_has_its_own)
{
	EXPECT_NE(slot, self->a.slot);
	EXPECT_EQ(self->a.tid, self->a.slot->tid);
	EXPECT_EQ(2, gate_state().threads);
}

TEST_F(reg, unregister_frees_the_slot)
{
	ASSERT_EQ(0, run(&self->a, job_unregister, NULL));
	EXPECT_EQ(0, self->a.slot->tid);
	EXPECT_EQ(1, gate_state().threads);
	ASSERT_LE(0, run(&self->b, job_register, &self->b));
	EXPECT_EQ(self->b.tid, self->b.slot->tid);
	EXPECT_EQ(2, gate_state().threads);
}

TEST_F(reg, register_after_unregister)
{
	ASSERT_EQ(0, run(&self->a, job_unregister, NULL));
	ASSERT_LE(0, run(&self->a, job_register, &self->a));
	EXPECT_EQ(0, run(&self->a, job_enter, ARG(BOTH)));
	EXPECT_EQ(1, gate_state().holders_count);
	EXPECT_EQ(0, run(&self->a, job_leave, ARG(BOTH)));
}

TEST_F(reg, exit_frees_the_slot)
{
	pid_t tid = self->a.tid;

	start(&self->a, job_exit, NULL);
	ASSERT_TRUE(wait_until(task_ended(tid)));
	EXPECT_TRUE(wait_until(gate_state().threads == 1));
	EXPECT_EQ(0, READ_ONCE(self->a.slot->tid));
	EXPECT_EQ(0, gate_state().abandoned);
}

static void *register_and_end(void *unused)
{
	long ret = gate_register();

	return (void *)ret;
}

/* Threads that come and go must not use up slots. */
TEST_F(reg, slots_are_used_again)
{
	long highest = 0;
	int i;

	for (i = 0; i < 500; i++) {
		pthread_t thread;
		void *number;

		ASSERT_EQ(0, pthread_create(&thread, NULL, register_and_end, NULL));
		ASSERT_EQ(0, pthread_join(thread, &number));
		ASSERT_LE(0, (long)number);
		if ((long)number > highest)
			highest = (long)number;
	}
	/* The kernel may still be busy with the end of a few. */
	EXPECT_GT(100, highest);
	EXPECT_TRUE(wait_until(gate_state().threads == 2));
}

/* A thread without a slot is in no section, so no fork waits for it; its own forks wait. */
TEST_F(reg, unregistered_thread_forks)
{
	ASSERT_EQ(0, run(&self->a, job_hold, ARG(BOTH)));
	EXPECT_TRUE(fork_waits(&self->b, &fork_both, 1));
	ASSERT_EQ(0, run(&self->a, job_drop, ARG(BOTH)));
	EXPECT_EQ(0, finish_fork(&self->b));
}

/* Its child has a gate without threads. */
static int child_unregistered(void)
{
	struct forkgate_state state = gate_state();

	if (state.threads || state.closed || state.forkers || state.holders_count)
		return 1;
	if (gate_register() < 0)
		return 2;
	return slot->depth[0] | slot->depth[1];
}

TEST_F(reg, child_of_an_unregistered_thread)
{
	struct fork_how how = { .child = child_unregistered };

	EXPECT_EQ(0, run_fork(&self->b, &how));
}

/*
 * Crowds. Threads without libc: small stacks, and one word to talk by.
 */

#define CROWD_STACK	8192

struct crowd {
	char *stacks;
	unsigned int size;
	int registered;		/* how many said they did */
	int failed;		/* of these with ENOSPC */
	int errors;		/* of these with anything else */
	int turn;		/* futex: what they are to do next */
	int inside;
	int left;
};

static struct crowd crowd;

#define TURN_WAIT	0
#define TURN_ENTER	1
#define TURN_LEAVE	2

static void crowd_wait(int turn)
{
	int now;

	while ((now = READ_ONCE(crowd.turn)) < turn)
		sys_futex(&crowd.turn, FUTEX_WAIT, now, NULL);
}

static void crowd_turn(int turn)
{
	WRITE_ONCE(crowd.turn, turn);
	sys_futex(&crowd.turn, FUTEX_WAKE, INT_MAX, NULL);
}

/*
 * No thread-local storage here: these threads share the creator's. So no
 * errno, no "slot", and system calls that never fail where it matters.
 */
static int crowd_main(void *unused)
{
	struct forkgate_enter enter = { .domains = MEMORY, .flags = FORKGATE_COUNTED };
	struct forkgate_leave leave = { .domains = MEMORY, .flags = FORKGATE_COUNTED };
	struct forkgate_register reg = {};
	struct forkgate_header *header;
	struct forkgate_slot *own;

	if (syscall(__NR_ioctl, gate.fd, FORKGATE_IOC_REGISTER, &reg)) {
		__atomic_add_fetch(&crowd.failed, 1, __ATOMIC_SEQ_CST);
		__atomic_add_fetch(&crowd.registered, 1, __ATOMIC_SEQ_CST);
		crowd_wait(TURN_LEAVE);
		return 0;
	}
	own = (void *)((char *)gate.head + reg.offset);
	header = slot_header(own);
	if (own->tid != (unsigned int)sys_gettid() || own->depth[0] || own->depth[1] ||
	    header->abi != FORKGATE_ABI || header->copy)
		__atomic_add_fetch(&crowd.errors, 1, __ATOMIC_SEQ_CST);
	__atomic_add_fetch(&crowd.registered, 1, __ATOMIC_SEQ_CST);
	crowd_wait(TURN_ENTER);
	WRITE_ONCE(own->depth[0], 1);
	barrier();
	/* The gate is open: what it says otherwise is out of date, and the call puts it right. */
	if (READ_ONCE(header->closed) & MEMORY &&
	    (syscall(__NR_ioctl, gate.fd, FORKGATE_IOC_ENTER, &enter) ||
	     READ_ONCE(header->closed) & MEMORY))
		__atomic_add_fetch(&crowd.errors, 1, __ATOMIC_SEQ_CST);
	__atomic_add_fetch(&crowd.inside, 1, __ATOMIC_SEQ_CST);
	crowd_wait(TURN_LEAVE);
	__atomic_store_n(&own->depth[0], 0, __ATOMIC_RELEASE);
	barrier();
	if (READ_ONCE(header->closed) & MEMORY)
		syscall(__NR_ioctl, gate.fd, FORKGATE_IOC_LEAVE, &leave);
	__atomic_add_fetch(&crowd.left, 1, __ATOMIC_SEQ_CST);
	return 0;
}

/* crowd_create - as many of @size threads as there is room for */
static unsigned int crowd_create(unsigned int size)
{
	const int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
			  CLONE_SYSVSEM;
	unsigned int i;

	crowd.stacks = mmap(NULL, (size_t)size * CROWD_STACK, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (crowd.stacks == MAP_FAILED)
		return 0;
	madvise(crowd.stacks, (size_t)size * CROWD_STACK, MADV_NOHUGEPAGE);
	for (i = 0; i < size; i++)
		if (clone(crowd_main, crowd.stacks + (i + 1UL) * CROWD_STACK, flags, NULL) < 0)
			break;
	crowd.size = i;
	return i;
}

/* crowd_registers - @size threads with slots */
static bool crowd_registers(unsigned int size)
{
	return crowd_create(size) == size &&
	       wait_until(READ_ONCE(crowd.registered) == size) && !crowd.failed && !crowd.errors;
}

/* crowd_room - could the machine carry that many threads? A thread takes about 36 KiB. */
static bool crowd_room(unsigned int size)
{
	struct sysinfo info;

	return !sysinfo(&info) && (uint64_t)(info.freeram + info.bufferram) * info.mem_unit >
				  (uint64_t)size * 40 * 1024;
}

/*
 * Units
 */

/* units_say - do the first @count units say which domains are closed? */
static bool units_say(unsigned int count, unsigned int domains)
{
	unsigned int n;

	for (n = 0; n < count; n++) {
		struct forkgate_header *header = gate_unit(n);

		if (READ_ONCE(header->closed) != domains || header->abi != FORKGATE_ABI ||
		    header->copy)
			return false;
	}
	return true;
}

TEST(every_unit_in_use_says_closed)
{
	struct worker late, forker;

	ASSERT_EQ(0, setup_workers(&forker, 1));
	ASSERT_TRUE(crowd_registers(2 * FORKGATE_UNIT_SLOTS));
	ASSERT_EQ(0, worker_new(&late));
	ASSERT_EQ(gate_unit(2), slot_header(late.slot));
	EXPECT_TRUE(units_say(3, 0));
	ASSERT_EQ(0, run(&forker, job_prepare, ARG(FILES)));
	EXPECT_TRUE(units_say(3, FILES));
	start(&late, job_hold, ARG(FILES));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	ASSERT_EQ(0, run(&forker, job_release, NULL));
	EXPECT_EQ(0, finish(&late));
	EXPECT_TRUE(units_say(3, 0));
	/* The scan comes to that unit, and the thread's last step is heard. */
	ASSERT_TRUE(fork_waits(&forker, &fork_both, 1));
	EXPECT_TRUE(units_say(3, BOTH));
	ASSERT_EQ(0, run(&late, job_drop, ARG(FILES)));
	EXPECT_EQ(0, finish_fork(&forker));
	EXPECT_TRUE(units_say(3, 0));
}

/* The gate is closed when the first thread of a unit registers. */
TEST(new_unit_says_closed)
{
	struct worker late, forker;

	ASSERT_EQ(0, setup_workers(&forker, 1));
	ASSERT_TRUE(crowd_registers(FORKGATE_UNIT_SLOTS - 2));
	ASSERT_EQ(0, run(&forker, job_prepare, ARG(MEMORY)));
	ASSERT_EQ(0, worker_new(&late));
	ASSERT_EQ(gate_unit(1), slot_header(late.slot));
	EXPECT_TRUE(units_say(2, MEMORY));
	start(&late, job_enter, ARG(MEMORY));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	ASSERT_EQ(0, run(&forker, job_release, NULL));
	EXPECT_EQ(0, finish(&late));
	EXPECT_TRUE(units_say(2, 0));
}

/* A bit that is set although the gate is open costs a call, which clears it. */
TEST_F(reg, closed_is_put_right)
{
	WRITE_ONCE(slot_header(self->a.slot)->closed, BOTH);
	EXPECT_EQ(0, run(&self->a, job_enter, ARG(MEMORY)));
	EXPECT_EQ(0, slot_header(self->a.slot)->closed & MEMORY);
	WRITE_ONCE(slot_header(self->a.slot)->closed, BOTH);
	EXPECT_EQ(0, run(&self->a, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, slot_header(self->a.slot)->closed & MEMORY);
}

/* A child has the slot of its forker in whichever unit that is. */
static int child_of_a_late_unit(void)
{
	struct forkgate_header *header = slot_header(slot);

	if (header != gate_unit(1) || header->abi != FORKGATE_ABI || gate.head->abi != FORKGATE_ABI)
		return 1;
	if (header->closed || header->copy || gate.head->closed || gate.head->copy)
		return 2;
	if (slot->tid != (unsigned int)sys_gettid() || slot->depth[0] != 1 || slot->depth[1])
		return 3;
	if (gate_leave(MEMORY) || gate_prepare(BOTH))
		return 4;
	if (header->closed != BOTH)
		return 5;
	return gate_release() ? 6 : header->closed;
}

TEST(child_of_a_late_unit_starts_clean)
{
	struct fork_how how = { .child = child_of_a_late_unit };
	struct worker holder, forker;

	ASSERT_EQ(0, setup_workers(&holder, 1));
	ASSERT_TRUE(crowd_registers(FORKGATE_UNIT_SLOTS - 2));
	ASSERT_EQ(0, worker_new(&forker));
	ASSERT_EQ(0, run(&forker, job_enter, ARG(MEMORY)));
	EXPECT_EQ(0, run_fork(&forker, &how));
	/* The same after a wait, during which its unit says "closed". */
	ASSERT_EQ(0, run(&holder, job_enter, ARG(FILES)));
	ASSERT_TRUE(fork_waits(&forker, &how, 1));
	EXPECT_EQ(BOTH, slot_header(forker.slot)->closed);
	ASSERT_EQ(0, run(&holder, job_leave, ARG(FILES)));
	EXPECT_EQ(0, finish_fork(&forker));
}

/*
 * Ten thousand in a section at once: the fork waits for the last of them. A
 * kernel with all checkers on takes a thousand in that time.
 */
TEST(ten_thousand_threads)
{
	const unsigned int size = slow_factor() > 2 ? 1000 : 10000;
	struct forkgate_holder *holders;
	struct forkgate_state state = {};
	struct worker forker;
	int depth = 0;
	unsigned int i;

	if (!crowd_room(size))
		SKIP(return, "too little memory for %u threads", size);
	ASSERT_EQ(0, setup_workers(&forker, 1));
	ASSERT_TRUE(crowd_registers(size));
	EXPECT_EQ(size + 2, gate_state().threads);
	/* Idle crowds do not hinder. */
	EXPECT_EQ(0, run_fork(&forker, &fork_both));
	crowd_turn(TURN_ENTER);
	ASSERT_TRUE(wait_until(READ_ONCE(crowd.inside) == size));
	holders = calloc(size, sizeof(*holders));
	ASSERT_NE(NULL, holders);
	state.holders = (uintptr_t)holders;
	state.holders_max = size;
	ASSERT_EQ(0, gate_call(FORKGATE_IOC_STATE, &state));
	EXPECT_EQ(size, state.holders_count);
	for (i = 0; i < size; i++)
		depth += holders[i].depth[0];
	EXPECT_EQ(size, depth);
	ASSERT_TRUE(fork_waits(&forker, &fork_both, 1));
	crowd_turn(TURN_LEAVE);
	EXPECT_EQ(0, finish_fork(&forker));
	EXPECT_TRUE(wait_until(READ_ONCE(crowd.left) == size));
	EXPECT_EQ(0, crowd.errors);
	EXPECT_TRUE(wait_until(gate_state().threads == 2));
	EXPECT_EQ(0, gate_state().abandoned);
}

/* More threads than slots: one too many is told so, and the gate works on. */
TEST(enospc)
{
	const unsigned int size = FORKGATE_SLOTS + 8;
	struct worker forker;

	if (slow_factor() > 2)
		SKIP(return, "%u threads take hours with all checkers on", size);
	if (!crowd_room(size))
		SKIP(return, "too little memory for %u threads", size);
	ASSERT_EQ(0, setup_workers(&forker, 1));
	if (crowd_create(size) != size)
		SKIP(return, "could not create %u threads: %s", size, strerror(errno));
	ASSERT_TRUE(wait_until(READ_ONCE(crowd.registered) == size));
	EXPECT_EQ(10, crowd.failed);
	EXPECT_EQ(0, crowd.errors);
	EXPECT_EQ(FORKGATE_SLOTS, gate_state().threads);
	/* A thread without a slot is in no section, and the scan comes to its end. */
	EXPECT_EQ(0, run_fork(&forker, &fork_both));
	EXPECT_EQ(FORKGATE_SLOTS, gate_state().threads);
	/* They all end with the process. */
}

TEST_HARNESS_MAIN
