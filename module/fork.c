// SPDX-License-Identifier: GPL-2.0-only
/*
 * fork.c - forkers: clones that wait at the gate, and tickets
 *
 * Uses the protocol of gate.c (labels F1 to F7) and decides what a wait's end
 * means: granted, an error, or unsafe. Must not know how a clone is caught.
 *
 * A forker's life: NONE -> QUEUED or DRAINING -> COPYING -> NONE, or with a
 * ticket DRAINING -> TICKET -> DRAINING (its clone verifies) -> COPYING. A
 * wait interrupted by a signal leaves the forker where it is, in user mode,
 * with a deadline.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/poll.h>
#include <linux/ptrace.h>
#include <linux/sched/signal.h>
#include <linux/sched/task_stack.h>

#include "gate.h"
#include "trace.h"

/* Clones between grant and return, and copied gates without a thread yet. */
atomic_t fg_copies = ATOMIC_INIT(0);
DECLARE_WAIT_QUEUE_HEAD(fg_poll_wait);

static void fg_outcome(struct fg_gate *gate, struct fg_thread *thr, u32 outcome)
{
	unsigned long irq;

	raw_spin_lock_irqsave(&gate->lock, irq);
	if (!gate->dead && thr->linked && thr->slot != FG_NO_SLOT)
		WRITE_ONCE(fg_slot(gate, thr->slot)->outcome, outcome);
	raw_spin_unlock_irqrestore(&gate->lock, irq);
}

/*
 * A wait begins, or goes on that a signal interrupted: a restarted call has the
 * stack pointer of the first, the call of a handler has not. Without the time
 * that it has slept already a wait that loses its place, or a handler that
 * forks, would never time out. gate->lock is held.
 */
static void fg_fork_resume(struct fg_fork *fork)
{
	fork->slept = 0;
	if (fork->left_at == user_stack_pointer(current_pt_regs())) {
		fork->slept = fork->left_slept;
		fork->left_at = 0;
	}
}

/* It takes a place; gate->lock is held. */
static void fg_fork_start(struct fg_gate *gate, struct fg_thread *thr, u32 need,
			  u64 patience)
{
	struct fg_fork *fork = &thr->fork;

	fork->need = need;
	fork->patience = patience;
	fork->since = ktime_get_ns() - fork->slept;
	fg_phase_join(gate, thr);
}

/* The place is kept for a while; gate->lock is held, fg_release() is due. */
static void fg_fork_hold(struct fg_gate *gate, struct fg_thread *thr)
{
	if (thr->fork.state == FG_FORK_NONE)
		return;
	thr->fork.left_at = user_stack_pointer(current_pt_regs());
	thr->fork.left_slept = thr->fork.slept;
	if (fatal_signal_pending(current) || !gate->policy.ticket_hold) {
		fg_phase_leave(gate, thr);
		return;
	}
	thr->fork.deadline = fg_saturated_add(ktime_get_ns(),
					      gate->policy.ticket_hold);
	if (thr->fork.barred) {
		thr->fork.barred = false;
		fg_phase_unbar(gate);
	}
	fg_gate_arm(gate);
}

/*
 * F3 to F5: until granted, or until there is a reason to stop.
 *
 * @limit: ns this wait may sleep in all, across restarts
 * @abstime: CLOCK_MONOTONIC ns
 *
 * Return: 0, -ENXIO (no gate any more), -EDEADLK, -ETIMEDOUT, or
 * -ERESTARTNOINTR with the place held. For the other errors the forker is
 * still in its list.
 */
