// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rule 13: kernel memory is charged to who caused it, and given back when he
 * gives it back: a process that maps and unmaps has no more than a few mappings
 * outstanding.
 */
#include "test/harness.h"

#include <sys/stat.h>

#define GROUP		"/sys/fs/cgroup/forkgate_outstanding"
#define PROCESSES	3
#define ROUNDS		100
#define ROUNDS_SLOW	20	/* with all checkers on: 60 mappings are three times the limit */

FIXTURE(outstanding) {
};

FIXTURE_SETUP(outstanding)
{
	if (mkdir(GROUP, 0755) && errno != EEXIST)
		SKIP(return, "no cgroup v2: %s", strerror(errno));
	if (access(GROUP "/memory.peak", R_OK)) {
		rmdir(GROUP);
		SKIP(return, "no memory controller with a peak, or not root");
	}
}

FIXTURE_TEARDOWN(outstanding)
{
	write_file(GROUP "/cgroup.kill", "1");
	wait_until(!rmdir(GROUP) || errno != EBUSY);
}

static long usage(const char *file)
{
	char text[32];

	return read_file(file, text, sizeof(text)) > 0 ? atol(text) : -1;
}

static bool map_and_unmap(int rounds)
{
	char *map;
	int i;

	for (i = 0; i < rounds; i++) {
		map = mmap(NULL, FORKGATE_MAP_SIZE, PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_POPULATE, gate.fd, 0);
		if (map == MAP_FAILED)
			return false;
		if (munmap(map, FORKGATE_MAP_SIZE))
			return false;
	}
	return true;
}

static int in_group(int rounds)
{
	char text[32];

	snprintf(text, sizeof(text), "%d", getpid());
	if (write_file(GROUP "/cgroup.procs", text) || gate_open())
		return 1;
	return map_and_unmap(rounds) ? 0 : 2;
}

TEST_F(outstanding, mappings)
{
	pid_t pid[PROCESSES];
	long peak;
	int i;

	for (i = 0; i < PROCESSES; i++) {
		pid[i] = fork();
		ASSERT_LE(0, pid[i]);
		if (!pid[i])
			_exit(in_group(slow_factor() > 2 ? ROUNDS_SLOW : ROUNDS));
	}
	for (i = 0; i < PROCESSES; i++)
		EXPECT_EQ(0, child_exit(pid[i]));
	peak = usage(GROUP "/memory.peak");
	TH_LOG("at most %ld KiB, a mapping has %d", peak / 1024, (int)FORKGATE_MAP_SIZE / 1024);
	ASSERT_LT(0, peak);
	/* Each process has one, and one on its way out; processors keep some charge at hand. */
	EXPECT_GT(PROCESSES * 2L * (long)FORKGATE_MAP_SIZE + (8L << 20), peak);
}

TEST_HARNESS_MAIN
