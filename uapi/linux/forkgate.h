/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * forkgate.h - the contract between /dev/forkgate and user space
 *
 * Everything here is permanent ABI: structures only grow at their end, and the
 * selftests assert every size and offset. This file must include nothing but
 * <linux/types.h> and <linux/ioctl.h>. See forkgate(4) for the semantics of
 * every call, forkgate(7) for the terms.
 */
#ifndef _LINUX_FORKGATE_H
#define _LINUX_FORKGATE_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define FORKGATE_ABI		1

/* Domains: what a section protects. */
#define FORKGATE_MEMORY		1u	/* the address space */
#define FORKGATE_FILES		2u	/* the descriptor table */
#define FORKGATE_DOMAINS	(FORKGATE_MEMORY | FORKGATE_FILES)

/*
 * The mapping, MAP_SHARED at offset 0, is a row of units. A unit is a header of
 * 64 bytes and FORKGATE_UNIT_SLOTS slots of 64 bytes, whatever the page size
 * is: the header that belongs to a slot lies at the slot's address with the low
 * 12 bits cleared. Slot n lies at FORKGATE_SLOT_OFFSET(n). A mapping shorter
 * than FORKGATE_MAP_SIZE is valid, a longer one is not.
 */
#define FORKGATE_UNIT_SIZE	4096
#define FORKGATE_SLOT_SIZE	64
#define FORKGATE_UNIT_SLOTS	63
#define FORKGATE_UNITS		512
#define FORKGATE_SLOTS		(FORKGATE_UNITS * FORKGATE_UNIT_SLOTS)
#define FORKGATE_MAP_SIZE	(FORKGATE_UNITS * FORKGATE_UNIT_SIZE)
#define FORKGATE_SLOT_OFFSET(n)	((n) / FORKGATE_UNIT_SLOTS * FORKGATE_UNIT_SIZE + \
				 ((n) % FORKGATE_UNIT_SLOTS + 1) * FORKGATE_SLOT_SIZE)

/* forkgate_header.copy: how this process's memory came to be */
#define FORKGATE_COPY_UNSAFE_MEMORY	1u /* it went ahead after a time-out or a circle */
#define FORKGATE_COPY_UNSAFE_FILES	2u
#define FORKGATE_COPY_BYPASSED		4u /* the copy never passed the gate */

/**
 * struct forkgate_header - the first line of every unit
 * @abi: FORKGATE_ABI of the module
 * @copy: FORKGATE_COPY_*; 0 in a process whose copy was safe
 * @closed: domains whose gate may be closed. The only word that a fast path
 *	reads; written by the kernel, which never reads it back. A bit left
 *	set on an open gate only costs an extra call.
 * @reserved: zero
 */
struct forkgate_header {
	__u32 abi;
	__u32 copy;
	__u32 closed;
	__u32 reserved[13];
};

#define FORKGATE_LABEL_SIZE	24

/* forkgate_slot.outcome: how this thread's last clone or prepare ended */
#define FORKGATE_OUTCOME_NONE		0
#define FORKGATE_OUTCOME_GRANTED	1 /* all other threads were outside */
#define FORKGATE_OUTCOME_EXPIRED	2 /* EAGAIN: no ticket (any more): prepare, try again */
#define FORKGATE_OUTCOME_TIMEOUT	3 /* EAGAIN (clone), ETIMEDOUT (prepare) */
#define FORKGATE_OUTCOME_DEADLK		4 /* EDEADLK: would have waited in a circle */
#define FORKGATE_OUTCOME_UNSAFE		5 /* went ahead unsafe, as the policy says */
#define FORKGATE_OUTCOME_BYPASSED	6 /* the clone never passed the gate */

/**
 * struct forkgate_slot - one thread's counters and blame data
 * @depth: nesting of sections, [0] memory, [1] files. Written by the thread
 *	alone while it runs, and by the kernel only inside its own calls.
 * @site: code address of the last entry
 * @label_site: the @site that @label belongs to; the label is shown only
 *	while the two are equal
 * @label: name of the section for blame, NUL-padded, need not be terminated
 * @tid: thread id of the owner as the owner sees it; 0 in a free slot
 * @outcome: FORKGATE_OUTCOME_*, written by the kernel
 * @tries: FORKGATE_MEMORY while the thread tries a clone that copies memory,
 *	FORKGATE_FILES for one that copies descriptors alone. Such a clone does
 *	not wait: it fails with EAGAIN and FORKGATE_OUTCOME_EXPIRED, and the
 *	thread prepares before it clones again. Set by the thread, for one
 *	clone: the kernel clears it when that comes. Zero in a copy.
 * @reserved: zero
 */
struct forkgate_slot {
	__u32 depth[2];
	__aligned_u64 site;
	__aligned_u64 label_site;
	char label[FORKGATE_LABEL_SIZE];
	__u32 tid;
	__u32 outcome;
	__u32 tries;
	__u32 reserved;
};

