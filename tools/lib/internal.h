/* SPDX-License-Identifier: LGPL-2.1-or-later OR MIT */
/*
 * What the files of the library share with each other
 *
 * Must not be installed. Everything is hidden but what says FORKGATE_EXPORT,
 * and in the static library that is hidden too: a plug-in that was linked with
 * it keeps its copy to itself. Hidden symbols of a static library can still
 * meet those of the program, so what is not static and not API is called
 * __forkgate_*.
 */
#ifndef _FORKGATE_INTERNAL_H
#define _FORKGATE_INTERNAL_H

#include <stdbool.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "forkgate.h"

#ifdef FORKGATE_SHARED
#define FORKGATE_EXPORT __attribute__((__visibility__("default")))
#else
#define FORKGATE_EXPORT __attribute__((__visibility__("hidden")))
#endif

/* Make a system call. Return: its result or a negative error number. */
#define raw_call(...) ({						\
	int saved_errno = errno;					\
	long result = syscall(__VA_ARGS__);				\
	if (result < 0)							\
		result = -errno;					\
	errno = saved_errno;						\
	result;								\
})

/* unit.c. All of it is async-signal-safe and leaves errno alone. */

/**
 * __forkgate_unit_claim() - a slot for a thread that has no gate
 *
 * Return: the slot, idle, with the caller's id.
 */
struct forkgate_slot *__forkgate_unit_claim(void);

/**
 * __forkgate_unit_release() - give back a slot of the caller
 * @slot: what __forkgate_unit_claim() has returned; idle
 */
void __forkgate_unit_release(struct forkgate_slot *slot);

/**
 * __forkgate_unit_strict() - let sections of threads without a gate fail
 *
 * Closes all units, those that are still to be made included.
 */
void __forkgate_unit_strict(void);

/**
 * __forkgate_unit_is_strict() - has __forkgate_unit_strict() been called?
 *
 * Return: true if it has.
 */
bool __forkgate_unit_is_strict(void);

/**
 * __forkgate_unit_child() - take over the units, as the only thread of a child
 *
 * The caller keeps its slot and the sections in it; all others become free.
 */
void __forkgate_unit_child(void);

/* The functions that fork, by what is to be known of them */
enum fork_kind {
	FORK_REAL,	/* fork(): runs atfork handlers */
	FORK_LATE,	/* one that the library does not see: only the handlers */
	FORK_BARE,	/* _Fork(): runs no handlers */
	FORK_VFORK,	/* vfork(): its child starts in the library */
	FORK_SPAWN,	/* its child executes a program */
};

/**
 * struct own_attempt - what the library's own gate knows of an attempt
 * @outer: the attempt that this one, in a signal handler, has interrupted
 * @began: the ticket was verified for the copy: one of the next three is set
 * @copying: it was valid
 * @unsafe: there is none, and the policy lets the copy go ahead
 * @refused: there is none
 * @judged: the copy is known to be complete or spoiled
 * @spoiled: it is spoiled
 * @keep: it has failed, perhaps before it copied: the program keeps its ticket
 * @number: of the copy
 * @since: when it began, ns
 */
struct own_attempt {
	struct fork_attempt *outer;
	bool began;
	bool copying;
	bool unsafe;
	bool refused;
	bool judged;
	bool spoiled;
	bool keep;
	__u32 number;
	__u64 since;
};

/**
 * struct fork_attempt - one call of a function that forks
 * @kind: of this function
 * @domains: what the child gets a copy of
 * @slot: the caller's, if it is the gate's; NULL without a gate
 * @tries: what the caller was trying before, in @slot
 * @tried: how often this was tried
 * @ticket: the ticket was taken for this call, not by the program before
 * @child: the process that the function has returned
 * @own: with the library's own gate
 */
struct fork_attempt {
	enum fork_kind kind;
	unsigned int domains;
	struct forkgate_slot *slot;
	unsigned int tries;
	unsigned int tried;
	bool ticket;
	pid_t child;
	struct own_attempt own;
};

