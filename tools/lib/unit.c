// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * Units of the library's own memory: slots for threads that have no gate
 *
 * A thread without a gate counts as every other one does, so its slot has to
 * lie in a unit too. These units have the layout of the mapping's, and nothing
 * but FORKGATE_STRICT sets their closed word.
 *
 * Invariant: a slot belongs to the thread whose id is in @tid and is free with
 * 0 there. It changes hands only by compare-and-swap of @tid: from 0 to the
 * caller's id (claim), from the caller's id to 0 (release), and from the id of
 * a thread that has ended to 0 (sweep). Nothing tells that a thread ends, so a
 * sweep looks for those that have when no slot is free.
 *
 * A unit belongs to the process that made it (@pid). The child of a raw clone
 * finds units of another process, in which its own thread may count under the
 * parent's id: it leaves them alone and makes a unit of its own. So does a
 * vfork child. The child of libc's fork takes over all units (child).
 *
 * There are no locks and no allocations but by mmap(2), errno stays, and units
 * are never unmapped: all of this may run in signal handlers, also in one that
 * has interrupted it.
 */
#define _GNU_SOURCE
#include <assert.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

#include "internal.h"

/**
 * struct unit - a unit, and what the library keeps in its header line
 * @header: as in the mapping
 * @shared: the fields of @header that have a meaning for others
 * @pid: the process that hands out the slots, 0: none yet
 * @next: the unit that was made before this one
 * @slots: the slots
 */
struct unit {
	union {
		struct forkgate_header header;
		struct {
			__u32 shared[3];
			pid_t pid;
			struct unit *next;
		};
	};
	struct forkgate_slot slots[FORKGATE_UNIT_SLOTS];
} __attribute__((__aligned__(FORKGATE_UNIT_SIZE)));

static_assert(sizeof(struct unit) == FORKGATE_UNIT_SIZE, "unit");
static_assert(offsetof(struct unit, slots) == FORKGATE_SLOT_SIZE, "slots");
static_assert(offsetof(struct unit, pid) >=
	      offsetof(struct unit, header.closed) + sizeof(__u32), "pid");

/* With fewer free after a sweep the next one would come too soon. */
#define SWEEP_FEW	(FORKGATE_UNIT_SLOTS / 2)

/*
 * The first unit needs no mmap(). Its last slot is never claimed: threads that
 * get no other share it. Their counts may then be wrong, and are without
 * consequence as long as nothing is protected.
 */
static struct unit first;
#define CROWD	(FORKGATE_UNIT_SLOTS - 1)

static struct unit *units = &first;

/* FORKGATE_STRICT: what is closed in every unit, new ones included */
static __u32 closed;

static int slots_of(const struct unit *unit)
{
	return unit == &first ? CROWD : FORKGATE_UNIT_SLOTS;
}

static struct unit *newest(void)
{
	return __atomic_load_n(&units, __ATOMIC_SEQ_CST);
}

static bool owned_by(const struct unit *unit, pid_t pid)
{
	return __atomic_load_n(&unit->pid, __ATOMIC_ACQUIRE) == pid;
}

