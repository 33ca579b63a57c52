// SPDX-License-Identifier: GPL-2.0-only
/*
 * helper - what the selftests execute: a process that knows nothing of a gate
 *
 * Must stay a program without threads and without a mapping of its own, so
 * that what it finds was left behind by the program before it (rule 10: exec
 * discards everything).
 *
 *	helper exit N		ends with status N
 *	helper fresh FD		0 if the process has no gate although it
 *				inherited a descriptor, and gets a new one that
 *				knows nothing of the past
 *	helper ids UID		0 if the effective user is UID
 *	helper sleep		waits until it is killed
 */
#include "test/fork.h"

static int fresh(int fd)
{
	struct forkgate_state state = {};
	struct forkgate_policy policy;
	char maps[65536];

	if (read_file("/proc/self/maps", maps, sizeof(maps)) <= 0)
		return 10;
	if (strstr(maps, "forkgate\n"))
		return 11;
	gate.fd = fd;
	if (gate_call(FORKGATE_IOC_STATE, &state) != -ENXIO)
		return 12;
	if (gate_call(FORKGATE_IOC_RELEASE, NULL) != -ENXIO)
		return 13;
	if (raw_fork(0, child_nothing) <= 0)
		return 14;
	if (gate_map())
		return 15;
	state = gate_state();
	if (state.closed || state.threads || state.forkers || state.blocked || state.forks)
		return 16;
	if (gate.head->closed || gate.head->copy)
		return 17;
	policy = gate_policy();
	if (policy.backstop != 10 * NSEC_PER_SEC || policy.on_timeout != FORKGATE_FAIL)
		return 18;
	return 0;
}

int main(int argc, char **argv)
{
	if (argc > 2 && !strcmp(argv[1], "exit"))
		return atoi(argv[2]);
	if (argc > 2 && !strcmp(argv[1], "fresh"))
		return fresh(atoi(argv[2]));
	if (argc > 2 && !strcmp(argv[1], "ids"))
		return geteuid() != (uid_t)atoi(argv[2]);
	if (argc > 1 && !strcmp(argv[1], "sleep")) {
		for (;;)
			pause();
	}
	return 99;
}