/*
 * What lseek(2) returns for any file of the device, whatever it is asked: a
 * program can look whether a descriptor is one of them without a call that
 * might mean something to another file.
 */
#define FORKGATE_POSITION	0x666b6774

/* Features, forkgate_query.features */
#define FORKGATE_FEATURE_MSYNC	1u /* calls reach the gate through msync(2) */
#define FORKGATE_FEATURE_DEBUG	2u /* forced schedules are compiled in */

/**
 * struct forkgate_query - FORKGATE_IOC_QUERY; like HEALTH, it needs no mapping
 * @abi: out, FORKGATE_ABI
 * @features: out, FORKGATE_FEATURE_*
 * @slots: out, most slots of a gate
 * @slot_size: out, bytes
 * @map_size: out, bytes
 */
struct forkgate_query {
	__u32 abi;
	__u32 features;
	__u32 slots;
	__u32 slot_size;
	__aligned_u64 map_size;
};

/**
 * struct forkgate_register - FORKGATE_IOC_REGISTER
 * @flags: in, zero
 * @slot: out, number of the caller's slot
 * @offset: out, of that slot in the mapping, bytes
 */
struct forkgate_register {
	__u32 flags;
	__u32 slot;
	__aligned_u64 offset;
};

/* Flags of enter, leave and prepare */
#define FORKGATE_COUNTED	1u /* the caller changed its depth itself */
#define FORKGATE_NONBLOCK	2u /* EBUSY (enter), EAGAIN (prepare) rather than wait */
#define FORKGATE_TIMED		4u /* prepare: use forkgate_prepare.timeout */

/**
 * struct forkgate_enter - FORKGATE_IOC_ENTER
 * @domains: in, what is entered
 * @flags: in and out. FORKGATE_COUNTED: one level of every domain in
 *	@domains is already in the slot. Cleared by the kernel once it has
 *	taken levels out of the slot, so that a call restarted after a signal
 *	continues where it was.
 * @levels: in and out, levels to add to the slot upon admission; with
 *	FORKGATE_COUNTED they must be zero.
 */
struct forkgate_enter {
	__u32 domains;
	__u32 flags;
	__u32 levels[2];
};

/**
 * struct forkgate_leave - FORKGATE_IOC_LEAVE
 * @domains: in, what is left
 * @flags: in, FORKGATE_COUNTED: the levels are already out of the slot,
 *	only wake whoever waits for that
 */
struct forkgate_leave {
	__u32 domains;
	__u32 flags;
};

/**
 * struct forkgate_prepare - FORKGATE_IOC_PREPARE
 * @domains: in, what the coming clone will copy
 * @flags: in, FORKGATE_NONBLOCK, FORKGATE_TIMED
 * @timeout: in, ns that the whole wait may take, counted from the first call,
 *	or FORKGATE_FOREVER; without FORKGATE_TIMED zero, and the policy's
 *	time-out counts
 * @attempt: in, how often this fork was tried before, at most 32; doubles the
 *	patience each time
 * @outcome: out, FORKGATE_OUTCOME_*
 *
 * A wait that a signal interrupts is restarted and keeps what has passed. With
 * FORKGATE_NONBLOCK the call fails with EAGAIN instead of waiting, and poll() on
 * the descriptor that it was made with reports POLLIN when calling again is
 * worthwhile.
 */
struct forkgate_prepare {
	__u32 domains;
	__u32 flags;
	__aligned_u64 timeout;
	__u32 attempt;
	__u32 outcome;
};

#define FORKGATE_FOREVER	(~0ULL)

/* forkgate_policy.on_timeout */
#define FORKGATE_FAIL		0
#define FORKGATE_PROCEED	1

/**
 * struct forkgate_policy - FORKGATE_IOC_POLICY_GET, FORKGATE_IOC_POLICY_SET
 * @patience: ns that a drain keeps newcomers out before it yields; 0 never
 *	keeps them out
 * @ticket_hold: ns that a granted ticket, or the place of a fork interrupted
 *	by a signal, is kept
 * @timeout: ns that a prepare waits, or FORKGATE_FOREVER
 * @backstop: ns that a clone without a ticket waits asleep, or FORKGATE_FOREVER
 * @on_timeout: FORKGATE_FAIL or FORKGATE_PROCEED; also applies to circular waits
 * @pad: zero
 *
 * Times are at most FORKGATE_TIME_MAX, or FORKGATE_FOREVER except @ticket_hold.
 */
struct forkgate_policy {
	__aligned_u64 patience;
	__aligned_u64 ticket_hold;
	__aligned_u64 timeout;
	__aligned_u64 backstop;
	__u32 on_timeout;
	__u32 pad;
};

