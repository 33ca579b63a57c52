// SPDX-License-Identifier: GPL-2.0-only
/*
 * Failing allocations and failing copies to and from user space, one at a time
 * at every place of a call, and many at random. A call that fails says so with
 * a sensible error, changes nothing and leaks nothing; the gate works on.
 *
 * This needs a kernel with CONFIG_FAULT_INJECTION_DEBUG_FS.
 */
#include "coexist.h"
#include "../test/fault.h"

#include <poll.h>

#define MOST_FAULTS	2000

static const char *const capabilities[] = { "failslab", "fail_page_alloc", "fail_usercopy" };

static void setting(const char *capability, const char *name, const char *value)
{
	char path[100];

	snprintf(path, sizeof(path), "/sys/kernel/debug/%s/%s", capability, name);
	write_file(path, value);
}

static void set_probability(const char *percent)
{
	for (int i = 0; i < ARRAY_SIZE(capabilities); i++)
		setting(capabilities[i], "probability", percent);
}

static void set_defaults(void)
{
	set_probability("0");
	for (int i = 0; i < ARRAY_SIZE(capabilities); i++) {
		setting(capabilities[i], "task-filter", "Y");
		setting(capabilities[i], "interval", "1");
		setting(capabilities[i], "times", "-1");
		setting(capabilities[i], "space", "0");
		setting(capabilities[i], "verbose", "0");
		/* Fail those allocations too that may wait: all of ours may. */
		setting(capabilities[i], "ignore-gfp-wait", "N");
		setting(capabilities[i], "ignore-gfp-highmem", "N");
		setting(capabilities[i], "min-order", "0");
	}
}

static bool have(const char *capability)
{
	char path[100];

	snprintf(path, sizeof(path), "/sys/kernel/debug/%s/probability", capability);
	return !access(path, W_OK);
}

FIXTURE(faults)
{
	bool loaded;
	bool started;
	unsigned long trouble;
};

FIXTURE_SETUP(faults)
{
	self->loaded = forkgate_loaded();
	self->started = false;
	self->trouble = kernel_trouble();
	if (geteuid())
		SKIP(return, "needs root");
	if (!have("failslab") || !have("fail_page_alloc") ||
	    access("/proc/thread-self/fail-nth", W_OK))
		SKIP(return, "this kernel has no fault injection in debugfs");
	if (!self->loaded) {
		if (access(module_path(), R_OK))
			SKIP(return, "no module at %s", module_path());
		ASSERT_EQ(0, forkgate_load());
	}
	self->started = true;
	set_defaults();
}

FIXTURE_TEARDOWN(faults)
{
	if (!self->started)
		return;
	set_probability("0");
	give_up_gate();
	/* Nothing holds the module: no failure forgot a reference. */
	if (!access(module_path(), R_OK)) {
		EXPECT_EQ(0, forkgate_unload_idle());
		EXPECT_EQ(0, self->loaded ? forkgate_load() : 0);
	}
	EXPECT_EQ(self->trouble, kernel_trouble());
}

/*
 * The n-th failure of the calling thread
 */

static int nth = -1;

static void nth_open(struct __test_metadata *_metadata)
{
	nth = fail_nth_open();
	ASSERT_LE(0, nth);
}

/*
 * What is tried
 */

/**
 * struct operation - a call, and what makes it undone
 * @name: for messages
 * @run: 0, or a negative errno
 * @undo: after a success
 */
struct operation {
	const char *name;
	long (*run)(void);
	void (*undo)(void);
};

static long op_open(void)
{
	return gate_open();
}

static void undo_open(void)
{
	close(gate.fd);
	gate.fd = -1;
}

static long op_first_gate(void)
{
	long ret = gate_open();

	if (ret)
		return ret;
	ret = gate_map();
	if (!ret) {
		ret = gate_register();
		if (ret >= 0) {
			/* Only the caller's slot: that page was allocated. */
			ret = gate_enter(BOTH) ?: gate_leave(BOTH);
		} else {
			gate_unmap();
		}
	}
	if (ret)
		undo_open();
	return ret;
}

static void undo_first_gate(void)
{
	gate_unmap();
	gate.head = NULL;
	undo_open();
}

/* A gate whose memory for the slots of a later unit comes with a page fault */
static long op_page_fault(void)
{
	long ret = gate_open();

	if (ret)
		return ret;
	ret = gate_map();
	if (!ret)
		WRITE_ONCE(gate_unit(5)->copy, 0);
	else
		undo_open();
	return ret;
}