static bool change_owner(struct forkgate_slot *slot, __u32 from, __u32 to)
{
	return __atomic_compare_exchange_n(&slot->tid, &from, to, false,
					   __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

static bool claim(struct forkgate_slot *slot, __u32 tid)
{
	if (__atomic_load_n(&slot->tid, __ATOMIC_RELAXED) ||
	    !change_owner(slot, 0, tid))
		return false;

	/* The last owner may have ended inside a section. */
	slot->depth[0] = 0;
	slot->depth[1] = 0;
	slot->label_site = 0;
	return true;
}

static struct forkgate_slot *find_free(pid_t pid, __u32 tid)
{
	struct unit *unit;
	int i;

	for (unit = newest(); unit; unit = unit->next) {
		if (!owned_by(unit, pid))
			continue;
		for (i = 0; i < slots_of(unit); i++)
			if (claim(&unit->slots[i], tid))
				return &unit->slots[i];
	}
	return NULL;
}

static bool ended(pid_t pid, __u32 tid)
{
	return raw_call(SYS_tgkill, pid, tid, 0) == -ESRCH;
}

/* Free the slots of threads that have ended. Return: how many are free now. */
static int sweep(pid_t pid)
{
	struct unit *unit;
	int count = 0;
	__u32 tid;
	int i;

	for (unit = newest(); unit; unit = unit->next) {
		if (!owned_by(unit, pid))
			continue;
		for (i = 0; i < slots_of(unit); i++) {
			tid = __atomic_load_n(&unit->slots[i].tid,
					      __ATOMIC_RELAXED);
			if (!tid || (ended(pid, tid) &&
				     change_owner(&unit->slots[i], tid, 0)))
				count++;
		}
	}
	return count;
}

/* Return: a slot of a new unit, or NULL without memory. */
static struct forkgate_slot *add_unit(pid_t pid, __u32 tid)
{
	int saved_errno = errno;
	struct unit *unit;

	/* A unit is aligned to its size: no page is smaller. */
	unit = mmap(NULL, sizeof(*unit), PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (unit == MAP_FAILED) {
		errno = saved_errno;
		return NULL;
	}

	unit->pid = pid;
	unit->slots[0].tid = tid;
	unit->next = newest();
	while (!__atomic_compare_exchange_n(&units, &unit->next, unit, false,
					    __ATOMIC_SEQ_CST,
					    __ATOMIC_SEQ_CST))
		;
	/* Either __forkgate_unit_strict() sees the unit, or this sees its store. */
	if (__atomic_load_n(&closed, __ATOMIC_SEQ_CST))
		__atomic_store_n(&unit->header.closed, FORKGATE_DOMAINS,
				 __ATOMIC_RELAXED);
	return &unit->slots[0];
}

struct forkgate_slot *__forkgate_unit_claim(void)
{
	pid_t pid = raw_call(SYS_getpid), none = 0;
	__u32 tid = raw_call(SYS_gettid);
	struct forkgate_slot *slot;

	__atomic_compare_exchange_n(&first.pid, &none, pid, false,
				    __ATOMIC_RELAXED, __ATOMIC_RELAXED);
	slot = find_free(pid, tid);
	if (!slot && sweep(pid) < SWEEP_FEW)
		slot = add_unit(pid, tid);
	if (!slot)
		slot = find_free(pid, tid);
	return slot ? slot : &first.slots[CROWD];
}

void __forkgate_unit_release(struct forkgate_slot *slot)
{
	change_owner(slot, raw_call(SYS_gettid), 0);
}

void __forkgate_unit_strict(void)
{
	struct unit *unit;

	__atomic_store_n(&closed, FORKGATE_DOMAINS, __ATOMIC_SEQ_CST);
	for (unit = newest(); unit; unit = unit->next)
		__atomic_store_n(&unit->header.closed, FORKGATE_DOMAINS,
				 __ATOMIC_RELAXED);
}

bool __forkgate_unit_is_strict(void)
{
	return __atomic_load_n(&closed, __ATOMIC_RELAXED);
}

void __forkgate_unit_child(void)
{
	pid_t pid = raw_call(SYS_getpid);
	struct forkgate_slot *slot;
	struct unit *unit;

	for (unit = newest(); unit; unit = unit->next) {
		if (!unit->pid)		/* no slot of it was ever claimed */
			continue;
		for (slot = unit->slots; slot < unit->slots + slots_of(unit); slot++)
			if (slot == forkgate_self)
				slot->tid = raw_call(SYS_gettid);
			else if (slot->tid)
				memset(slot, 0, sizeof(*slot));
		/* Last: a handler that claims one meanwhile does so elsewhere. */
		__atomic_store_n(&unit->pid, pid, __ATOMIC_RELEASE);
	}
}
