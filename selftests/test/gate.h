/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * gate.h - the caller's own gate: descriptor, mapping, slots, and every call
 *
 * The tests speak the raw ABI of <linux/forkgate.h>. They must not go through
 * libforkgate, which has tests of its own.
 */
#ifndef TEST_GATE_H
#define TEST_GATE_H

#include "base.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <linux/forkgate.h>

#define MEMORY		FORKGATE_MEMORY
#define FILES		FORKGATE_FILES
#define BOTH		FORKGATE_DOMAINS

#define DEVICE		"/dev/forkgate"
#define DEBUGFS		"/sys/kernel/debug/forkgate"

static struct {
	int fd;
	struct forkgate_header *head;	/* of the first unit: the mapping itself */
	bool msync;			/* reach the gate through msync(2) */
	int (*call)(unsigned long request, void *arg);	/* or through this, if it is set */
} gate = { .fd = -1 };

/* The calling thread's, set by gate_register() */
static __thread struct forkgate_slot *slot;

/* gate_unit - the header of the n-th unit */
static inline struct forkgate_header *gate_unit(unsigned int n)
{
	return (void *)((char *)gate.head + n * (size_t)FORKGATE_UNIT_SIZE);
}

/* gate_slot - the n-th slot */
static inline struct forkgate_slot *gate_slot(unsigned int n)
{
	return (void *)((char *)gate.head + FORKGATE_SLOT_OFFSET(n));
}

/* slot_header - the header of a slot's unit, found as a fast path finds it */
static inline struct forkgate_header *slot_header(const struct forkgate_slot *of)
{
	return (void *)((uintptr_t)of & -(uintptr_t)FORKGATE_UNIT_SIZE);
}

/*
 * Calls; each returns 0, or a negative errno
 */

static inline long msync_call(void *map, unsigned long request, void *arg)
{
	return syscall(__NR_msync, map, (unsigned long)FORKGATE_UNIT_SIZE, (unsigned long)MS_SYNC,
		       request, arg);
}

static inline long gate_call(unsigned long request, void *arg)
{
	long ret;

	if (gate.call)
		return -gate.call(request, arg);
	if (gate.msync)
		ret = msync_call(gate.head, request, arg);
	else
		ret = ioctl(gate.fd, request, arg);
	return ret < 0 ? -errno : ret;
}

static inline int gate_open(void)
{
	gate.fd = open(DEVICE, O_RDWR | O_CLOEXEC);
	return gate.fd < 0 ? -errno : 0;
}

static inline void *map_device(int fd, size_t size)
{
	return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
}

static inline int gate_map(void)
{
	void *map = map_device(gate.fd, FORKGATE_MAP_SIZE);

	if (map == MAP_FAILED)
		return -errno;
	gate.head = map;
	return 0;
}

static inline int gate_unmap(void)
{
	return munmap(gate.head, FORKGATE_MAP_SIZE) ? -errno : 0;
}

/* gate_register - give the caller its slot; the slot's number or a negative errno */
static inline long gate_register(void)
{
	struct forkgate_register reg = {};
	long ret = gate_call(FORKGATE_IOC_REGISTER, &reg);

	if (ret)
		return ret;
	slot = (void *)((char *)gate.head + reg.offset);
	return reg.slot;
}

static inline long gate_unregister(void)
{
	return gate_call(FORKGATE_IOC_UNREGISTER, NULL);
}

/* gate_state - all ones when it cannot be had */
static inline struct forkgate_state gate_state(void)
{
	struct forkgate_state state = {};

	if (gate_call(FORKGATE_IOC_STATE, &state))
		memset(&state, 0xff, sizeof(state));
	return state;
}

/* gate_health - of the hook; all ones when it cannot be had */
static inline struct forkgate_health gate_health(void)
{
	struct forkgate_health health = {};

	if (gate_call(FORKGATE_IOC_HEALTH, &health))
		memset(&health, 0xff, sizeof(health));
	return health;
}

static inline long gate_prepare_with(unsigned int domains, unsigned int flags, uint64_t timeout,
				     unsigned int attempt, unsigned int *outcome)
{
	struct forkgate_prepare prepare = {
		.domains = domains,
		.flags = flags,
		.timeout = timeout,
		.attempt = attempt,
	};
	long ret = gate_call(FORKGATE_IOC_PREPARE, &prepare);

	if (outcome)
		*outcome = prepare.outcome;
	return ret;
}

static inline long gate_prepare(unsigned int domains)
{
	return gate_prepare_with(domains, 0, 0, 0, NULL);
}

static inline long gate_release(void)
{
	return gate_call(FORKGATE_IOC_RELEASE, NULL);
}

/*
 * Policy
 */

/* No timer helps: only what the test does makes anything go on. */
static const struct forkgate_policy patient_policy __maybe_unused = {
	.patience = FORKGATE_FOREVER,
	.ticket_hold = FORKGATE_TIME_MAX,
	.timeout = FORKGATE_FOREVER,
	.backstop = FORKGATE_FOREVER,
};

static inline struct forkgate_policy gate_policy(void)
{
	struct forkgate_policy policy = {};

	gate_call(FORKGATE_IOC_POLICY_GET, &policy);
	return policy;
}

static inline long gate_set_policy(const struct forkgate_policy *policy)
{
	return gate_call(FORKGATE_IOC_POLICY_SET, (void *)policy);
}

/* change_policy() - one field of it */
#define change_policy(field, value) ({					\
	struct forkgate_policy policy_ = gate_policy();			\
									\
	policy_.field = (value);					\
	gate_set_policy(&policy_); })

/* gate_setup - open, map and register the caller, with a policy without timers */
static inline int gate_setup(void)
{
	long ret;

	ret = gate_open();
	if (!ret)
		ret = gate_map();
	if (!ret)
		ret = gate_register();
	if (ret >= 0)
		ret = gate_set_policy(&patient_policy);
	return ret;
}

#endif /* TEST_GATE_H */