/* The same where a failure is an error, and not tried again */
static long op_populate(void)
{
	long ret = gate_open();

	if (ret)
		return ret;
	ret = gate_map();
	if (!ret && madvise(gate_unit(5), FORKGATE_UNIT_SIZE, MADV_POPULATE_WRITE)) {
		ret = -errno;
		gate_unmap();
	}
	if (ret)
		undo_open();
	return ret;
}

static long op_register(void)
{
	long ret = gate_register();

	return ret < 0 ? ret : 0;
}

static void undo_register(void)
{
	gate_unregister();
}

static long op_enter(void)
{
	return gate_enter_by_call(BOTH, 0);
}

static void undo_enter(void)
{
	gate_leave_by_call(BOTH);
}

static long op_enter_and_leave(void)
{
	long ret = gate_enter_by_call(BOTH, 0);

	/* A leave that fails leaves nothing: do it by hand. */
	if (!ret && gate_leave_by_call(BOTH))
		gate_leave(BOTH);
	return ret;
}

static long op_prepare(void)
{
	return gate_prepare(BOTH);
}

static void undo_prepare(void)
{
	gate_release();
}

static long op_release(void)
{
	long ret = gate_prepare(BOTH);

	if (ret)
		return ret;
	ret = gate_release();
	if (ret)
		gate_release();
	return ret;
}

static long op_poll(void)
{
	struct pollfd poll_for = { .fd = gate.fd, .events = POLLIN };
	long ret = gate_prepare_with(BOTH, FORKGATE_NONBLOCK, 0, 0, NULL);

	if (ret)
		return ret;
	ret = poll(&poll_for, 1, 0) < 0 ? -errno : 0;
	gate_release();
	return ret;
}

static long op_unregister(void)
{
	long ret = gate_unregister();

	/* What it gave back is taken again, whatever fails. */
	while (!ret && gate_register() < 0)
		;
	return ret;
}

static long op_look(void)
{
	char text[4096];
	long ret = read_file(DEBUGFS "/gates", text, sizeof(text));

	if (ret > 0)
		ret = read_file(DEBUGFS "/stats", text, sizeof(text));
	return ret < 0 ? ret : 0;
}

static long op_policy(void)
{
	struct forkgate_policy policy;
	long ret = gate_call(FORKGATE_IOC_POLICY_GET, &policy);

	return ret ?: gate_set_policy(&policy);
}

static long op_state(void)
{
	struct forkgate_holder holders[4];
	struct forkgate_state state = {
		.holders = (uintptr_t)holders,
		.holders_max = 4,
	};

	return gate_call(FORKGATE_IOC_STATE, &state);
}

static long op_health(void)
{
	struct forkgate_health health;
	struct forkgate_query query;

	return gate_call(FORKGATE_IOC_HEALTH, &health) ?: gate_call(FORKGATE_IOC_QUERY, &query);
}

/* The child's gate is complete, whatever failed on the way to it. */
static int child_complete(void)
{
	struct forkgate_state state = gate_state();

	if (child_whole() || gate.head->copy || gate.head->closed)
		return 1;
	if (state.closed || state.forkers || state.blocked || state.threads != !!slot)
		return 2;
	if (slot && (slot->tid != sys_gettid() || slot->depth[0] || slot->depth[1]))
		return 3;
	if (slot && (gate_enter_by_call(BOTH, 0) || gate_leave_by_call(BOTH)))
		return 4;
	return 0;
}

/* A child that is not as it must be: an error that no call returns */
static long reaped(pid_t pid)
{
	int ret = pid < 0 ? pid : child_exit(pid);

	return ret > 0 ? -EPROTO : ret;
}

static long op_fork(void)
{
	return reaped(raw_fork(0, child_complete));
}

static long op_fork_with_files(void)
{
	return reaped(raw_fork(CLONE_FILES, child_complete));
}

static long op_vfork(void)
{
	return reaped(spawn_vm(CLONE_VFORK, child_nothing));
}

static long op_spawn(void)
{
	return reaped(spawn_vm(0, child_nothing));
}

