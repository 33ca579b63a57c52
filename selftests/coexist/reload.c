// SPDX-License-Identifier: GPL-2.0-only
/*
 * Loading, unloading and loading again under storms: of clones that do not use
 * the module, of programs that come and go, and of gated clones. Unloading is
 * refused while any process has a gate, and leaves nothing behind when it is not.
 */
#include "coexist.h"

#define STORMERS	4

static int rounds(int usual)
{
	const char *given = getenv("FORKGATE_RELOADS");

	return given ? atoi(given) : usual;
}

FIXTURE(reload)
{
	bool loaded;
	unsigned long trouble;
};

FIXTURE_SETUP(reload)
{
	self->loaded = forkgate_loaded();
	self->trouble = kernel_trouble();
	if (geteuid())
		SKIP(return, "needs root");
	if (access(module_path(), R_OK))
		SKIP(return, "no module at %s", module_path());
	if (!self->loaded)
		ASSERT_EQ(0, forkgate_load());
}

FIXTURE_TEARDOWN(reload)
{
	if (self->loaded && !forkgate_loaded())
		EXPECT_EQ(0, forkgate_load());
	if (!self->loaded && forkgate_loaded())
		EXPECT_EQ(0, forkgate_unload_idle());
	EXPECT_EQ(self->trouble, kernel_trouble());
}

/*
 * Processes that storm until they are told to stop
 */

struct storm {
	int stop;
	long work[STORMERS];
	char failed[STORMERS][140];
	pid_t pid[STORMERS];
};

static bool storm_start(struct storm *storm, void (*job)(struct storm *storm, int n))
{
	pid_t pid;

	for (int i = 0; i < STORMERS; i++) {
		pid = fork();
		if (pid < 0)
			return false;
		if (!pid) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			job(storm, i);
			_exit(0);
		}
		storm->pid[i] = pid;
	}
	return true;
}

/* storm_works - has every process done something since? */
static bool storm_works(struct storm *storm)
{
	long before[STORMERS];

	for (int i = 0; i < STORMERS; i++)
		before[i] = READ_ONCE(storm->work[i]);
	for (int i = 0; i < STORMERS; i++) {
		if (!wait_until(READ_ONCE(storm->work[i]) != before[i]))
			return false;
	}
	return true;
}

/* storm_stop - number of processes that failed */
static int storm_stop(struct storm *storm)
{
	int bad = 0, ret;

	WRITE_ONCE(storm->stop, 1);
	for (int i = 0; i < STORMERS; i++) {
		ret = child_exit(storm->pid[i]);
		if (ret || storm->failed[i][0]) {
			printf("# process %d: %d %s\n", i, ret, storm->failed[i]);
			bad++;
		}
	}
	return bad;
}

static void storm_failed(struct storm *storm, int n, const char *what, long how)
{
	snprintf(storm->failed[n], sizeof(storm->failed[n]), "%s: %ld", what, how);
}

/* Clones of processes that know nothing of the module: all of them succeed. */
static void clone_plain(struct storm *storm, int n)
{
	static const unsigned long flags[] = { 0, CLONE_FILES };
	int ret;

	while (!READ_ONCE(storm->stop)) {
		ret = child_exit(raw_fork(flags[storm->work[n] % 2], child_nothing));
		if (!ret && storm->work[n] % 4 == 3)
			ret = child_exit(spawn_vm(CLONE_VFORK, child_nothing));
		if (ret)
			return storm_failed(storm, n, "clone", ret);
		storm->work[n]++;
		/* Half of them leave the others some time. */
		if (n % 2)
			wait_tick(0);
	}
}

/*
 * Programs that open, map, register, unmap and close, in every order, with and
 * without the descriptor; without a device half of the time.
 */
static void open_and_map(struct storm *storm, int n)
{
	unsigned int seed = n + 1;
	int ret;

	while (!READ_ONCE(storm->stop)) {
		storm->work[n]++;
		if (rand_r(&seed) % 2)
			wait_tick(0);
		ret = gate_open();
		if (ret) {
			/* ENXIO: the device is about to go. */
			if (ret != -ENOENT && ret != -ENODEV && ret != -ENXIO)
				return storm_failed(storm, n, "open", ret);
			continue;
		}
		if (rand_r(&seed) % 4) {
			ret = gate_map();
			if (ret)
				return storm_failed(storm, n, "map", ret);
			if (rand_r(&seed) % 2)
				close(gate.fd);
			gate.msync = rand_r(&seed) % 2;
			ret = gate_register();
			if (ret < 0 && ret != -EBADF)
				return storm_failed(storm, n, "register", ret);
			gate_unmap();
			gate.msync = false;
		}
		close(gate.fd);
	}
}

