// SPDX-License-Identifier: GPL-2.0-only
/*
 * Scale: a process with 32,000 threads that enters sections and forks, and a
 * thousand processes that fork at the same time
 *
 * Rule 6: neither forks nor entries starve. Rule 13: no process waits for
 * another. Progress is counted, not timed: all go on until the last of them has
 * done what is asked of each, so a thread that starves shows as a test that does
 * not end.
 *
 * It takes minutes, four processors and 4 GB of memory, with
 * kernel.threads-max and kernel.pid_max above 40,000 and vm.overcommit_memory=1,
 * as tools/testhost sets them. It must not measure time, which says nothing on
 * an emulated machine.
 */
#include "../test/harness.h"

/* Limits that say "this does not end", on a slow machine too */
#define TIMEOUT		"2400"	/* s, of one wait */
#define TEST_TIMEOUT	7000	/* s, of a test */

#define STACK_SIZE	(32 * 1024)

/* nap - up to @ms milliseconds, drawn from *@seed */
static void nap(unsigned int *seed, unsigned int ms)
{
	struct timespec ts = {};

	*seed = *seed * 1103515245 + 12345;
	ts.tv_nsec = (*seed >> 8) % (ms * 1000) * 1000;
	nanosleep(&ts, NULL);
}

/* fail_first - keep the first error of several threads or processes */
static void fail_first(long *error, long value)
{
	long none = 0;

	__atomic_compare_exchange_n(error, &none, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

/* reap - 0 if the child found all well, or a negative error */
static long reap(pid_t pid)
{
	int status;

	if (pid < 0)
		return pid;
	while (waitpid(pid, &status, __WALL) != pid) {
		if (errno != EINTR)
			return -errno;
	}
	return status ? -EPROTO : 0;
}

/* patient - nothing runs out of time, but drains yield as they do by default */
static long patient(void)
{
	struct forkgate_policy policy = gate_policy();

	policy.ticket_hold = FORKGATE_TIME_MAX;
	policy.timeout = FORKGATE_FOREVER;
	policy.backstop = FORKGATE_FOREVER;
	return gate_set_policy(&policy);
}

/* open_gate - for the calling process */
static long open_gate(void)
{
	long ret = gate_open();

	if (!ret)
		ret = gate_map();
	if (!ret)
		ret = gate_register();
	return ret < 0 ? ret : patient();
}

/*
 * Threads
 */

#define THREADS		32000	/* with the one that runs the test */
#define SECTIONS	10000	/* of them enter and leave */
#define FORKERS		100	/* of them fork */
#define IDLE		(THREADS - 1 - SECTIONS - FORKERS)

/* What each has to reach while all others go on */
#define ENTRIES		50
#define FORKS		30

static int go, never;
static int stop;
static unsigned int ready, ended;
static long failed;
static unsigned int entries[SECTIONS], forks[FORKERS];

/* What no child may see: set while that thread is inside */
static unsigned char inside[SECTIONS];

static void begin(void)
{
	long ret = gate_register();

	if (ret < 0)
		fail_first(&failed, ret);
	__atomic_add_fetch(&ready, 1, __ATOMIC_SEQ_CST);
}

static void end(long ret)
{
	fail_first(&failed, ret);
	__atomic_add_fetch(&ended, 1, __ATOMIC_SEQ_CST);
	latch_wait(&never);
}

static void *idle_main(void *unused)
{
	begin();
	latch_wait(&never);
	return NULL;
}

static void *section_main(void *arg)
{
	static const unsigned int choice[] = { MEMORY, FILES, BOTH };
	unsigned int index = (uintptr_t)arg, seed = index, domains;
	long ret = 0;

	begin();
	latch_wait(&go);
	while (!ret && !READ_ONCE(stop)) {
		domains = choice[(index + entries[index]) % 3];
		ret = gate_enter(domains);
		if (ret)
			break;
		WRITE_ONCE(inside[index], 1);
		/* Some sleep inside, for forks to have somebody to wait for. */
		if ((index + entries[index]) % 16 == 0)
			nap(&seed, 2);
		WRITE_ONCE(inside[index], 0);
		ret = gate_leave(domains);
		WRITE_ONCE(entries[index], entries[index] + 1);
		nap(&seed, 2000);
	}
	end(ret);
	return NULL;
}

static int child_of_many(void)
{
	return memchr(inside, 1, sizeof(inside)) ? 1 : child_copy() ? 2 : 0;
}

/* Every other one prepares first, as libforkgate does for a fork that has to wait. */
static void *fork_main(void *arg)
{
	unsigned int index = (uintptr_t)arg, seed = index;
	long ret = 0;

	begin();
	latch_wait(&go);
	while (!ret && !READ_ONCE(stop)) {
		if (index % 2)
			ret = gate_prepare(BOTH);
		if (!ret)
			ret = reap(raw_fork(0, child_of_many));
		if (!ret)
			WRITE_ONCE(forks[index], forks[index] + 1);
		nap(&seed, 100);
	}
	end(ret);
	return NULL;
}

/*
 * make_threads - @count of them, with their index as argument
 *
 * Their stacks are one mapping. A child gets it only if @copied: forks are to
 * cost what the gate costs, not what copying 32,000 stacks does.
 */
static long make_threads(unsigned int count, void *(*function)(void *), bool copied)
{
	size_t size = (size_t)count * STACK_SIZE;
	pthread_attr_t attr;
	pthread_t thread;
	unsigned int i;
	char *stacks;
	int ret = 0;

	stacks = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (stacks == MAP_FAILED || madvise(stacks, size, MADV_NOHUGEPAGE) ||
	    (!copied && madvise(stacks, size, MADV_DONTFORK)))
		return -errno;
	pthread_attr_init(&attr);
	for (i = 0; i < count && !ret; i++) {
		ret = pthread_attr_setstack(&attr, stacks + (size_t)i * STACK_SIZE, STACK_SIZE);
		if (!ret)
			ret = pthread_create(&thread, &attr, function, ARG(i));
	}
	pthread_attr_destroy(&attr);
	return -ret;
}

/* range - the least and the most of @count numbers that others write */
static void range(const unsigned int *numbers, unsigned int count, unsigned int *least,
		  unsigned int *most)
{
	unsigned int i, number;

	*least = UINT_MAX;
	*most = 0;
	for (i = 0; i < count; i++) {
		number = READ_ONCE(numbers[i]);
		if (number < *least)
			*least = number;
		if (number > *most)
			*most = number;
	}
}

static bool reached(const unsigned int *numbers, unsigned int count, unsigned int wanted)
{
	unsigned int least, most;

	range(numbers, count, &least, &most);
	return least >= wanted;
}

FIXTURE(scale) {
};

FIXTURE_SETUP(scale)
{
	setenv("KSELFTEST_WAIT", TIMEOUT, 0);
}

FIXTURE_TEARDOWN(scale)
{
}

TEST_F_TIMEOUT(scale, threads, TEST_TIMEOUT)
{
	unsigned int least, most, i;
	struct forkgate_state state;
	uint64_t sum = 0;
	bool all;

	ASSERT_EQ(0, open_gate());
	ASSERT_EQ(0, make_threads(IDLE, idle_main, false));
	ASSERT_EQ(0, make_threads(SECTIONS, section_main, false));
	ASSERT_EQ(0, make_threads(FORKERS, fork_main, true));
	ASSERT_TRUE(wait_until(READ_ONCE(ready) == THREADS - 1));
	ASSERT_EQ(0, READ_ONCE(failed));
	ASSERT_EQ(THREADS, gate_state().threads);
	TH_LOG("%d threads are registered", THREADS);

	latch_open(&go);
	all = wait_until(READ_ONCE(failed) || (reached(forks, FORKERS, FORKS) &&
					       reached(entries, SECTIONS, ENTRIES)));
	range(forks, FORKERS, &least, &most);
	TH_LOG("forks by each of %d threads: %u to %u", FORKERS, least, most);
	range(entries, SECTIONS, &least, &most);
	TH_LOG("entries by each of %d threads: %u to %u", SECTIONS, least, most);
	EXPECT_TRUE(all);

	WRITE_ONCE(stop, 1);
	EXPECT_TRUE(wait_until(READ_ONCE(ended) == SECTIONS + FORKERS));
	EXPECT_EQ(0, READ_ONCE(failed));
	for (i = 0; i < FORKERS; i++)
		sum += forks[i];
	state = gate_state();
	TH_LOG("%llu phases, %llu yields", state.phases, state.yields);
	EXPECT_EQ(THREADS, state.threads);
	EXPECT_EQ(sum, state.forks);
	EXPECT_EQ(0, state.closed);
	EXPECT_EQ(0, state.forkers);
	EXPECT_EQ(0, state.blocked);
	EXPECT_EQ(0, state.holders_count);
	EXPECT_EQ(0, state.expired);
	EXPECT_EQ(0, state.timeouts);
	EXPECT_EQ(0, state.deadlocks);
	EXPECT_EQ(0, state.unsafe);
	EXPECT_EQ(0, state.abandoned);
	EXPECT_EQ(0, state.bypasses);
}

/*
 * Processes
 */

#define PROCESSES	1000
#define HELD		10	/* of them wait to fork until all others are through */
#define ROUNDS		20	/* forks by each */

/**
 * struct meeting - shared by all processes
 * @go: a latch: fork
 * @leave: a latch: leave the sections that keep HELD of them from forking
 * @ready: processes that wait for @go
 * @through: processes that have forked ROUNDS times
 * @held_forks: forks by those that are held
 * @error: the first
 */
struct meeting {
	int go;
	int leave;
	unsigned int ready;
	unsigned int through;
	unsigned int held_forks;
	long error;
};

static struct meeting *meeting;

/* The other thread of a process; what it changes is its process's own. */
static int sibling_inside, forked;

static void *sibling_main(void *held)
{
	unsigned int seed = getpid();
	long ret = gate_register();

	if (ret > 0)
		ret = 0;
	while (!ret && !READ_ONCE(forked)) {
		ret = job_hold(ARG(MEMORY));
		if (ret)
			break;
		WRITE_ONCE(sibling_inside, 1);
		if (held)
			latch_wait(&meeting->leave);
		ret = job_drop(ARG(MEMORY));
		nap(&seed, 500);
	}
	return (void *)ret;
}

static int child_of_process(void)
{
	return child_whole() | child_copy();
}

static long process(bool held)
{
	unsigned int round;
	pthread_attr_t attr;
	pthread_t sibling;
	void *result;
	long ret;

	ret = open_gate();
	if (ret)
		return ret;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	ret = -pthread_create(&sibling, &attr, sibling_main, ARG(held));
	if (ret)
		return ret;
	if (!wait_until(READ_ONCE(sibling_inside)))
		return -ETIME;
	__atomic_add_fetch(&meeting->ready, 1, __ATOMIC_SEQ_CST);
	latch_wait(&meeting->go);
	for (round = 0; round < ROUNDS && !ret; round++) {
		ret = reap(raw_fork(0, child_of_process));
		if (held)
			__atomic_add_fetch(&meeting->held_forks, 1, __ATOMIC_SEQ_CST);
	}
	if (!ret)
		__atomic_add_fetch(&meeting->through, 1, __ATOMIC_SEQ_CST);
	WRITE_ONCE(forked, 1);
	pthread_join(sibling, &result);
	if (!ret)
		ret = (long)result;
	if (!ret && gate_state().forks != ROUNDS)
		ret = -EPROTO;
	return ret;
}

TEST_F_TIMEOUT(scale, processes, TEST_TIMEOUT)
{
	static pid_t pids[PROCESSES];
	unsigned int i, bad = 0;
	long ret;

	meeting = mmap(NULL, sizeof(*meeting), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		       -1, 0);
	ASSERT_NE(MAP_FAILED, meeting);
	/* This process has no gate: each of them opens its own. */
	for (i = 0; i < PROCESSES; i++) {
		pids[i] = fork();
		ASSERT_LE(0, pids[i]);
		if (!pids[i]) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			ret = process(i % (PROCESSES / HELD) == 0);
			fail_first(&meeting->error, ret);
			_exit(!!ret);
		}
	}
	ASSERT_TRUE(wait_until(READ_ONCE(meeting->error) ||
			       READ_ONCE(meeting->ready) == PROCESSES));
	ASSERT_EQ(0, READ_ONCE(meeting->error));
	TH_LOG("%d processes have gates", PROCESSES);

	latch_open(&meeting->go);
	EXPECT_TRUE(wait_until(READ_ONCE(meeting->error) ||
			       READ_ONCE(meeting->through) == PROCESSES - HELD));
	EXPECT_EQ(0, READ_ONCE(meeting->held_forks));
	TH_LOG("%u have forked %d times each, while %d waited", READ_ONCE(meeting->through), ROUNDS,
	       HELD);

	latch_open(&meeting->leave);
	EXPECT_TRUE(wait_until(READ_ONCE(meeting->error) ||
			       READ_ONCE(meeting->through) == PROCESSES));
	EXPECT_EQ(0, READ_ONCE(meeting->error));
	for (i = 0; i < PROCESSES; i++)
		bad += child_exit(pids[i]) != 0;
	EXPECT_EQ(0, bad);
}

TEST_HARNESS_MAIN
