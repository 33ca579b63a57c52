// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * Rule 16: one attempt to fork, with either gate: what comes before it and after it
 *
 * The module sees the copy itself and lets the clone fail if it has to wait. The
 * library's own gate does not, so the library says when the copy begins and ends,
 * as close to it as it can. Must not know how a function of the C library forks.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <sys/wait.h>

#include "gate-internal.h"

static unsigned int kind_of(const struct fork_attempt *attempt)
{
	return attempt->domains & FORKGATE_MEMORY ? FORKGATE_MEMORY : FORKGATE_FILES;
}

/*
 * A program may have unmapped the device, or its parent not have handed it on. The
 * kernel reads the set of signals before it finds that it cannot do this with it.
 */
static bool still_mapped(const struct forkgate_slot *slot)
{
	return raw_call(SYS_rt_sigprocmask, -1, slot, NULL, 8) != -EFAULT;
}

/* Return: what fork_begin() returns when PREPARE has said @err. */
static int prepared(struct fork_attempt *attempt, int err)
{
	if (err == EDEADLK)
		return EDEADLK;
	if (err == ETIMEDOUT)
		return EAGAIN;
	attempt->ticket = !err;
	return 0;
}

/* The attempt that the thread is in, the innermost; NULL without the library's gate */
static struct fork_attempt **current_attempt(void)
{
	if (!own_gate() || !forkgate_self || !__forkgate_gated(forkgate_self))
		return NULL;
	return __forkgate_gate_attempt(own_gate(), forkgate_self);
}

static void push(struct fork_attempt *attempt)
{
	struct fork_attempt **current = current_attempt();

	attempt->own = (struct own_attempt){ .outer = *current };
	*current = attempt;
}

/* Inner ones that are left were those of a vfork child, which is gone. */
static void pop(struct fork_attempt *attempt)
{
	*current_attempt() = attempt->own.outer;
}

static const __u64 no_time;

/* The library's own gate does not see the copy itself: it always needs a ticket. */
static int own_begin(struct fork_attempt *attempt)
{
	int err = __forkgate_prepare(attempt->domains, __forkgate_retries ? &no_time : NULL,
				     attempt->tried < 32 ? attempt->tried : 32);

	if (err == ENOMEM)
		return ENOMEM;
	if (err == ENOSYS)	/* seccomp, now: there is no fence */
		return 0;
	err = prepared(attempt, err);
	if (err)
		return err;
	attempt->slot = forkgate_self;
	push(attempt);
	return 0;
}

/*
 * Throw away the child of a spoiled copy. It ends before it has done anything, a
 * vfork child has done so.
 */
static void discard(struct fork_attempt *attempt)
{
	if (attempt->child > 0) {
		if (attempt->kind != FORK_VFORK)
			raw_call(SYS_kill, attempt->child, SIGKILL);
		while (raw_call(SYS_wait4, attempt->child, NULL, __WALL, NULL) == -EINTR)
			;
	}
	attempt->child = 0;
	__forkgate_gate_discarded(own_gate(), attempt);
}

static bool own_end(struct fork_attempt *attempt, bool failed)
{
	bool again = false;

	attempt->own.keep = failed && !attempt->ticket && attempt->kind == FORK_SPAWN;
	__forkgate_gate_copied(own_gate(), attempt);
	pop(attempt);
	if (fork_discards(attempt) && (attempt->own.refused || attempt->own.spoiled)) {
		/* Without a child there is nothing wrong with it. */
		again = attempt->child > 0;
		discard(attempt);
	} else if (failed && attempt->ticket) {
		__forkgate_call(FORKGATE_IOC_RELEASE, NULL);
	}
	attempt->tried += again || attempt->own.refused;
	attempt->ticket = false;
	attempt->slot = NULL;
	return again;
}

int __forkgate_fork_begin(struct fork_attempt *attempt)
{
	struct forkgate_slot *slot = __forkgate_slot();

	if (attempt->tried && __forkgate_retries) {
		slot->outcome = FORKGATE_OUTCOME_EXPIRED;
		return EAGAIN;
	}

	if (__forkgate_gated(slot) && own_gate())
		return own_begin(attempt);
	if (!__forkgate_gated(slot) || (!attempt->tried && !still_mapped(slot)))
		return 0;
	if (!attempt->tried++) {
		attempt->slot = slot;
		/* A vfork child, on this memory, may be in the call of its parent. */
		attempt->tries = attempt->domains & FORKGATE_MEMORY ? slot->tries :
				 slot->tries & FORKGATE_MEMORY;
		slot->tries |= kind_of(attempt);
		return 0;
	}
	return prepared(attempt, __forkgate_prepare(attempt->domains, NULL, attempt->tried - 2));
}

bool __forkgate_fork_end(struct fork_attempt *attempt, bool failed)
{
	struct forkgate_slot *slot = attempt->slot;
	bool expired;

	if (!slot)
		return false;
	if (own_gate())
		return own_end(attempt, failed);
	slot->tries = attempt->tries;
	expired = failed && slot->outcome == FORKGATE_OUTCOME_EXPIRED;
	if (failed && attempt->ticket)
		__forkgate_call(FORKGATE_IOC_RELEASE, NULL);
	attempt->ticket = false;
	return expired;
}

bool __forkgate_fork_verify(void)
{
	struct fork_attempt **current = current_attempt();

	return !current || !*current || (*current)->own.began ||
	       __forkgate_gate_copy(own_gate(), *current);
}

/* Of the libc's own forks, which begin in the atfork handler */
static __thread struct fork_attempt late;

void __forkgate_fork_copied(void)
{
	struct fork_attempt **current = current_attempt(), *attempt;

	if (!current || !*current)
		return;
	attempt = *current;
	__forkgate_gate_copied(own_gate(), attempt);
	if (attempt != &late)
		return;
	pop(attempt);
	if (__forkgate_retries && (late.own.refused || late.own.spoiled))
		forkgate_self->outcome = FORKGATE_OUTCOME_EXPIRED;
}

void __forkgate_vfork_copied(struct fork_attempt *attempt)
{
	if (!attempt->slot || !own_gate())
		return;
	__forkgate_gate_copied(own_gate(), attempt);
	pop(attempt);
	if (attempt->own.refused || attempt->own.spoiled)
		raw_call(SYS_exit_group, 0);
}

void __forkgate_fork_child(void)
{
	__forkgate_unit_child();
	if (own_gate())
		__forkgate_gate_child(own_gate());
}

void __forkgate_fork_late(void)
{
	struct fork_attempt **current;
	struct forkgate_policy policy;
	__u64 timeout;
	int err;

	if (__forkgate_gate() ||
	    __forkgate_call(FORKGATE_IOC_POLICY_GET, &policy))
		return;

	/* What its prepare has left to the clone stays. */
	if (__forkgate_retries && forkgate_self->outcome == FORKGATE_OUTCOME_UNSAFE && !own_gate())
		return;

	current = current_attempt();
	if (current && *current && (*current)->kind < FORK_VFORK)
		return;		/* of another copy of the library */
	timeout = policy.timeout < policy.backstop ? policy.timeout :
						     policy.backstop;
	if (current) {
		late = fork_attempt(FORK_LATE);
		late.slot = forkgate_self;
		push(&late);
	}
	err = __forkgate_prepare(FORKGATE_DOMAINS, __forkgate_retries ? &no_time : &timeout, 0);
	if (current) {
		late.own.refused = err && err != EALREADY;
		late.own.began = late.own.refused;
	} else if (err == ETIMEDOUT && __forkgate_retries) {
		forkgate_self->tries |= FORKGATE_MEMORY;	/* nor does the clone wait */
	}
}
