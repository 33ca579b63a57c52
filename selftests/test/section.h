/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * section.h - sections of the calling thread, whose slot is "slot"
 *
 * An entry is the steps E1 to E3, leaving is L1 to L3. They are apart, so that a
 * test can do something in between. It must not do more for the gate than a
 * program's fast path does.
 */
#ifndef TEST_SECTION_H
#define TEST_SECTION_H

#include "gate.h"

/* E1: count (plain stores) */
static inline void gate_count(unsigned int domains)
{
	if (domains & MEMORY)
		WRITE_ONCE(slot->depth[0], slot->depth[0] + 1);
	if (domains & FILES)
		WRITE_ONCE(slot->depth[1], slot->depth[1] + 1);
}

/* The call behind E3, repeated should a signal handler without SA_RESTART end it */
static inline long gate_enter_call(struct forkgate_enter *enter)
{
	long ret;

	do {
		ret = gate_call(FORKGATE_IOC_ENTER, enter);
	} while (ret == -EINTR);
	return ret;
}

/* E3: the test of "closed", on every entry */
static inline long gate_admit(unsigned int domains, unsigned int flags)
{
	struct forkgate_enter enter = {
		.domains = domains,
		.flags = FORKGATE_COUNTED | flags,
	};

	if (!(READ_ONCE(slot_header(slot)->closed) & domains))
		return 0;
	return gate_enter_call(&enter);
}

static inline long gate_enter_flags(unsigned int domains, unsigned int flags)
{
	gate_count(domains);
	barrier();	/* E2 */
	return gate_admit(domains, flags);
}

static inline long gate_enter(unsigned int domains)
{
	return gate_enter_flags(domains, 0);
}

/* L1: the store, releasing what was done inside */
static inline void gate_uncount(unsigned int domains)
{
	if (domains & MEMORY)
		__atomic_store_n(&slot->depth[0], slot->depth[0] - 1, __ATOMIC_RELEASE);
	if (domains & FILES)
		__atomic_store_n(&slot->depth[1], slot->depth[1] - 1, __ATOMIC_RELEASE);
}

/* L3: wake the forkers that wait for a domain that is idle now */
static inline long gate_wake(unsigned int domains)
{
	struct forkgate_leave leave = { .flags = FORKGATE_COUNTED };
	unsigned int idle = 0;

	if (domains & MEMORY && !slot->depth[0])
		idle |= MEMORY;
	if (domains & FILES && !slot->depth[1])
		idle |= FILES;
	if (!(READ_ONCE(slot_header(slot)->closed) & idle))
		return 0;
	leave.domains = idle;
	return gate_call(FORKGATE_IOC_LEAVE, &leave);
}

static inline long gate_leave(unsigned int domains)
{
	gate_uncount(domains);
	barrier();	/* L2 */
	return gate_wake(domains);
}

/* The same by calls alone, without touching the slot */
static inline long gate_enter_by_call(unsigned int domains, unsigned int flags)
{
	struct forkgate_enter enter = {
		.domains = domains,
		.flags = flags,
		.levels = { !!(domains & MEMORY), !!(domains & FILES) },
	};

	return gate_enter_call(&enter);
}

static inline long gate_leave_by_call(unsigned int domains)
{
	struct forkgate_leave leave = { .domains = domains };

	return gate_call(FORKGATE_IOC_LEAVE, &leave);
}

#endif /* TEST_SECTION_H */