/* Return: a new attempt. */
static inline struct fork_attempt fork_attempt(enum fork_kind kind)
{
	return (struct fork_attempt){
		.kind = kind,
		.domains = kind < FORK_VFORK ? FORKGATE_DOMAINS : FORKGATE_FILES,
	};
}

/* Return: whether the parent throws the child of a spoiled copy away. */
static inline bool fork_discards(const struct fork_attempt *attempt)
{
	return attempt->kind != FORK_LATE && attempt->kind != FORK_SPAWN;
}

/* forkgate.c */

/**
 * __forkgate_call() - reach the gate of the process, which has to have one
 * @request: FORKGATE_IOC_*
 * @arg: its argument
 *
 * errno is left alone. Also used by the library of tools/preload, which comes
 * from the same release.
 *
 * Return: 0 or an error number.
 *
 * Context: async-signal-safe.
 */
FORKGATE_EXPORT int __forkgate_call(unsigned long request, void *arg);

/**
 * __forkgate_gate() - has the calling thread a gate?
 *
 * Gives the thread its slot if it has none yet.
 *
 * Return: 0, or the reason of forkgate_init() why not.
 *
 * Context: async-signal-safe; errno is left alone.
 */
int __forkgate_gate(void);

/**
 * __forkgate_descriptor() - what to poll after a prepare that did not block
 *
 * To be asked after the call: it went by this descriptor if there is one.
 *
 * Return: the descriptor, or -1 without one.
 *
 * Context: async-signal-safe; errno is left alone.
 */
int __forkgate_descriptor(void);

/**
 * __forkgate_slot() - the caller's slot, which it gets if it has none
 *
 * Return: the slot.
 */
struct forkgate_slot *__forkgate_slot(void);

/**
 * __forkgate_gated() - is the slot one of the gate's, not of unit.c?
 * @slot: a slot
 *
 * Return: whether it is.
 */
bool __forkgate_gated(const struct forkgate_slot *slot);

/**
 * __forkgate_not_strict_enough() - has the thread no gate, or one that is not enough?
 *
 * Return: whether FORKGATE_STRICT makes calls fail that need a gate, or there is none.
 */
bool __forkgate_not_strict_enough(void);

/**
 * __forkgate_prepare() - take a ticket
 * @domains: as forkgate_prepare()
 * @timeout: ns, or NULL for the policy's
 * @attempt: how often this fork was tried before
 *
 * Return: as FORKGATE_IOC_PREPARE, for a thread that has a gate.
 */
int __forkgate_prepare(unsigned int domains, const __u64 *timeout,
		       unsigned int attempt);

/* attempt.c */

/**
 * __forkgate_fork_begin() - before the C library takes its locks
 * @attempt: the call; new when it is tried first
 *
 * With the module it is tried without a ticket first: the clone does not wait.
 * After that, and with the library's own gate, this takes a ticket. When none can
 * be had for a reason that has nothing to do with other threads the fork goes
 * ahead: it finds the gate in the kernel. At the library's own gate it fails if that
 * is for want of memory.
 *
 * Return: 0, or the errno that the fork has failed with.
 */
int __forkgate_fork_begin(struct fork_attempt *attempt);

/**
 * __forkgate_fork_end() - afterwards, in the parent
 * @attempt: the call
 * @failed: it has failed
 *
 * errno is left alone.
 *
 * Return: true when another thread was inside a section, or the ticket had
 * expired, so that another __forkgate_fork_begin() is worth while.
 */
bool __forkgate_fork_end(struct fork_attempt *attempt, bool failed);

/**
 * __forkgate_fork_verify() - after that, and right before the C library forks
 *
 * For the attempt that the thread is in: in its atfork handler, or where there is
 * none.
 *
 * Return: false if there is no ticket: then it must not fork, if that can be helped.
 */
bool __forkgate_fork_verify(void);

/**
 * __forkgate_fork_copied() - the copy is complete, in the parent
 *
 * For the attempt that the thread is in.
 */
void __forkgate_fork_copied(void);

/**
 * __forkgate_vfork_copied() - the same, in a vfork child
 * @attempt: the call
 *
 * Does not return if the copy is spoiled.
 */
void __forkgate_vfork_copied(struct fork_attempt *attempt);

