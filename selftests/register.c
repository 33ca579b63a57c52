// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rule 2: every thread counts, be there thousands; one that is not registered
 * has no section to wait for.
 * Rule 9: a slot is free again when its thread has ended.
 */
#include "forkgate_test.h"

#include <sys/sysinfo.h>

FIXTURE(reg) {
	struct worker a, b;
};

FIXTURE_SETUP(reg)
{
	ASSERT_LE(0, fg_setup());
	ASSERT_EQ(0, worker_new(&self->a));
	ASSERT_EQ(0, worker_spawn(&self->b));
}

FIXTURE_TEARDOWN(reg)
{
}

TEST_F(reg, slot_is_where_it_says)
{
	struct forkgate_register reg = { .slot = ~0u };

	ASSERT_EQ(0, fg_call(FORKGATE_IOC_REGISTER, &reg));
	EXPECT_GT(FORKGATE_SLOTS, reg.slot);
	EXPECT_EQ((uint64_t)FORKGATE_SLOT_OFFSET(reg.slot), reg.offset);
	EXPECT_EQ(fg_gettid(), fg_slot(reg.slot)->tid);
	EXPECT_EQ(FORKGATE_OUTCOME_NONE, fg_slot(reg.slot)->outcome);
}

TEST_F(reg, again_is_the_same_slot)
{
	struct forkgate_slot *first = slot;

	ASSERT_EQ(0, fg_enter(FG_MEMORY));
	ASSERT_LE(0, fg_register());
	EXPECT_EQ(first, slot);
	EXPECT_EQ(1, slot->depth[0]);
	EXPECT_EQ(2, fg_state().threads);
	EXPECT_EQ(0, fg_leave(FG_MEMORY));
}

TEST_F(reg, each_thread_has_its_own)
{
	EXPECT_NE(slot, self->a.slot);
	EXPECT_EQ(self->a.tid, self->a.slot->tid);
	EXPECT_EQ(2, fg_state().threads);
}

TEST_F(reg, unregister_frees_the_slot)
{
	ASSERT_EQ(0, run(&self->a, job_unregister, NULL));
	EXPECT_EQ(0, self->a.slot->tid);
	EXPECT_EQ(1, fg_state().threads);
	ASSERT_LE(0, run(&self->b, job_register, &self->b));
	EXPECT_EQ(self->b.tid, self->b.slot->tid);
	EXPECT_EQ(2, fg_state().threads);
}

TEST_F(reg, register_after_unregister)
{
	ASSERT_EQ(0, run(&self->a, job_unregister, NULL));
	ASSERT_LE(0, run(&self->a, job_register, &self->a));
	EXPECT_EQ(0, run(&self->a, job_enter, ARG(FG_BOTH)));
	EXPECT_EQ(1, fg_state().holders_count);
	EXPECT_EQ(0, run(&self->a, job_leave, ARG(FG_BOTH)));
}

TEST_F(reg, exit_frees_the_slot)
{
	pid_t tid = self->a.tid;

	start(&self->a, job_exit, NULL);
	ASSERT_TRUE(wait_until(fg_gone(tid)));
	EXPECT_TRUE(wait_until(fg_state().threads == 1));
	EXPECT_EQ(0, READ_ONCE(self->a.slot->tid));
	EXPECT_EQ(0, fg_state().abandoned);
}

static void *register_and_end(void *unused)
{
	long ret = fg_register();

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
	EXPECT_TRUE(wait_until(fg_state().threads == 2));
}

/* A thread without a slot is in no section, so nobody waits for it; its own forks wait. */
TEST_F(reg, unregistered_thread_forks)
{
	ASSERT_EQ(0, run(&self->a, job_hold, ARG(FG_BOTH)));
	start(&self->b, job_fork, &fork_both);
	EXPECT_TRUE(wait_until(fg_waiting(&self->b, 1)));
	ASSERT_EQ(0, run(&self->a, job_drop, ARG(FG_BOTH)));
	EXPECT_EQ(0, finish_fork(&self->b));
}

/* Its child has a gate, but nobody in it. */
static int child_unregistered(void)
{
	struct forkgate_state state = fg_state();

	if (state.threads || state.closed || state.forkers || state.holders_count)
		return 1;
	if (fg_register() < 0)
		return 2;
	return slot->depth[0] | slot->depth[1];
}

TEST_F(reg, child_of_an_unregistered_thread)
{
	struct fork_how how = { .child = child_unregistered };

	EXPECT_EQ(0, child_exit(run(&self->b, job_fork, &how)));
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
		fg_futex(&crowd.turn, FUTEX_WAIT, now, NULL);
}

static void crowd_turn(int turn)
{
	WRITE_ONCE(crowd.turn, turn);
	fg_futex(&crowd.turn, FUTEX_WAKE, INT_MAX, NULL);
}

/*
 * No thread-local storage here: these threads share the creator's. So no
 * errno, no "slot", and system calls that never fail where it matters.
 */