/* Processes with threads whose clones wait and that end right after that */
static void clone_gated(struct storm *storm, int n)
{
	struct probe *probe, result;

	while (!READ_ONCE(storm->stop)) {
		if (access(DEVICE, F_OK)) {
			wait_tick(0);
			continue;
		}
		probe = probe_start(true);
		if (!probe)
			return storm_failed(storm, n, "probe", 0);
		result = probe_finish(probe);
		/* The device may have gone before it was opened. */
		if (result.failed[0] && strncmp(result.failed, "set-up", strlen("set-up")))
			return storm_failed(storm, n, result.failed, 0);
		if (result.passed || result.torn || result.bypassed)
			return storm_failed(storm, n, "a clone did not wait", result.passed);
		storm->work[n]++;
	}
}

TEST_F_TIMEOUT(reload, clone_storm, 7200)
{
	struct storm *storm = shared(sizeof(*storm));
	__u64 begin = now_ms();
	int n = rounds(200), i;

	ASSERT_TRUE(storm_start(storm, clone_plain));
	EXPECT_TRUE(storm_works(storm));
	for (i = 0; i < n; i++) {
		ASSERT_EQ(0, forkgate_unload()) TH_LOG("round %d", i);
		ASSERT_EQ(0, forkgate_load()) TH_LOG("round %d", i);
		if (i % 20 == 19)
			ASSERT_TRUE(storm_works(storm)) TH_LOG("round %d", i);
		if (i % 50 == 49)
			printf("# %d reloads in %llu s\n", i + 1, (now_ms() - begin) / 1000);
	}
	EXPECT_EQ(0, storm_stop(storm));
	printf("# unloaded %d times\n", n);
	for (i = 0; i < STORMERS; i++)
		printf("# process %d: %ld clones\n", i, storm->work[i]);
}

/* Unload as often as it is possible while others use it. */
static void reload_busy(struct __test_metadata *_metadata, void (*job)(struct storm *storm, int n),
			int n)
{
	struct storm *storm = shared(sizeof(*storm));
	int unloaded = 0, refused = 0, ret;
	__u64 limit = wait_limit();

	ASSERT_TRUE(storm_start(storm, job));
	EXPECT_TRUE(storm_works(storm));
	while (unloaded < n && now_ms() < limit) {
		ret = forkgate_unload();
		if (ret == -EAGAIN) {
			refused++;
			continue;
		}
		ASSERT_EQ(0, ret);
		unloaded++;
		ASSERT_EQ(0, forkgate_load());
	}
	EXPECT_TRUE(storm_works(storm));
	EXPECT_EQ(0, storm_stop(storm));
	printf("# unloaded %d times, refused %d times\n", unloaded, refused);
	ASSERT_EQ(0, forkgate_unload_idle());
	ASSERT_EQ(0, forkgate_load());
}

TEST_F(reload, open_and_map_storm)
{
	reload_busy(_metadata, open_and_map, rounds(200) / 10);
}

TEST_F(reload, gated_clone_storm)
{
	reload_busy(_metadata, clone_gated, rounds(200) / 10);
}

/*
 * Refused
 */

#define EXPECT_REFUSED() EXPECT_EQ(-EAGAIN, forkgate_unload())

static void expect_unloads(struct __test_metadata *_metadata)
{
	EXPECT_EQ(0, forkgate_unload_idle());
	EXPECT_FALSE(forkgate_loaded());
	EXPECT_EQ(0, forkgate_load());
}

TEST_F(reload, refused_while_open)
{
	ASSERT_EQ(0, gate_open());
	EXPECT_REFUSED();
	close(gate.fd);
	expect_unloads(_metadata);
}

TEST_F(reload, refused_while_mapped)
{
	ASSERT_EQ(0, gate_open());
	ASSERT_EQ(0, gate_map());
	close(gate.fd);
	EXPECT_REFUSED();
	gate_unmap();
	expect_unloads(_metadata);
}

/* A mapping goes as a whole or not at all. */
TEST_F(reload, refused_while_a_part_is_unmapped)
{
	ASSERT_LE(0, gate_setup());
	close(gate.fd);
	EXPECT_EQ(-1, munmap((char *)gate.head + 4096, FORKGATE_MAP_SIZE - 4096));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_REFUSED();
	EXPECT_EQ(0, gate_unmap());
	expect_unloads(_metadata);
}