/**
 * __forkgate_fork_child() - in a child with a copy of the memory
 */
void __forkgate_fork_child(void);

/**
 * __forkgate_fork_late() - take a ticket while atfork handlers may hold locks
 *
 * A thread that is inside a section may want one of them, so this waits no
 * longer than an unprepared clone may. The kernel counts what it has slept
 * against the clone that follows, so that both together do not wait longer.
 */
void __forkgate_fork_late(void);

/* The C library's function NAME, as the program finds it */
#ifdef FORKGATE_SHARED
#define INTERPOSED(name)	name
#else
#define INTERPOSED(name)	__wrap_##name
#endif

/* fork.c */

/**
 * __forkgate_fork_setup() - register the atfork handlers
 */
void __forkgate_fork_setup(void);

/**
 * __forkgate_fork_prepared() - fork, with a ticket
 * @real: the C library's fork()
 *
 * Return: as forkgate_fork().
 */
pid_t __forkgate_fork_prepared(pid_t (*real)(void));

/**
 * __forkgate_vfork_begin() - what vfork.S does in C before the system call
 * @err: 0, the error that vfork(2) has just failed with, or what
 *	__forkgate_vfork_end() has said
 * @which: what this has returned before, unless @err is 0
 *
 * Return: not negative: vfork (again); -1: that is the result, and errno is set.
 */
int __forkgate_vfork_begin(int err, int which);

/**
 * __forkgate_vfork_child() - and in the child
 * @which: what __forkgate_vfork_begin() has returned
 */
void __forkgate_vfork_child(int which);

/**
 * __forkgate_vfork_end() - and in the parent, when it has a child
 * @pid: the child
 * @which: likewise
 *
 * Return: 0, or -1 when the child was thrown away: once more.
 */
int __forkgate_vfork_end(pid_t pid, int which);

/*
 * How many calls of fork() this thread is in, after their prepare; more than
 * one when signal handlers or atfork handlers fork. Does not count what copies
 * no memory: that runs no handlers, and a call of system() may last for long.
 */
extern __thread unsigned int __forkgate_forking;

/*
 * Not zero while whoever calls a function that forks, libc's or ours, will call it
 * again if this leaves FORKGATE_OUTCOME_EXPIRED in the slot, as interpreters do:
 * they have to wait without the locks that they fork with. So a fork with an
 * expired ticket does not wait here. If it has a child nevertheless, that ends by
 * itself and is to be waited for. Set by the package of tools/python, which comes
 * from the same release.
 */
FORKGATE_EXPORT extern __thread unsigned int __forkgate_retries;

/*
 * Call a function that forks, without waiting and then with a ticket (rule 11),
 * and call it again, with more patience (rule 7), as long as the ticket expires
 * before it has forked. The child, which is zero to those that copy memory,
 * has nothing to end.
 *
 * @kind_: of the function
 * @refused_: result when no ticket can be had; the reason is in "error"
 * @call: the call
 * @failed: whether "result" says that it has failed
 */
#define PREPARED(kind_, refused_, call, failed) ({			\
	struct fork_attempt attempt = fork_attempt(kind_);		\
	bool forks = attempt.domains & FORKGATE_MEMORY;			\
	__typeof__(call) result;					\
	int error;							\
									\
	for (;;) {							\
		error = __forkgate_fork_begin(&attempt);		\
		if (error) {						\
			result = (refused_);				\
			break;						\
		}							\
		if ((kind_) >= FORK_BARE && !__forkgate_fork_verify()) { \
			__forkgate_fork_end(&attempt, true);		\
			continue;					\
		}							\
		__forkgate_forking += forks;				\
		result = (call);					\
		__forkgate_forking -= forks;				\
		attempt.child = forks ? (pid_t)(long)result : 0;	\
		if (forks && !result) {					\
			if ((kind_) == FORK_BARE)			\
				__forkgate_fork_child();		\
			break;						\
		}							\
		if (!__forkgate_fork_end(&attempt, (failed)))		\
			break;						\
	}								\
	result;								\
})

#endif /* _FORKGATE_INTERNAL_H */
