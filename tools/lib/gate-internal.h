/* SPDX-License-Identifier: LGPL-2.1-or-later OR MIT */
/*
 * The library's own gate: its memory, and how the rest of the library reaches it
 *
 * Must not be installed. Copies of the library in one process share this memory:
 * whatever changes here changes FORKGATE_GENERATION.
 */
#ifndef _FORKGATE_GATE_INTERNAL_H
#define _FORKGATE_GATE_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "internal.h"

#define FORKGATE_GENERATION	1

/**
 * struct place - what the gate knows of the owner of a slot
 * @thread: the owner: the address of its thread-local memory. There is one slot
 *	at most for each. NULL in a free place.
 * @pid: the process of the owner, to ask whether it still exists
 * @need: domains of the owner's fork that waits; 0: none waits
 * @phase: phase that this fork belongs to, or an earlier one
 * @order: number of this fork among all
 * @since: when it began to wait, ns
 * @polled: the owner does not sleep, it polls, even if it has lost its place
 * @polled_for: domains that it polls for
 * @listed: of the first thread of the process: it has a list of robust locks
 * @expired: its last ticket has expired
 * @arrival: the owner's number among those kept out, 0 if it is not
 * @pass: domains for which the policy lets its next clone go ahead unsafe
 * @event: futex, changes when this fork has to look again
 * @inside: domains that its sections are of, those of a signal handler not counted
 *	which has interrupted the wait
 * @reached: somebody waits for it, see in_a_circle()
 * @cursor: slots before this one are idle in @need ...
 * @seen: ... unless gate.admitted has another value than this
 * @until: when it loses its place unless it looks again, ns
 * @look_at: when it should look, if it polls, ns
 * @timer: descriptor of the timer that is polled, plus 1; the owner's
 * @pass_until: when @pass ends, ns
 * @patience: ns, of this fork
 * @next: in the list of forks that wait, by @order
 * @attempt: the call in which the owner forks; inner ones, of signal handlers,
 *	first
 *
 * Guarded by the gate's lock; @attempt is the owner's.
 */
struct place {
	void *thread;
	pid_t pid;
	__u32 need;
	__u32 phase;
	__u32 order;
	bool polled;
	__u8 polled_for;
	bool listed;
	bool expired;
	__u8 pass;
	__u8 inside;
	bool reached;
	__u32 timer;
	__u32 arrival;
	__u32 event;
	__u32 cursor;
	__u32 seen;
	__u64 since;
	__u64 until;
	__u64 look_at;
	__u64 pass_until;
	__u64 patience;
	struct place *next;
	struct fork_attempt *attempt;
};

/**
 * struct gate - the state of the gate
 * @live: 0 in memory that is new or that the kernel has wiped
 * @home: the process
 * @lock: futex: 0 free, 1 taken, 2 taken and waited for
 * @closed: domains closed: what members of the phase and the holder need
 * @phase: number of the phase, which lasts while @closed is not 0
 * @granted: the phase has had its first grant, and has not yielded since
 * @strict: newcomers find both domains closed, until the end of the phase
 * @order: number of the fork that came last
 * @patience: of the phase, ns
 * @yield_at: when the drain yields, ns
 * @arrivals: number of the thread that was kept out last
 * @released: number of the last one that need not wait for the phase to end
 * @blocked: how many are kept out that are not released
 * @pending: how many are released and have not counted themselves in
 * @pending_until: when the gate stops waiting for those, ns
 * @event: futex, changes when whoever is kept out has to look again
 * @admitted: how often a thread has got inside a closed domain
 * @forks: those that wait, by order
 * @holder: who has the ticket
 * @copying: it has verified that, and makes the copy
 * @holder_need: the domains of the ticket
 * @holder_until: when it expires, ns; copies are spoiled then
 * @copy: number of the last copy
 * @first_copy: number of the first one with this ticket
 * @doomed: this is the child of a spoiled copy, and must not go on
 * @state: counters for FORKGATE_IOC_STATE
 *
 * Guarded by @lock. The kernel wipes this in every child that gets a copy of the
 * memory, however it was made: what is zero is an open gate without forks.
 */
struct gate {
	__u32 live;
	__u32 lock;
	pid_t home;
	__u32 closed;
	__u32 phase;
	bool granted;
	bool strict;
	__u32 order;
	__u64 patience;
	__u64 yield_at;
	__u32 arrivals;
	__u32 released;
	__u32 blocked;
	__u32 pending;
	__u64 pending_until;
	__u32 event;
	__u32 admitted;
	struct place *forks;
	struct place *holder;
	bool copying;
	__u32 holder_need;
	__u64 holder_until;
	__u32 copy;
	__u32 first_copy;
	bool doomed;
	struct forkgate_state state;
};

/*
 * A copy is judged by whoever comes first: the child, or the parent when the call
 * has returned, says that it is complete; or a thread that was kept out for too
 * long goes in and says that it is spoiled. So this word is shared with the child.
 * It has the number of the copy in the bits above.
 */