static int fg_fork_wait(struct fg_gate *gate, struct fg_thread *thr, u64 limit,
			u64 abstime)
{
	struct fg_fork *fork = &thr->fork;
	unsigned long irq;
	u64 now, left;
	int ret;

	fg_step(FG_STEP_CLOSE);
	for (;;) {
		raw_spin_lock_irqsave(&gate->lock, irq);
		if (gate->dead) {
			ret = -ENXIO;
			break;
		}
		ret = fg_phase_try(gate, thr);
		if (ret == FG_GRANTED)
			break;
		if (ret == FG_WAIT && !list_empty(&gate->released)) {
			raw_spin_unlock_irqrestore(&gate->lock, irq);
			fg_release_all(gate);
			continue;
		}
		if (ret == FG_MORE) {
			raw_spin_unlock_irqrestore(&gate->lock, irq);
			cond_resched();
			continue;
		}
		if (signal_pending(current)) {
			fg_fork_hold(gate, thr);
			ret = -ERESTARTNOINTR;
			break;
		}
		if (ret == FG_FENCE) {
			raw_spin_unlock_irqrestore(&gate->lock, irq);
			fg_fence(gate, fork->need);
			fg_step(FG_STEP_FENCE);
			continue;
		}

		ret = -EDEADLK;
		if (fg_phase_circular(gate, thr))
			break;
		ret = -ETIMEDOUT;
		now = ktime_get_ns();
		if (fork->slept >= limit || now >= abstime)
			break;

		/* F5: announced under the lock, pairs with fg_forker_wake() */
		fork->sleeping = true;
		fork->kick = false;
		fg_gate_arm(gate);
		raw_spin_unlock_irqrestore(&gate->lock, irq);

		fg_step(FG_STEP_SLEEP);
		left = min(limit - fork->slept, abstime - now);
		set_current_state(TASK_INTERRUPTIBLE);
		if (!READ_ONCE(fork->kick))
			schedule_timeout(left > FORKGATE_TIME_MAX ?
					 MAX_SCHEDULE_TIMEOUT :
					 nsecs_to_jiffies(left) + 1);
		__set_current_state(TASK_RUNNING);
		fork->slept += ktime_get_ns() - now;
		fg_step(FG_STEP_WOKEN);

		raw_spin_lock_irqsave(&gate->lock, irq);
		fork->sleeping = false;
		raw_spin_unlock_irqrestore(&gate->lock, irq);
	}
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	fg_release(gate);
	if (fork->slept && ret != -ERESTARTNOINTR)
		fg_took(FG_TIME_FORK, fork->slept);
	return ret;
}

static void fg_fork_complain(struct fg_gate *gate, struct fg_thread *thr,
			     const char *what)
{
	u64 waited = ktime_get_ns() - thr->fork.since;
	struct fg_blame blame;
	bool found = fg_blame_fork(gate, thr, &blame);

	trace_timeout(thr, thr->fork.need, waited, found ? &blame : NULL);
	if (found)
		pr_warn_ratelimited("%s[%d]: fork %s after %llu ms, thread %d is inside %s%s at %#llx %s\n",
				    current->comm, task_pid_nr(current), what,
				    div_u64(waited, NSEC_PER_MSEC),
				    pid_nr(blame.pid),
				    blame.domains & FORKGATE_MEMORY ? "memory " : "",
				    blame.domains & FORKGATE_FILES ? "files " : "",
				    blame.site, blame.label);
	else
		pr_warn_ratelimited("%s[%d]: fork %s after %llu ms, no thread is inside\n",
				    current->comm, task_pid_nr(current), what,
				    div_u64(waited, NSEC_PER_MSEC));
	if (found)
		fg_blame_drop(&blame);
}

/* A wait ended without a grant: count, report and say what comes of it. */
static bool fg_fork_failed(struct fg_gate *gate, struct fg_thread *thr, int why,
			   bool may_proceed)
{
	bool proceed = may_proceed &&
		       READ_ONCE(gate->policy.on_timeout) == FORKGATE_PROCEED;
	unsigned long irq;

	fg_fork_complain(gate, thr, why == -EDEADLK ? "would wait in a circle" :
			 proceed ? "goes ahead unsafe" : "gave up");
	raw_spin_lock_irqsave(&gate->lock, irq);
	if (why == -EDEADLK)
		fg_count(gate, FG_EVENT_DEADLOCK);
	else
		fg_count(gate, FG_EVENT_TIMEOUT);
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	return proceed;
}