static long op_clone3(void)
{
	struct clone_args args = { .flags = CLONE_PIDFD, .exit_signal = SIGCHLD };
	int pidfd = -1;
	long pid;

	args.pidfd = (uintptr_t)&pidfd;
	pid = syscall(SYS_clone3, &args, sizeof(args));
	if (!pid)
		_exit(child_complete());
	if (pid > 0)
		close(pidfd);
	return reaped(pid < 0 ? -errno : pid);
}

/*
 * In a child, whose gate has its memory on demand. It knows by itself what it did
 * not get; that nothing failed is a status of its own.
 */
static int nth_in_child;

#define CHILD_NO_FAULT	50
#define CHILD_ERRNO	100

static int child_fails(void)
{
	int fd = fail_nth_open();
	bool fired;
	long ret;

	if (fd < 0 || !fail_nth(fd, nth_in_child))
		return 1;
	ret = gate_enter_by_call(BOTH, 0);
	fired = fail_nth_fired(fd);
	if (ret && (ret != -ENOMEM && ret != -EFAULT && ret != -EAGAIN))
		return 2;
	if (!ret && gate_leave_by_call(BOTH))
		return 3;
	if (child_complete())
		return 4;
	if (!fired)
		return ret ? 5 : CHILD_NO_FAULT;
	return ret ? CHILD_ERRNO : 0;
}

static long op_fork_prepared(void)
{
	long ret = gate_prepare(BOTH);

	if (ret)
		return ret;
	ret = op_fork();
	gate_release();
	return ret;
}

static struct worker holder, forker;

#define FORK_OPERATION 10

static const struct operation operations[] = {
	{ .name = "enter", .run = op_enter, .undo = undo_enter },
	{ .name = "enter and leave", .run = op_enter_and_leave },
	{ .name = "policy", .run = op_policy },
	{ .name = "state", .run = op_state },
	{ .name = "health", .run = op_health },
	{ .name = "prepare", .run = op_prepare, .undo = undo_prepare },
	{ .name = "prepare and release", .run = op_release },
	{ .name = "prepare and poll", .run = op_poll },
	{ .name = "unregister", .run = op_unregister },
	{ .name = "look", .run = op_look },
	{ .name = "fork", .run = op_fork },
	{ .name = "fork with shared files", .run = op_fork_with_files },
	{ .name = "vfork", .run = op_vfork },
	{ .name = "spawn", .run = op_spawn },
	{ .name = "clone3", .run = op_clone3 },
	{ .name = "fork with a ticket", .run = op_fork_prepared },
};

static bool sane(long ret)
{
	return !ret || ret == -ENOMEM || ret == -EFAULT || ret == -EAGAIN || ret == -ENOBUFS;
}

static bool idle(void)
{
	struct forkgate_state state = gate_state();

	return !state.closed && !state.forkers && !state.blocked && !state.holders_count &&
	       !gate.head->closed && !state.bypasses && !state.unsafe;
}

/* try_all - fail every place of an operation in turn; how many there were */
static int try_all(struct __test_metadata *_metadata, const struct operation *op, bool gated)
{
	int failures = 0, kinds[200] = { 0 };
	long ret;

	for (int n = 1; n < MOST_FAULTS; n++) {
		fail_nth(nth, n);
		ret = op->run();
		if (!fail_nth_fired(nth)) {
			EXPECT_EQ(0, ret) TH_LOG("%s, nothing fails", op->name);
			if (!ret && op->undo)
				op->undo();
			printf("# %s: %d places, %d made it fail:", op->name, n - 1, failures);
			for (int i = 0; i < ARRAY_SIZE(kinds); i++) {
				if (kinds[i])
					printf(" %s %d", strerrorname_np(i), kinds[i]);
			}
			printf("\n");
			return n - 1;
		}
		EXPECT_TRUE(sane(ret)) TH_LOG("%s, place %d: %s", op->name, n, strerror(-ret));
		if (ret) {
			failures++;
			kinds[-ret < ARRAY_SIZE(kinds) ? -ret : 0]++;
		} else if (op->undo) {
			op->undo();
		}
		if (gated)
			ASSERT_TRUE(idle()) TH_LOG("%s, place %d: %ld", op->name, n, ret);
	}
	EXPECT_TRUE(false) TH_LOG("%s: no end", op->name);
	return MOST_FAULTS;
}