#define FORKGATE_TIME_MAX	(3600ULL * 1000000000ULL)

/**
 * struct forkgate_holder - a thread that is inside a section
 * @tid: thread id in the caller's pid namespace, 0 if it has none there
 * @domains: what it is inside of
 * @depth: its nesting
 * @site: code address of its last entry
 * @label: name of the section, NUL-padded; empty without one
 */
struct forkgate_holder {
	__s32 tid;
	__u32 domains;
	__u32 depth[2];
	__aligned_u64 site;
	char label[FORKGATE_LABEL_SIZE];
};

/**
 * struct forkgate_state - FORKGATE_IOC_STATE: the caller's own gate
 * @holders: in, address of an array of struct forkgate_holder, or 0
 * @holders_max: in, room in that array
 * @holders_count: out, how many threads are inside; may exceed @holders_max
 * @closed: out, domains closed
 * @threads: out, registered threads
 * @forkers: out, forks that wait, hold a ticket or copy
 * @blocked: out, threads that wait to enter
 * @wait_ns: out, how long the longest of those forks has been waiting
 * @forks: out, clones that passed the gate since it exists
 * @phases: out, how often the gate closed
 * @yields: out
 * @expired: out, tickets and kept places that ran out
 * @timeouts: out
 * @deadlocks: out, forks refused (or unsafe) because they would wait in a circle
 * @unsafe: out, copies that went ahead unsafe
 * @abandoned: out, threads that went away inside a section or with a ticket
 * @bypasses: out, copies of this process that never passed the gate
 */
struct forkgate_state {
	__aligned_u64 holders;
	__u32 holders_max;
	__u32 holders_count;
	__u32 closed;
	__u32 threads;
	__u32 forkers;
	__u32 blocked;
	__aligned_u64 wait_ns;
	__aligned_u64 forks;
	__aligned_u64 phases;
	__aligned_u64 yields;
	__aligned_u64 expired;
	__aligned_u64 timeouts;
	__aligned_u64 deadlocks;
	__aligned_u64 unsafe;
	__aligned_u64 abandoned;
	__aligned_u64 bypasses;
};

/**
 * struct forkgate_health - FORKGATE_IOC_HEALTH: the hook, whole machine
 * @armed: out, 1 if the hook redirects at this moment: a probe of the module's
 *	own fires and, if a copy has bypassed the hook, a clone of the module's
 *	own has passed it since
 * @pad: out, zero
 * @clones: out, clones of any process that the hook saw
 * @redirects: out, clones that it sent through a gate
 * @bypasses: out, copies of gated processes that it did not see
 */
struct forkgate_health {
	__u32 armed;
	__u32 pad;
	__aligned_u64 clones;
	__aligned_u64 redirects;
	__aligned_u64 bypasses;
};

/*
 * A call is recognised by its type and number; its size may differ. A longer
 * structure is accepted if what this module does not know is zero (E2BIG
 * otherwise), a shorter one is taken to end in zeroes (EINVAL when it is
 * shorter than in ABI 1).
 *
 * Every call works without a descriptor too: raw
 * msync(mapping, FORKGATE_UNIT_SIZE, MS_SYNC, request, argument) does what
 * ioctl(fd, request, argument) does.
 */
#define FORKGATE_IOC_TYPE	0xfa

#define FORKGATE_IOC_QUERY	_IOR(FORKGATE_IOC_TYPE, 0, struct forkgate_query)
#define FORKGATE_IOC_REGISTER	_IOWR(FORKGATE_IOC_TYPE, 1, struct forkgate_register)
#define FORKGATE_IOC_UNREGISTER	_IO(FORKGATE_IOC_TYPE, 2)
#define FORKGATE_IOC_ENTER	_IOWR(FORKGATE_IOC_TYPE, 3, struct forkgate_enter)
#define FORKGATE_IOC_LEAVE	_IOW(FORKGATE_IOC_TYPE, 4, struct forkgate_leave)
#define FORKGATE_IOC_PREPARE	_IOWR(FORKGATE_IOC_TYPE, 5, struct forkgate_prepare)
#define FORKGATE_IOC_RELEASE	_IO(FORKGATE_IOC_TYPE, 6)
#define FORKGATE_IOC_POLICY_GET	_IOR(FORKGATE_IOC_TYPE, 7, struct forkgate_policy)
#define FORKGATE_IOC_POLICY_SET	_IOW(FORKGATE_IOC_TYPE, 8, struct forkgate_policy)
#define FORKGATE_IOC_STATE	_IOWR(FORKGATE_IOC_TYPE, 9, struct forkgate_state)
#define FORKGATE_IOC_HEALTH	_IOR(FORKGATE_IOC_TYPE, 10, struct forkgate_health)

#endif /* _LINUX_FORKGATE_H */