static void fg_fork_drop(struct fg_gate *gate, struct fg_thread *thr)
{
	unsigned long irq;

	raw_spin_lock_irqsave(&gate->lock, irq);
	fg_phase_leave(gate, thr);
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	fg_release_all(gate);
}

/* It copies although it was not granted; what it keeps out, it keeps out. */
static void fg_fork_unsafe(struct fg_gate *gate, struct fg_thread *thr)
{
	unsigned long irq;

	raw_spin_lock_irqsave(&gate->lock, irq);
	fg_count(gate, FG_EVENT_UNSAFE);
	thr->fork.unsafe = true;
	if (thr->fork.state == FG_FORK_DRAINING) {
		thr->fork.state = FG_FORK_COPYING;
		gate->granted = true;
	} else {
		fg_phase_leave(gate, thr);
	}
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	fg_release_all(gate);
	if (thr->child)
		thr->child->header->copy |=
			(thr->fork.need & FORKGATE_MEMORY ?
			 FORKGATE_COPY_UNSAFE_MEMORY : 0) |
			(thr->fork.need & FORKGATE_FILES ?
			 FORKGATE_COPY_UNSAFE_FILES : 0);
}

/* A clone waits. Return: 0 to copy, or the clone's error. */
static int fg_fork_enter(struct fg_gate *gate, struct fg_thread *thr, u32 need)
{
	struct fg_fork *fork = &thr->fork;
	bool expired, unsafe;
	unsigned long irq;
	u32 outcome;
	int ret;

	raw_spin_lock_irqsave(&gate->lock, irq);
	if (gate->dead) {
		raw_spin_unlock_irqrestore(&gate->lock, irq);
		return 0;
	}
	fg_fork_resume(fork);
	if (fork->state == FG_FORK_NONE) {
		fork->ticket = false;
		fork->limit = fork->unsafe ? 0 : gate->policy.backstop;
		if (fork->expired)
			fork->limit = min(fork->limit, fork->patience);
		fg_fork_start(gate, thr, need, fork->expired ? fork->patience :
				       gate->policy.patience);
	} else {
		if (fork->ticket) {
			/* Prepared, so libc's locks may be held: not for long */
			fork->ticket = false;
			fork->expired = true;
			fork->slept = 0;
			fork->limit = min(gate->policy.backstop,
					  max(fork->patience,
					      gate->policy.ticket_hold));
		}
		fork->nonblock = false;
		fork->deadline = 0;
		fg_phase_widen(gate, thr, need);
	}
	expired = fork->expired;
	unsafe = fork->unsafe;
	raw_spin_unlock_irqrestore(&gate->lock, irq);

	ret = fg_fork_wait(gate, thr, fork->limit, FORKGATE_FOREVER);
	switch (ret) {
	case 0:
		fg_outcome(gate, thr, FORKGATE_OUTCOME_GRANTED);
		fg_step(FG_STEP_GRANT);
		return 0;
	case -ENXIO:
		return 0;
	case -ERESTARTNOINTR:
		return ret;
	}

	/* Prepared, and too late: nobody's fault, to be prepared again */
	if (expired && ret == -ETIMEDOUT)
		outcome = FORKGATE_OUTCOME_EXPIRED;
	else if (unsafe || fg_fork_failed(gate, thr, ret, true))
		outcome = FORKGATE_OUTCOME_UNSAFE;
	else if (ret == -EDEADLK)
		outcome = FORKGATE_OUTCOME_DEADLK;
	else
		outcome = FORKGATE_OUTCOME_TIMEOUT;

	fg_outcome(gate, thr, outcome);
	if (outcome == FORKGATE_OUTCOME_UNSAFE) {
		fg_fork_unsafe(gate, thr);
		return 0;
	}
	fork->expired = false;
	fg_fork_drop(gate, thr);
	return ret == -EDEADLK ? ret : -EAGAIN;
}