/* still_works - a clone waits, and is let through */
static void still_works(struct __test_metadata *_metadata)
{
	ASSERT_EQ(0, run(&holder, job_hold, ARG(BOTH)));
	start(&forker, job_fork, &fork_both);
	ASSERT_TRUE(wait_until(!busy(&forker) || worker_waits(&forker, 1)));
	EXPECT_TRUE(busy(&forker));
	ASSERT_EQ(0, run(&holder, job_drop, ARG(BOTH)));
	EXPECT_EQ(0, finish_fork(&forker));
	EXPECT_TRUE(idle());
}

TEST_F_TIMEOUT(faults, at_every_place, 3600)
{
	static const struct operation first[] = {
		{ .name = "open", .run = op_open, .undo = undo_open },
		{ .name = "first gate", .run = op_first_gate, .undo = undo_first_gate },
		{ .name = "page fault", .run = op_page_fault, .undo = undo_first_gate },
		{ .name = "populate", .run = op_populate, .undo = undo_first_gate },
	};
	static const struct operation registration = {
		.name = "register",
		.run = op_register,
		.undo = undo_register,
	};

	nth_open(_metadata);
	for (int i = 0; i < ARRAY_SIZE(first); i++)
		EXPECT_LT(0, try_all(_metadata, &first[i], false));

	ASSERT_EQ(0, gate_open());
	ASSERT_EQ(0, gate_map());
	ASSERT_EQ(0, worker_new(&holder));
	ASSERT_EQ(0, worker_new(&forker));
	EXPECT_LT(0, try_all(_metadata, &registration, true));
	slot = NULL;
	EXPECT_LT(0, try_all(_metadata, &operations[FORK_OPERATION], true));
	ASSERT_LE(0, gate_register());
	ASSERT_EQ(0, gate_set_policy(&patient_policy));
	still_works(_metadata);
	for (int i = 0; i < ARRAY_SIZE(operations); i++) {
		EXPECT_LT(0, try_all(_metadata, &operations[i], true));
		still_works(_metadata);
	}
	gate.msync = true;
	for (int i = 0; i < FORK_OPERATION; i++)
		EXPECT_LT(0, try_all(_metadata, &operations[i], true));
	still_works(_metadata);
}

TEST_F_TIMEOUT(faults, in_a_child, 3600)
{
	int failures = 0;
	long ret;

	ASSERT_LE(0, gate_setup());
	ASSERT_EQ(0, worker_new(&holder));
	ASSERT_EQ(0, worker_new(&forker));
	for (nth_in_child = 1; nth_in_child < MOST_FAULTS; nth_in_child++) {
		ret = child_exit(raw_fork(0, child_fails));
		if (ret == CHILD_NO_FAULT)
			break;
		EXPECT_TRUE(!ret || ret == CHILD_ERRNO) TH_LOG("place %d: %ld", nth_in_child, ret);
		failures += !!ret;
	}
	printf("# %d places, %d made it fail\n", nth_in_child - 1, failures);
	EXPECT_LT(0, failures);
	ASSERT_LT(nth_in_child, MOST_FAULTS);
	still_works(_metadata);
}

/*
 * Failures in what has to wait for another thread, which is inside, or holds a
 * ticket, until then
 */

static long begin_inside(void)
{
	return run(&holder, job_hold, ARG(BOTH));
}

static long begin_ticket(void)
{
	return run(&holder, job_prepare, ARG(BOTH));
}

/* until this call waits, or has failed */
static void *let_go(void *done)
{
	wait_until(gate_state().forkers == 1 || __atomic_load_n((int *)done, __ATOMIC_SEQ_CST));
	run(&holder, job_drop, ARG(BOTH));
	return NULL;
}

static void *let_in(void *done)
{
	wait_until(gate_state().blocked == 1 || __atomic_load_n((int *)done, __ATOMIC_SEQ_CST));
	run(&holder, job_release, NULL);
	return NULL;
}

/**
 * struct waiting - a call that has to wait
 * @begin: what the other thread does first
 * @end: what makes it end the wait
 * @operation: the call
 */
struct waiting {
	long (*begin)(void);
	void *(*end)(void *done);
	struct operation operation;
};