static int stay(void)
{
	while (pause())
		;
	return 0;
}

TEST_F(reload, refused_while_a_child_has_a_gate)
{
	struct fork_how how = { .child = stay };
	pid_t pid;

	ASSERT_LE(0, gate_setup());
	pid = job_fork(&how);
	ASSERT_LT(0, pid);
	gate_unmap();
	close(gate.fd);
	EXPECT_REFUSED();
	kill(pid, SIGKILL);
	EXPECT_EQ(CHILD_SIGNAL + SIGKILL, child_exit(pid));
	expect_unloads(_metadata);
}

static int stuck(void *stage)
{
	struct worker forker, holder;

	if (gate_setup() < 0 || worker_new(&forker) || worker_new(&holder) ||
	    run(&holder, job_hold, ARG(BOTH)))
		return 1;
	start(&forker, job_fork, &fork_both);
	if (!wait_until(worker_waits(&forker, 1)))
		return 2;
	__atomic_store_n((int *)stage, 1, __ATOMIC_SEQ_CST);
	return stay();
}

/* Killed while a clone waits and another thread is inside */
TEST_F(reload, refused_while_a_clone_waits)
{
	int *stage = shared(sizeof(*stage));
	pid_t pid;

	for (int i = 0; i < 3; i++) {
		__atomic_store_n(stage, 0, __ATOMIC_SEQ_CST);
		pid = fork();
		if (!pid)
			_exit(stuck(stage));
		ASSERT_LT(0, pid);
		ASSERT_TRUE(wait_until(__atomic_load_n(stage, __ATOMIC_SEQ_CST) ||
				       task_ended(pid)));
		EXPECT_REFUSED();
		kill(pid, SIGKILL);
		EXPECT_EQ(CHILD_SIGNAL + SIGKILL, child_exit(pid));
		expect_unloads(_metadata);
	}
}

/* child_of - the child of a vfork, once that is asleep; 0 if there is none */
static pid_t child_of(struct worker *forker)
{
	char path[60], children[40];
	pid_t pid;

	snprintf(path, sizeof(path), "/proc/self/task/%d/children", forker->tid);
	if (!wait_until(read_file(path, children, sizeof(children)) > 0))
		return 0;
	pid = atoi(children);
	return wait_until(task_asleep(pid)) ? pid : 0;
}

/*
 * The last mapping goes while a clone waits: the call is made again, and is not
 * in the module while its child stays, though it is a vfork.
 */
TEST_F(reload, after_a_clone_has_lost_its_gate)
{
	struct fork_how how = {
		.flags = CLONE_VM | CLONE_VFORK,
		.child = stay,
	};
	struct worker forker, holder;
	pid_t pid;

	ASSERT_LE(0, gate_setup());
	ASSERT_EQ(0, worker_new(&forker));
	ASSERT_EQ(0, worker_new(&holder));
	ASSERT_EQ(0, run(&holder, job_hold, ARG(BOTH)));
	ASSERT_TRUE(fork_waits(&forker, &how, 1));
	/* First, or the child gets it and holds the module. */
	close(gate.fd);
	gate_unmap();
	pid = child_of(&forker);
	ASSERT_LT(0, pid);
	expect_unloads(_metadata);
	kill(pid, SIGKILL);
	EXPECT_EQ(pid, finish(&forker));
	EXPECT_EQ(CHILD_SIGNAL + SIGKILL, child_exit(pid));
}

/* A vfork child that stays keeps its parent in the clone, and the module with it. */
TEST_F(reload, refused_while_vfork_waits_for_its_child)
{
	struct fork_how how = {
		.flags = CLONE_VM | CLONE_VFORK,
		.child = stay,
	};
	struct worker forker;
	pid_t pid;

	ASSERT_LE(0, gate_setup());
	ASSERT_EQ(0, worker_new(&forker));
	start(&forker, job_fork, &how);
	pid = child_of(&forker);
	ASSERT_LT(0, pid);
	gate_unmap();
	close(gate.fd);
	EXPECT_REFUSED();
	kill(pid, SIGKILL);
	EXPECT_EQ(pid, finish(&forker));
	EXPECT_EQ(CHILD_SIGNAL + SIGKILL, child_exit(pid));
	expect_unloads(_metadata);
}

TEST_HARNESS_MAIN