static void fg_fork_cleanup(struct fg_thread *thr)
{
	if (thr->child)
		fg_gate_discard(thr->child);
	thr->child = NULL;
	if (thr->alias)
		fg_thread_put(thr->alias);
	thr->alias = NULL;
}

/**
 * fg_fork_begin - F1 to F5, before the kernel's clone
 * @clone_flags: of the clone
 * @thrp: set to what fg_fork_end() wants, or NULL if this clone needs nothing
 *
 * Context: the cloning thread; may sleep.
 * Return: 0: clone, then call fg_fork_end() if @thrp is set. Otherwise the
 * clone's error: -ENOMEM, -EAGAIN, -EDEADLK, -ERESTARTNOINTR (only while a
 * signal is pending).
 */
int fg_fork_begin(u64 clone_flags, struct fg_thread **thrp)
{
	u32 need = (clone_flags & CLONE_VM ? 0 : FORKGATE_MEMORY) |
		   (clone_flags & CLONE_FILES ? 0 : FORKGATE_FILES);
	struct fg_gate *gate = fg_gate_get(current->mm);
	struct fg_thread *thr;
	unsigned long irq;
	int ret = 0;

	*thrp = NULL;
	if (!gate)
		return 0;
	fg_step(FG_STEP_BEGIN);
	thr = fg_thread_get(gate);
	if (IS_ERR(thr)) {
		ret = PTR_ERR(thr);
		fg_gate_put(gate);
		return ret == -ENXIO ? 0 : ret;
	}

	/* F1 */
	if (need & FORKGATE_MEMORY) {
		thr->child = fg_gate_copy(thr, GFP_KERNEL_ACCOUNT);
		if (!thr->child)
			ret = -ENOMEM;
	} else if (clone_flags & CLONE_VFORK) {
		thr->alias = fg_thread_alloc(gate, GFP_KERNEL_ACCOUNT);
		if (!thr->alias)
			ret = -ENOMEM;
	}
	if (ret)
		fg_fork_drop(gate, thr);
	else if (need)
		ret = fg_fork_enter(gate, thr, need);
	if (ret) {
		fg_fork_cleanup(thr);
		fg_thread_put(thr);
		fg_gate_put(gate);
		return ret;
	}

	raw_spin_lock_irqsave(&gate->lock, irq);
	fg_count(gate, FG_EVENT_FORK);
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	thr->vfork = clone_flags & CLONE_VFORK;
	thr->copying = true;
	atomic_inc(&fg_copies);
	*thrp = thr;
	return 0;
}

/**
 * fg_fork_copied - F6 ahead of time: the copy is complete, the clone is not
 * @thr: the forker
 *
 * For clones that return much later: a vfork, or one that stops for a tracer.
 *
 * Context: the cloning thread, preemption off.
 */
void fg_fork_copied(struct fg_thread *thr)
{
	struct fg_gate *gate = thr->gate;
	unsigned long irq;

	raw_spin_lock_irqsave(&gate->lock, irq);
	if (thr->fork.state == FG_FORK_COPYING)
		fg_phase_leave(gate, thr);
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	fg_release(gate);
}

/**
 * fg_fork_end - F6, after the kernel's clone
 * @thr: from fg_fork_begin()
 * @ret: what the clone returned
 *
 * Context: the cloning thread; may sleep.
 */
void fg_fork_end(struct fg_thread *thr, long ret)
{
	struct fg_gate *gate = thr->gate;
	unsigned long irq;

	fg_step(FG_STEP_COPIED);
	atomic_dec(&fg_copies);
	thr->copying = false;
	raw_spin_lock_irqsave(&gate->lock, irq);
	if (ret == -ERESTARTNOINTR && thr->fork.state == FG_FORK_COPYING) {
		/* A signal after the grant: to be granted again */
		fg_phase_widen(gate, thr, 0);
		fg_fork_hold(gate, thr);
	} else if (ret != -ERESTARTNOINTR && thr->fork.state != FG_FORK_TICKET) {
		fg_phase_leave(gate, thr);
		thr->fork.expired = false;
		thr->fork.unsafe = false;
	}
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	fg_release_all(gate);
	fg_fork_cleanup(thr);
	fg_thread_put(thr);
	fg_gate_put(gate);
}