static void try_waiting(struct __test_metadata *_metadata, const struct waiting *waiting)
{
	const struct operation *op = &waiting->operation;
	int n, done, failures = 0;
	bool fired = true;
	pthread_t helper;
	long ret;

	for (n = 1; n < MOST_FAULTS && fired; n++) {
		done = 0;
		ASSERT_EQ(0, waiting->begin());
		ASSERT_EQ(0, pthread_create(&helper, NULL, waiting->end, &done));
		fail_nth(nth, n);
		ret = op->run();
		fired = fail_nth_fired(nth);
		__atomic_store_n(&done, 1, __ATOMIC_SEQ_CST);
		pthread_join(helper, NULL);
		EXPECT_TRUE(sane(ret)) TH_LOG("%s, place %d: %s", op->name, n, strerror(-ret));
		failures += !!ret;
		if (!ret && op->undo)
			op->undo();
		ASSERT_TRUE(idle()) TH_LOG("%s, place %d: %ld", op->name, n, ret);
	}
	EXPECT_EQ(0, ret) TH_LOG("%s, nothing fails", op->name);
	printf("# %s that waits: %d places, %d made it fail\n", op->name, n - 2, failures);
	EXPECT_FALSE(fired) TH_LOG("%s: no end", op->name);
	still_works(_metadata);
}

TEST_F_TIMEOUT(faults, while_a_call_waits, 3600)
{
	static const struct waiting waits[] = {
		{ begin_inside, let_go, { .name = "fork", .run = op_fork } },
		{ begin_inside, let_go, { .name = "vfork", .run = op_vfork } },
		{ begin_inside, let_go,
		  { .name = "prepare", .run = op_prepare, .undo = undo_prepare } },
		{ begin_ticket, let_in, { .name = "enter", .run = op_enter, .undo = undo_enter } },
	};

	nth_open(_metadata);
	ASSERT_LE(0, gate_setup());
	ASSERT_EQ(0, worker_new(&holder));
	ASSERT_EQ(0, worker_new(&forker));
	for (int i = 0; i < ARRAY_SIZE(waits); i++)
		try_waiting(_metadata, &waits[i]);
}

/*
 * At random, in several threads
 */

static int stop;
static long tried, failed;
static char insane[100];

static long job_random(void *number)
{
	unsigned int seed = (uintptr_t)number;
	long ret;
	int i;

	/* for its being without an rseq area */
	close(fail_nth_open());
	if (write_file("/proc/thread-self/make-it-fail", "1"))
		return -EIO;
	while (!READ_ONCE(stop)) {
		i = rand_r(&seed) % ARRAY_SIZE(operations);
		ret = operations[i].run();
		if (!ret && operations[i].undo)
			operations[i].undo();
		/* An undo may fail as well. */
		gate_release();
		while (slot->depth[0])
			gate_leave(MEMORY);
		while (slot->depth[1])
			gate_leave(FILES);
		__atomic_add_fetch(&tried, 1, __ATOMIC_RELAXED);
		__atomic_add_fetch(&failed, !!ret, __ATOMIC_RELAXED);
		if (!sane(ret))
			snprintf(insane, sizeof(insane), "%s: %s", operations[i].name,
				 strerror(-ret));
	}
	while (write_file("/proc/thread-self/make-it-fail", "0"))
		;
	return 0;
}

TEST_F(faults, at_random)
{
	struct forkgate_policy policy;
	struct worker workers[4];

	ASSERT_LE(0, gate_setup());
	policy = patient_policy;
	policy.patience = 10 * NSEC_PER_MSEC;
	policy.ticket_hold = 100 * NSEC_PER_MSEC;
	ASSERT_EQ(0, gate_set_policy(&policy));
	ASSERT_EQ(0, worker_new(&holder));
	ASSERT_EQ(0, worker_new(&forker));
	for (int i = 0; i < ARRAY_SIZE(workers); i++)
		ASSERT_EQ(0, worker_new(&workers[i]));
	set_probability("5");
	for (int i = 0; i < ARRAY_SIZE(workers); i++)
		start(&workers[i], job_random, ARG(i + 1));
	EXPECT_TRUE(wait_until(READ_ONCE(tried) > 1000 && READ_ONCE(failed) > 100));
	WRITE_ONCE(stop, 1);
	for (int i = 0; i < ARRAY_SIZE(workers); i++)
		EXPECT_EQ(0, finish(&workers[i]));
	set_probability("0");
	printf("# %ld calls, %ld failed\n", tried, failed);
	EXPECT_STREQ("", insane);
	EXPECT_TRUE(idle());
	ASSERT_EQ(0, gate_set_policy(&patient_policy));
	still_works(_metadata);
}

TEST_HARNESS_MAIN