static int crowd_main(void *unused)
{
	struct forkgate_register reg = {};
	struct forkgate_slot *own;
	struct forkgate_leave leave = { FG_MEMORY, FORKGATE_COUNTED };

	if (syscall(__NR_ioctl, gate.fd, FORKGATE_IOC_REGISTER, &reg)) {
		__atomic_add_fetch(&crowd.failed, 1, __ATOMIC_SEQ_CST);
		__atomic_add_fetch(&crowd.registered, 1, __ATOMIC_SEQ_CST);
		crowd_wait(TURN_LEAVE);
		return 0;
	}
	own = (void *)((char *)gate.head + reg.offset);
	if (own->tid != (unsigned int)fg_gettid() || own->depth[0] || own->depth[1])
		__atomic_add_fetch(&crowd.errors, 1, __ATOMIC_SEQ_CST);
	__atomic_add_fetch(&crowd.registered, 1, __ATOMIC_SEQ_CST);
	crowd_wait(TURN_ENTER);
	WRITE_ONCE(own->depth[0], 1);
	if (READ_ONCE(gate.head->closed))
		__atomic_add_fetch(&crowd.errors, 1, __ATOMIC_SEQ_CST);
	__atomic_add_fetch(&crowd.inside, 1, __ATOMIC_SEQ_CST);
	crowd_wait(TURN_LEAVE);
	__atomic_store_n(&own->depth[0], 0, __ATOMIC_RELEASE);
	barrier();
	if (READ_ONCE(gate.head->closed) & FG_MEMORY)
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

/* crowd_room - could the machine carry that many threads? A thread takes about 36 KiB. */
static bool crowd_room(unsigned int size)
{
	struct sysinfo info;

	return !sysinfo(&info) && (uint64_t)(info.freeram + info.bufferram) * info.mem_unit >
				  (uint64_t)size * 40 * 1024;
}

/*
 * Ten thousand in a section at once: the fork waits for the last of them. A
 * kernel with all checkers on takes a thousand in that time.
 */
TEST(ten_thousand_threads)
{
	const unsigned int size = fg_slow() > 2 ? 1000 : 10000;
	struct forkgate_holder *holders;
	struct forkgate_state state = {};
	struct worker forker;
	int depth = 0;
	unsigned int i;

	if (!crowd_room(size))
		SKIP(return, "too little memory for %u threads", size);
	ASSERT_LE(0, fg_setup());
	ASSERT_EQ(0, worker_new(&forker));
	ASSERT_EQ(size, crowd_create(size));
	ASSERT_TRUE(wait_until(READ_ONCE(crowd.registered) == size));
	EXPECT_EQ(0, crowd.failed);
	EXPECT_EQ(0, crowd.errors);
	EXPECT_EQ(size + 2, fg_state().threads);
	/* Idle crowds do not hinder. */
	EXPECT_EQ(0, child_exit(run(&forker, job_fork, &fork_both)));
	crowd_turn(TURN_ENTER);
	ASSERT_TRUE(wait_until(READ_ONCE(crowd.inside) == size));
	holders = calloc(size, sizeof(*holders));
	ASSERT_NE(NULL, holders);
	state.holders = (uintptr_t)holders;
	state.holders_max = size;
	ASSERT_EQ(0, fg_call(FORKGATE_IOC_STATE, &state));
	EXPECT_EQ(size, state.holders_count);
	for (i = 0; i < size; i++)
		depth += holders[i].depth[0];
	EXPECT_EQ(size, depth);
	start(&forker, job_fork, &fork_both);
	ASSERT_TRUE(wait_until(fg_waiting(&forker, 1)));
	crowd_turn(TURN_LEAVE);
	EXPECT_EQ(0, finish_fork(&forker));
	EXPECT_TRUE(wait_until(READ_ONCE(crowd.left) == size));
	EXPECT_TRUE(wait_until(fg_state().threads == 2));
	EXPECT_EQ(0, fg_state().abandoned);
}

/* More threads than slots: one too many is told so, and the gate works on. */
TEST(enospc)
{
	const unsigned int size = FORKGATE_SLOTS + 8;
	struct worker forker;

	if (fg_slow() > 2)
		SKIP(return, "%u threads take hours with all checkers on", size);
	if (!crowd_room(size))
		SKIP(return, "too little memory for %u threads", size);
	ASSERT_LE(0, fg_setup());
	ASSERT_EQ(0, worker_new(&forker));
	if (crowd_create(size) != size)
		SKIP(return, "could not create %u threads: %s", size, strerror(errno));
	ASSERT_TRUE(wait_until(READ_ONCE(crowd.registered) == size));
	EXPECT_EQ(10, crowd.failed);
	EXPECT_EQ(0, crowd.errors);
	EXPECT_EQ(FORKGATE_SLOTS, fg_state().threads);
	/* Whoever got none is in no section, and the scan comes to its end. */
	EXPECT_EQ(0, child_exit(run(&forker, job_fork, &fork_both)));
	EXPECT_EQ(FORKGATE_SLOTS, fg_state().threads);
	/* They all end with the process. */
}

TEST_HARNESS_MAIN