/* F3 and F4 for a ticket that nobody sleeps for */
static int fg_ticket_try(struct fg_gate *gate, struct fg_thread *thr,
			 u64 abstime)
{
	unsigned long irq;
	int ret;

	for (;;) {
		raw_spin_lock_irqsave(&gate->lock, irq);
		ret = gate->dead ? -ENXIO :
		      thr->fork.state == FG_FORK_NONE ? -EAGAIN :
		      thr->fork.state == FG_FORK_TICKET ? FG_GRANTED :
		      fg_phase_try(gate, thr);
		if (ret == FG_WAIT)
			ret = fg_phase_circular(gate, thr) ? -EDEADLK :
			      ktime_get_ns() >= abstime ? -ETIMEDOUT : -EAGAIN;
		if (ret == -EAGAIN)
			fg_gate_arm(gate);
		raw_spin_unlock_irqrestore(&gate->lock, irq);
		if (ret <= 0)
			break;
		if (ret == FG_FENCE) {
			if (fg_fence(gate, thr->fork.need))
				return -ERESTARTNOINTR;
			fg_step(FG_STEP_FENCE);
		}
		cond_resched();
	}
	fg_release_all(gate);
	return ret;
}

/**
 * fg_advance - brings on the tickets for which nobody sleeps, and polls
 * @work: gate->advance, which holds a reference
 */
void fg_advance(struct work_struct *work)
{
	struct fg_gate *gate = container_of(work, struct fg_gate, advance);
	struct fg_thread *thr;
	unsigned long irq;
	bool again;

	do {
		again = false;
		raw_spin_lock_irqsave(&gate->lock, irq);
		list_for_each_entry(thr, &gate->phase, fork.node) {
			int ret;

			if (!thr->fork.nonblock ||
			    thr->fork.state != FG_FORK_DRAINING)
				continue;
			ret = fg_phase_try(gate, thr);
			if (ret != FG_FENCE && ret != FG_MORE)
				continue;
			again = true;
			raw_spin_unlock_irqrestore(&gate->lock, irq);
			if (ret == FG_FENCE)
				fg_fence(gate, FORKGATE_DOMAINS);
			cond_resched();
			raw_spin_lock_irqsave(&gate->lock, irq);
			break;
		}
		raw_spin_unlock_irqrestore(&gate->lock, irq);
	} while (again);
	fg_release_all(gate);
	wake_up_all(&fg_poll_wait);
	fg_gate_put(gate);
}

/**
 * fg_prepare - PREPARE: take a ticket
 * @gate: the caller's gate, referenced
 * @prepare: checked arguments; @prepare->outcome is set
 *
 * Context: the calling thread; may sleep, a signal restarts it and keeps its
 * place.
 * Return: 0 (granted, or unsafe as the policy says), -EALREADY (a granted
 * ticket covers it), -EAGAIN (non-blocking, keeps waiting), -ETIMEDOUT,
 * -EDEADLK, -ENOMEM, -ENXIO, -ERESTARTNOINTR.
 */