#define COPY_RUNS	0u
#define COPY_COMPLETE	1u
#define COPY_SPOILED	2u
#define COPY_DISCARDED	3u	/* spoiled, and the parent is done with it */
#define COPY_STATE(word)	((word) & 3)
#define COPY_NUMBER(word)	((word) >> 2)
#define COPY_WORD(number, state)	((number) << 2 | (state))
#define COPIES		1024u	/* words; one may be used again after so many copies */

/**
 * struct kept - what a child inherits
 * @strict: domains that look closed for ever: FORKGATE_STRICT
 * @slots: how many slots, and places, are or were in use
 * @copy: FORKGATE_COPY_*, as in the header of each unit
 * @copy_time: how long a copy of the memory took, the longest, ns
 * @copies: words that judge copies, shared with children; NULL: none yet
 * @policy: of the gate
 *
 * Guarded by the gate's lock.
 */
struct kept {
	__u32 strict;
	__u32 slots;
	__u32 copy;
	__u64 copy_time;
	__u32 *copies;
	struct forkgate_policy policy;
};

/* Parts begin at pages, of whatever size. */
#define PART	65536

struct own_gate {
	union {
		struct gate gate;
		char gate_part[PART];
	};
	union {
		struct kept kept;
		char kept_part[PART];
	};
	/* as in the mapping of the device */
	char units[FORKGATE_MAP_SIZE];
	struct place places[FORKGATE_SLOTS];
};

/* gate.c. All but the first is async-signal-safe and leaves errno alone. */

/**
 * __forkgate_gate_make() - a gate for a process that has none
 * @made: where it goes to
 *
 * Return: 0, or why there cannot be one: ENOSYS (no membarrier(2) or no
 * MADV_WIPEONFORK), ENOMEM.
 */
int __forkgate_gate_make(struct own_gate **made);

/**
 * __forkgate_gate_strict() - send all entries to forkgate_enter_slow()
 * @own: the gate
 */
void __forkgate_gate_strict(struct own_gate *own);

/**
 * __forkgate_gate_call() - do what the module does for this call
 * @own: the gate
 * @request: FORKGATE_IOC_*
 * @arg: its argument
 *
 * Return: 0 or an error number, as in forkgate(4).
 */
int __forkgate_gate_call(struct own_gate *own, unsigned long request, void *arg);

/**
 * __forkgate_gate_copy() - the last thing before a copy: verify the ticket
 * @own: the gate
 * @attempt: the call that forks; its slot is one of the gate's
 *
 * An expired ticket is asked for again, for as long as the patience lasts; if
 * that is not enough, @attempt is refused.
 *
 * Return: whether it is not.
 */
bool __forkgate_gate_copy(struct own_gate *own, struct fork_attempt *attempt);

/**
 * __forkgate_gate_copied() - the first thing after it, on the parent's memory
 * @own: the gate
 * @attempt: the same
 *
 * Ends the ticket. A spoiled copy is to be thrown away, if fork_discards().
 */
void __forkgate_gate_copied(struct own_gate *own, struct fork_attempt *attempt);

/**
 * __forkgate_gate_discarded() - a spoiled copy is thrown away
 * @own: the gate
 * @attempt: the same
 */
void __forkgate_gate_discarded(struct own_gate *own, struct fork_attempt *attempt);

/**
 * __forkgate_gate_child() - in the child, as its only thread
 * @own: the gate
 *
 * Does not return if the copy is spoiled.
 */
void __forkgate_gate_child(struct own_gate *own);

/**
 * __forkgate_gate_descriptor() - what to poll after PREPARE has said EAGAIN
 * @own: the gate
 *
 * Return: a descriptor of the thread's, readable then, or -1.
 */
int __forkgate_gate_descriptor(struct own_gate *own);

/**
 * __forkgate_gate_attempt() - the call in which a thread forks
 * @own: the gate
 * @slot: the thread's
 *
 * Return: where that is kept; only the thread uses it.
 */
struct fork_attempt **__forkgate_gate_attempt(struct own_gate *own,
					      const struct forkgate_slot *slot);

/* forkgate.c */

/**
 * __forkgate_move() - move a new descriptor out of the way
 * @fd: the descriptor, or a negative error number
 *
 * Return: its new number, or @fd.
 */
int __forkgate_move(int fd);

/* copies.c */

/**
 * __forkgate_copies_gate() - the gate that another copy of the library has made
 * @error: set to ENOTSUP if there is one, of another generation
 *
 * Return: the gate, or NULL.
 */
struct own_gate *__forkgate_copies_gate(int *error);

/* The gate of this copy, and where the others find it. Written once. */
extern struct own_gate *__forkgate_own;

/* Return: the library's own gate; NULL if the process has none, or the module's. */
static inline struct own_gate *own_gate(void)
{
	return __atomic_load_n(&__forkgate_own, __ATOMIC_ACQUIRE);
}

#endif /* _FORKGATE_GATE_INTERNAL_H */