int fg_prepare(struct fg_gate *gate, struct forkgate_prepare *prepare)
{
	u64 abstime = FORKGATE_FOREVER, limit = FORKGATE_FOREVER;
	bool nonblock = prepare->flags & FORKGATE_NONBLOCK;
	bool absolute = prepare->flags & FORKGATE_ABSTIME;
	struct fg_thread *thr;
	struct fg_fork *fork;
	unsigned long irq;
	int i, ret;

	thr = fg_thread_get(gate);
	if (IS_ERR(thr))
		return PTR_ERR(thr);
	fork = &thr->fork;

	raw_spin_lock_irqsave(&gate->lock, irq);
	ret = -ENXIO;
	if (gate->dead)
		goto out_unlock;
	ret = -EALREADY;
	prepare->outcome = FORKGATE_OUTCOME_GRANTED;
	if (fork->state == FG_FORK_TICKET && !(prepare->domains & ~fork->need)) {
		if (fork->nonblock)	/* granted since the last call */
			ret = 0;
		fork->nonblock = false;
		goto out_unlock;
	}

	fg_fork_resume(fork);
	if (fork->state == FG_FORK_NONE) {
		u64 patience = gate->policy.patience;

		for (i = 0; i < prepare->attempt; i++)
			patience = fg_saturated_add(patience, patience);
		fork->ticket = true;
		fork->expired = false;
		fork->unsafe = false;
		fg_fork_start(gate, thr, prepare->domains, patience);
	} else {
		fork->ticket = true;
		fork->deadline = 0;
		fg_phase_widen(gate, thr, prepare->domains);
	}
	fork->nonblock = nonblock;
	if (absolute)
		abstime = prepare->abstime;
	else
		limit = gate->policy.timeout;
	if (nonblock)
		fork->deadline = absolute ? abstime :
				 limit == FORKGATE_FOREVER ? 0 :
				 fork->since + limit;
	raw_spin_unlock_irqrestore(&gate->lock, irq);

	if (nonblock)
		ret = fg_ticket_try(gate, thr, abstime);
	else
		ret = fg_fork_wait(gate, thr, limit, abstime);
	if (ret == -ETIMEDOUT || ret == -EDEADLK) {
		bool proceed = fg_fork_failed(gate, thr, ret, !absolute);

		fg_fork_drop(gate, thr);
		fork->unsafe = proceed;
		prepare->outcome = proceed ? FORKGATE_OUTCOME_UNSAFE :
				   ret == -EDEADLK ? FORKGATE_OUTCOME_DEADLK :
						     FORKGATE_OUTCOME_TIMEOUT;
		if (proceed)
			ret = 0;
	} else if (ret) {
		prepare->outcome = FORKGATE_OUTCOME_NONE;
	} else {
		fork->nonblock = false;
		fg_step(FG_STEP_PREPARED);
	}
	if (ret != -ERESTARTNOINTR)
		fg_outcome(gate, thr, prepare->outcome);
	fg_thread_put(thr);
	return ret;

out_unlock:
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	fg_thread_put(thr);
	return ret;
}

/**
 * fg_ticket_release - RELEASE: give a ticket back
 * @gate: the caller's gate, referenced
 *
 * Return: 0, -ESTALE (it has expired), -ENOENT (there is none).
 */
int fg_ticket_release(struct fg_gate *gate)
{
	struct fg_thread *thr = fg_thread_find(current);
	struct fg_fork *fork;
	unsigned long irq;
	int ret = -ENOENT;

	if (!thr)
		return ret;
	fork = &thr->fork;
	raw_spin_lock_irqsave(&gate->lock, irq);
	if (thr->gate == gate && !gate->dead) {
		if (fork->state != FG_FORK_NONE || fork->unsafe)
			ret = 0;
		else if (fork->expired)
			ret = -ESTALE;
		fork->expired = false;
		fork->unsafe = false;
		fg_phase_leave(gate, thr);
	}
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	fg_release_all(gate);
	fg_thread_put(thr);
	return ret;
}

/**
 * fg_ticket_poll - is the caller's ticket granted?
 * @gate: the caller's gate, referenced
 *
 * Return: EPOLLIN if it is, 0 while it waits, EPOLLERR without a ticket.
 */
__poll_t fg_ticket_poll(struct fg_gate *gate)
{
	struct fg_thread *thr = fg_thread_find(current);
	__poll_t events = EPOLLERR;
	unsigned long irq;

	if (!thr)
		return events;
	raw_spin_lock_irqsave(&gate->lock, irq);
	if (thr->gate == gate) {
		if (thr->fork.state == FG_FORK_TICKET)
			events = EPOLLIN | EPOLLRDNORM;
		else if (thr->fork.state != FG_FORK_NONE)
			events = 0;
	}
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	fg_thread_put(thr);
	return events;
}
