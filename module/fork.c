// SPDX-License-Identifier: GPL-2.0-only
/*
 * fork.c - F1 and F5: clones that wait at the gate
 *
 * Uses the protocol of phase.c and decides what a wait's end means: granted, an
 * error, or unsafe (rule 8). Must not know how a clone is caught.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/hrtimer.h>
#include <linux/module.h>
#include <linux/ptrace.h>
#include <linux/sched/signal.h>
#include <linux/sched/task_stack.h>

#include "gate.h"
#include "trace.h"

/* Rule 11: an expired ticket, or a failed prepare, matters for so many holds */
#define FG_PAST_HOLDS	10

/**
 * fg_fork_past - what a thread's last prepare means now
 * @fork: the thread as a forker; gate->lock is held
 *
 * Return: FG_PAST_*.
 */
enum fg_past fg_fork_past(const struct fg_fork *fork)
{
	if (fork->past == FG_PAST_NONE || ktime_get_ns() >= fork->past_until)
		return FG_PAST_NONE;
	return fork->past;
}

/**
 * fg_fork_leave_past - a prepare leaves something to the clone that follows
 * @gate: its gate; gate->lock is held
 * @fork: the thread as a forker
 * @past: what
 */
void fg_fork_leave_past(struct fg_gate *gate, struct fg_fork *fork,
			enum fg_past past)
{
	u64 hold = gate->policy.ticket_hold ?: FG_TICKET_HOLD;

	lockdep_assert_held(&gate->lock);

	fork->past = past;
	fork->past_until = ktime_get_ns() + FG_PAST_HOLDS * hold;
	fork->past_slept = fork->slept;
}

/**
 * fg_fork_resume - start a wait, or resume one interrupted by a signal
 * @fork: the calling thread as a forker; gate->lock is held
 *
 * A restarted call has the stack pointer of the first, the call of a handler
 * has not. Without what it has slept already, a wait that loses its place, or
 * whose handler forks, would never time out. A handler may not return, so this
 * is forgotten after a while.
 *
 * Return: the time, ns.
 */
u64 fg_fork_resume(struct fg_fork *fork)
{
	u64 now = ktime_get_ns();

	fork->slept = 0;
	fork->since = now;
	if (fork->left_at == user_stack_pointer(current_pt_regs()) &&
	    now < fork->left_until) {
		fork->slept = fork->left_slept;
		fork->since = fork->left_since;
		fork->left_at = 0;
	}
	return now;
}

/**
 * fg_fork_other - give up a place that was kept for another call
 * @gate: its gate; gate->lock is held
 * @thr: the calling thread
 * @need: domains that this call needs
 * @kind: what it waits for
 *
 * A signal handler may fork while the call that it interrupted has a place: it
 * must not wait for what only that call needs (rule 1).
 */
void fg_fork_other(struct fg_gate *gate, struct fg_thread *thr, u32 need,
		   enum fg_fork_kind kind)
{
	struct fg_fork *fork = &thr->fork;

	lockdep_assert_held(&gate->lock);

	if (fork->state == FG_FORK_WAITING && fork->driver == FG_BY_RESTART &&
	    (fork->kind != kind || (fork->need & ~need)))
		fg_phase_leave(gate, thr);
}

/**
 * fg_fork_unpoll - nothing is polled for any more
 * @fork: a thread as a forker; gate->lock is held, or it is about to be freed
 */
void fg_fork_unpoll(struct fg_fork *fork)
{
	if (fork->file)
		fg_file_put(fork->file);
	fork->file = NULL;
}

/*
 * Keep the place of a wait, or of a grant, that a signal interrupts (rule 8);
 * gate->lock is held.
 */
static void fg_fork_hold(struct fg_gate *gate, struct fg_thread *thr)
{
	struct fg_fork *fork = &thr->fork;

	if (fork->past == FG_PAST_PREPARED)
		fg_fork_leave_past(gate, fork, FG_PAST_PREPARED);
	fork->left_at = user_stack_pointer(current_pt_regs());
	fork->left_until = ktime_get_ns() + FG_PAST_HOLDS *
			   max(gate->policy.ticket_hold, FG_TICKET_HOLD);
	fork->left_slept = fork->slept;
	fork->left_since = fork->since;
	/* One that may not sleep would not use the place. */
	if (fatal_signal_pending(current) || !gate->policy.ticket_hold ||
	    !fork->limit) {
		fg_phase_leave(gate, thr);
	} else {
		fg_phase_again(gate, thr, 0, fork->kind, FG_BY_RESTART);
		fg_deadline_set(gate, thr,
				fg_saturated_add(ktime_get_ns(),
						 gate->policy.ticket_hold));
	}
	fg_phase_run(gate);
}

/* The place is kept until the next call, or until @end; gate->lock is held. */
static void fg_fork_poll(struct fg_gate *gate, struct fg_thread *thr, u64 end)
{
	thr->fork.driver = FG_BY_POLL;
	thr->fork.limit = end;
	fg_deadline_set(gate, thr, end);
}

/* What a forker does next */
enum fg_next {
	FG_NEXT_END,	/* its wait is over */
	FG_NEXT_AGAIN,	/* drop the lock, then look again */
	FG_NEXT_FENCE,	/* fg_fence(), then look again */
	FG_NEXT_SLEEP,
};

/* F5: all that is left is to sleep; gate->lock is held. */
static enum fg_next fg_fork_rest(struct fg_gate *gate, struct fg_thread *thr,
				 u64 end, int *ret, u64 *left)
{
	struct fg_fork *fork = &thr->fork;
	u64 now;

	/* Rule 4. Once: what it is inside of does not change in the kernel. */
	*ret = -EDEADLK;
	if (fork->edge == FG_NO_EDGE) {
		if (fg_phase_circular(gate, thr))
			return FG_NEXT_END;
		fg_phase_edge(gate, thr);
	}
	*ret = -ETIMEDOUT;
	now = ktime_get_ns();
	if (fork->slept >= fork->limit || now >= end)
		return FG_NEXT_END;
	*ret = -EAGAIN;
	if (fork->kind == FG_POLLED_TICKET) {
		fg_fork_poll(gate, thr, end);
		return FG_NEXT_END;
	}
	/* fg_settle() first, unless it has left this to the timer */
	if (!list_empty(&gate->notify) && !gate->notified)
		return FG_NEXT_AGAIN;
	*left = FORKGATE_FOREVER;
	if (fork->limit != FORKGATE_FOREVER)
		*left = fork->limit - fork->slept;
	if (end != FORKGATE_FOREVER)
		*left = min(*left, end - now);
	return FG_NEXT_SLEEP;
}

/* Is it this forker's turn to bring the phase on? gate->lock is held. */
static bool fg_fork_advances(struct fg_gate *gate, struct fg_thread *thr)
{
	return thr->fork.state == FG_FORK_WAITING && fg_phase_unready(gate) &&
	       !fg_fork_queued(gate, thr) && list_empty(&gate->released);
}

/*
 * F4, F5: look whether the wait is over, and otherwise what comes next;
 * gate->lock is held. @ret is what fg_fork_wait() returns at FG_NEXT_END, @left
 * how many ns to sleep.
 */
static enum fg_next fg_fork_next(struct fg_gate *gate, struct fg_thread *thr,
				 u64 end, int *ret, u64 *left)
{
	struct fg_fork *fork = &thr->fork;
	bool polled = fork->kind == FG_POLLED_TICKET;

	*ret = -ENXIO;
	if (gate->dead)
		return FG_NEXT_END;
	*ret = -ESTALE;
	if (!fg_thread_acts(thr))
		return FG_NEXT_END;
	if (fg_fork_advances(gate, thr) && !signal_pending(current)) {
		if (fg_phase_step(gate)) {
			if (!fg_phase_alone(gate))
				fg_phase_run(gate);
			return FG_NEXT_FENCE;
		}
	}
	fg_phase_run(gate);
	/* Granted; a ticket may have expired since, which is for the clone to see. */
	*ret = 0;
	if (fork->state != FG_FORK_WAITING)
		return FG_NEXT_END;
	if (!list_empty(&gate->released))
		return FG_NEXT_AGAIN;

	*ret = -ERESTARTNOINTR;
	if (signal_pending(current)) {
		if (!polled) {
			fg_fork_hold(gate, thr);
		} else {
			fg_fork_poll(gate, thr, end);
			fg_phase_run(gate);
		}
		return FG_NEXT_END;
	}
	if (fg_fork_advances(gate, thr))
		return FG_NEXT_AGAIN;

	return fg_fork_rest(gate, thr, end, ret, left);
}

/*
 * Sleep until woken or for @ns, but not for longer than a timer can be set; the
 * task's state is set. With PREEMPT_RT only a high-resolution timer wakes a
 * real-time task that keeps all others, the softirq's included, from running.
 * Return: how long.
 */
static u64 fg_fork_sleep(u64 ns)
{
	ktime_t timeout = min(ns, FORKGATE_TIME_MAX);
	u64 since = ktime_get_ns();

	fg_step(FG_STEP_SLEEP);
	/* Without the slack of the thread, which may be minutes. */
	schedule_hrtimeout(ns == FORKGATE_FOREVER ? NULL : &timeout,
			   HRTIMER_MODE_REL);
	since = ktime_get_ns() - since;
	fg_step(FG_STEP_WOKEN);
	return since;
}

/**
 * fg_fork_wait - F3 to F5: until granted, or until there is a reason to stop
 * @gate: the caller's gate
 * @thr: the caller, a forker; fork.limit is the ns it may sleep in all
 * @end: CLOCK_MONOTONIC ns at which the wait is over
 *
 * With FG_POLLED_TICKET it does not sleep, and the place is kept.
 *
 * Context: the forking thread; may sleep.
 * Return: 0 (granted; a ticket may have expired since), -ENXIO (no gate any
 * more), -ESTALE (it does not act for its slot any more), -EDEADLK,
 * -ETIMEDOUT, -EAGAIN (polled), or -ERESTARTNOINTR with the place kept. After
 * -ESTALE, -EDEADLK and -ETIMEDOUT the place is still there.
 */
int fg_fork_wait(struct fg_gate *gate, struct fg_thread *thr, u64 end)
{
	struct fg_fork *fork = &thr->fork;
	enum fg_next next;
	u64 ns = 0, opening;
	unsigned long irq;
	u32 unfenced;
	int ret;

	fg_step(FG_STEP_CLOSE);
	do {
		raw_spin_lock_irqsave(&gate->lock, irq);
		fork->slept += ns;
		ns = 0;
		next = fg_fork_next(gate, thr, end, &ret, &ns);
		/* F5: pairs with wake_up_process() in fg_phase_wake() */
		if (next == FG_NEXT_SLEEP)
			set_current_state(TASK_INTERRUPTIBLE);
		unfenced = next == FG_NEXT_FENCE ? fg_phase_unfenced(gate) : 0;
		opening = gate->openings;
		raw_spin_unlock_irqrestore(&gate->lock, irq);

		if (next == FG_NEXT_SLEEP) {
			ns = fg_fork_sleep(ns);
			continue;
		}
		fg_settle(gate);
		if (next == FG_NEXT_FENCE) {
			fg_fence(gate, unfenced, opening);
			fg_step(FG_STEP_FENCE);
		}
		if (next != FG_NEXT_END)
			cond_resched();
	} while (next != FG_NEXT_END);

	if (fork->slept && ret != -ERESTARTNOINTR)
		fg_account(FG_TIME_FORK, fork->slept);
	return ret;
}

static void fg_fork_log(struct fg_gate *gate, struct fg_thread *thr,
			const char *what, const struct fg_blame *blame,
			u64 waited)
{
	char comm[TASK_COMM_LEN];

	if (!fg_may_log(gate))
		return;
	if (blame->pid)
		pr_warn("%s[%d]: fork %s after %llu ms, thread %d is inside %s%sat %#llx %s\n",
			fg_comm(comm), task_pid_nr(current), what,
			div_u64(waited, NSEC_PER_MSEC), pid_nr(blame->pid),
			blame->domains & FORKGATE_MEMORY ? "memory " : "",
			blame->domains & FORKGATE_FILES ? "files " : "",
			blame->site, blame->label);
	else
		pr_warn("%s[%d]: fork %s after %llu ms, no thread is inside\n",
			fg_comm(comm), task_pid_nr(current), what,
			div_u64(waited, NSEC_PER_MSEC));
}

/**
 * fg_fork_failed - a wait has ended without a grant: count and report
 * @gate: its gate
 * @thr: the forker, whose place is still there
 * @why: -ETIMEDOUT or -EDEADLK
 * @may_proceed: the policy may say that it goes ahead
 * @quiet: the caller set the limit itself: no message
 *
 * Return: whether it goes ahead unsafe.
 */
bool fg_fork_failed(struct fg_gate *gate, struct fg_thread *thr, int why,
		    bool may_proceed, bool quiet)
{
	bool proceed = may_proceed &&
		       READ_ONCE(gate->policy.on_timeout) == FORKGATE_PROCEED;
	u64 waited = ktime_get_ns() - thr->fork.since;
	struct fg_blame blame = {};
	unsigned long irq;

	fg_blame_fork(gate, thr, &blame);
	trace_timeout(thr, thr->fork.need, waited, &blame);
	if (!quiet)
		fg_fork_log(gate, thr, why == -EDEADLK ?
			    "would wait in a circle" : proceed ?
			    "goes ahead unsafe" : "gave up", &blame, waited);
	fg_blame_drop(&blame);
	raw_spin_lock_irqsave(&gate->lock, irq);
	fg_count(gate, why == -EDEADLK ? FG_EVENT_DEADLOCK : FG_EVENT_TIMEOUT);
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	return proceed;
}

/**
 * fg_fork_drop - give a place up
 * @gate: its gate
 * @thr: a forker in any state
 */
void fg_fork_drop(struct fg_gate *gate, struct fg_thread *thr)
{
	unsigned long irq;

	raw_spin_lock_irqsave(&gate->lock, irq);
	fg_phase_leave(gate, thr);
	fg_phase_run(gate);
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	fg_settle(gate);
}

/*
 * Rule 8: it copies although it was not granted, and the child can read that. If
 * a grant has come since its wait was over, it is as safe as any.
 */
static void fg_fork_unsafe(struct fg_gate *gate, struct fg_clone *clone)
{
	struct fg_thread *thr = clone->thr;
	unsigned long irq;
	bool granted;

	raw_spin_lock_irqsave(&gate->lock, irq);
	granted = thr->fork.state == FG_FORK_COPYING;
	if (!granted) {
		fg_count(gate, FG_EVENT_UNSAFE);
		fg_fork_leave_past(gate, &thr->fork, FG_PAST_UNSAFE);
		if (thr->fork.state == FG_FORK_WAITING)
			fg_phase_force(gate, thr);
		fg_thread_tell(gate, thr, FORKGATE_OUTCOME_UNSAFE);
	}
	fg_phase_run(gate);
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	fg_settle(gate);
	if (clone->child && !granted)
		fg_gate_mark_copy(clone->child,
				  (clone->need & FORKGATE_MEMORY ?
				   FORKGATE_COPY_UNSAFE_MEMORY : 0) |
				  (clone->need & FORKGATE_FILES ?
				   FORKGATE_COPY_UNSAFE_FILES : 0));
}

/* The place of a clone that comes without a ticket; gate->lock is held. */
static void fg_fork_start(struct fg_gate *gate, struct fg_thread *thr, u32 need,
			  u64 now)
{
	struct fg_fork *fork = &thr->fork;

	fork->need = need;
	fork->kind = FG_CLONE;
	fork->driver = FG_BY_CALLER;
	fork->limit = gate->policy.backstop;
	switch (fork->past) {
	case FG_PAST_PREPARED:
		fork->limit = min(fork->limit, fork->patience);
		break;
	case FG_PAST_WAITED:
		fork->slept = max(fork->slept, fork->past_slept);
		fork->patience = gate->policy.patience;
		break;
	case FG_PAST_UNSAFE:
		fork->limit = 0;
		fallthrough;
	case FG_PAST_NONE:
		fork->patience = gate->policy.patience;
		break;
	}
	fg_phase_join(gate, thr, now);
}

/*
 * A clone comes with a place or a ticket; gate->lock is held. If it was
 * prepared, libc's locks may be held: it does not wait for long (rule 11).
 */
static void fg_fork_go_on(struct fg_gate *gate, struct fg_thread *thr, u32 need)
{
	struct fg_fork *fork = &thr->fork;

	if (fork->kind != FG_CLONE) {
		fork->slept = 0;
		fg_fork_leave_past(gate, fork, FG_PAST_PREPARED);
		fork->limit = min(gate->policy.backstop,
				  max(fork->patience,
				      gate->policy.ticket_hold));
	}
	if (fork->state == FG_FORK_TICKET && !(need & ~fork->need) &&
	    fg_phase_verify(gate, thr))
		return;
	fg_phase_again(gate, thr, need, FG_CLONE, FG_BY_CALLER);
}

/*
 * What a thread says that it tries, to prepare only if it has to (rule 11), holds
 * for one clone: @on says it again for the restart of that clone; otherwise it is
 * taken back. User space decides about no other clone than its own. gate->lock is
 * held. Return: whether it was said of such a clone.
 */
static bool fg_fork_tries(struct fg_gate *gate, struct fg_clone *clone, bool on)
{
	u32 kind = clone->need & FORKGATE_MEMORY ?: FORKGATE_FILES, tries;
	struct fg_thread *thr = clone->thr;
	struct forkgate_slot *shared;

	lockdep_assert_held(&gate->lock);

	if (gate->dead || thr->slot->nr == FG_NO_SLOT || !fg_thread_acts(thr))
		return false;
	shared = fg_shared_slot(gate, thr->slot->nr);
	tries = READ_ONCE(shared->tries);
	if (on || (tries & kind))
		WRITE_ONCE(shared->tries, on ? tries | kind : tries & ~kind);
	return tries & kind;
}

/*
 * A clone's wait has ended without a grant. Return: 0 to copy all the same, or
 * the clone's error.
 */
static int fg_fork_refuse(struct fg_gate *gate, struct fg_clone *clone,
			  enum fg_past past, int why)
{
	struct fg_thread *thr = clone->thr;
	unsigned long irq;
	u32 outcome;

	/* Not prepared yet, or too late: to be prepared (again) */
	if (past != FG_PAST_UNSAFE &&
	    (clone->tries || (past == FG_PAST_PREPARED && why == -ETIMEDOUT)))
		outcome = FORKGATE_OUTCOME_EXPIRED;
	else if (past == FG_PAST_UNSAFE ||
		 fg_fork_failed(gate, thr, why, true, false))
		outcome = FORKGATE_OUTCOME_UNSAFE;
	else if (why == -EDEADLK)
		outcome = FORKGATE_OUTCOME_DEADLK;
	else
		outcome = FORKGATE_OUTCOME_TIMEOUT;

	/* Until the place is given up a grant may still come, and tell. */
	fg_step(FG_STEP_REFUSED);
	if (outcome == FORKGATE_OUTCOME_UNSAFE) {
		fg_fork_unsafe(gate, clone);
		return 0;
	}
	fg_fork_drop(gate, thr);
	raw_spin_lock_irqsave(&gate->lock, irq);
	thr->fork.past = FG_PAST_NONE;
	fg_thread_tell(gate, thr, outcome);
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	return outcome == FORKGATE_OUTCOME_DEADLK ? -EDEADLK : -EAGAIN;
}

/* The clone of a thread starts, or goes on with the place or ticket that it has. */
static void fg_fork_enter(struct fg_gate *gate, struct fg_clone *clone)
{
	struct fg_thread *thr = clone->thr;
	struct fg_fork *fork = &thr->fork;
	u64 now;

	lockdep_assert_held(&gate->lock);

	now = fg_fork_resume(fork);
	fork->past = fg_fork_past(fork);
	fg_fork_other(gate, thr, clone->need, FG_CLONE);
	if (fork->state == FG_FORK_NONE)
		fg_fork_start(gate, thr, clone->need, now);
	else
		fg_fork_go_on(gate, thr, clone->need);
	fg_fork_unpoll(fork);
	clone->tries = fg_fork_tries(gate, clone, false) &&
		       fork->past != FG_PAST_PREPARED;
	if (clone->tries)
		fork->limit = 0;
}

/* A clone waits. Return: 0 to copy, -ESTALE, or the clone's error. */
static int fg_fork_pass(struct fg_gate *gate, struct fg_clone *clone,
			enum fg_past past)
{
	int ret = fg_fork_wait(gate, clone->thr, FORKGATE_FOREVER);

	switch (ret) {
	case 0:
		fg_step(FG_STEP_GRANT);
		return 0;
	case -ENXIO:	/* look whether there is another gate by now */
	case -ESTALE:
		fg_fork_drop(gate, clone->thr);
		return -ESTALE;
	case -ERESTARTNOINTR:
		return ret;
	}
	return fg_fork_refuse(gate, clone, past, ret);
}

/*
 * Rule 15: a gate that ends holds the module for the clones that it has counted.
 * Return: false if it has ended.
 */
static bool fg_fork_count(struct fg_gate *gate)
{
	unsigned long irq;
	bool alive;

	raw_spin_lock_irqsave(&gate->lock, irq);
	alive = !gate->dead;
	gate->clones += alive;
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	return alive;
}

/*
 * The clone is not under way any more; gate->lock is held. Return: whether the
 * module has to be put, for gate->pinned.
 */
static bool fg_fork_uncount(struct fg_gate *gate)
{
	lockdep_assert_held(&gate->lock);

	return !--gate->clones && gate->pinned;
}

/* A clone that was counted, and uncounted, is done with. */
static void fg_fork_cleanup(struct fg_gate *gate, struct fg_clone *clone,
			    bool pinned)
{
	if (clone->child)
		fg_gate_discard(clone->child);
	if (clone->stand_in)
		fg_thread_put(clone->stand_in);
	if (clone->thr)
		fg_thread_put(clone->thr);
	fg_gate_put(gate);
	if (pinned)
		module_put(THIS_MODULE);
}

/* Rule 10, F1: all that the child needs. Return: 0 or -ENOMEM. */
static int fg_fork_allocate(struct fg_gate *gate, struct fg_clone *clone)
{
	if (clone->need & FORKGATE_MEMORY) {
		clone->child = fg_gate_copy(clone->thr, gate,
					    GFP_KERNEL_ACCOUNT);
		return clone->child ? 0 : -ENOMEM;
	}
	if (clone->flags & CLONE_VFORK) {
		clone->stand_in = fg_thread_alloc(gate, clone->thr,
						  GFP_KERNEL_ACCOUNT);
		return clone->stand_in ? 0 : -ENOMEM;
	}
	return 0;
}

/*
 * Rule 6: a try does not join a phase that keeps a thread out, so that many of
 * them do not prolong it. gate->lock is held. Return: whether it has failed.
 */
static bool fg_fork_gives_way(struct fg_gate *gate, struct fg_clone *clone)
{
	struct fg_fork *fork = &clone->thr->fork;

	if (!gate->nr_blocked || !clone->need ||
	    fork->state != FG_FORK_NONE || fg_fork_past(fork) != FG_PAST_NONE ||
	    !fg_fork_tries(gate, clone, false))
		return false;
	fg_thread_tell(gate, clone->thr, FORKGATE_OUTCOME_EXPIRED);
	return true;
}

/* The clone waits if it copies something. Return: 0, -ESTALE or its error. */
static int fg_fork_do(struct fg_gate *gate, struct fg_clone *clone)
{
	enum fg_past past;
	unsigned long irq;
	int ret = 0;

	raw_spin_lock_irqsave(&gate->lock, irq);
	if (gate->dead)
		ret = -ESTALE;
	else if (fg_fork_gives_way(gate, clone))
		ret = -EAGAIN;
	else if (clone->need)
		fg_fork_enter(gate, clone);
	else
		fg_count(gate, FG_EVENT_FORK);
	past = clone->thr->fork.past;
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	if (ret || !clone->need)
		return ret;

	ret = fg_fork_pass(gate, clone, past);
	if (ret == -ERESTARTNOINTR && clone->tries) {
		raw_spin_lock_irqsave(&gate->lock, irq);
		fg_fork_tries(gate, clone, true);
		raw_spin_unlock_irqrestore(&gate->lock, irq);
	}
	return ret;
}

/* A clone of a counted gate. Return: as fg_fork_do(). */
static int fg_fork_at(struct fg_gate *gate, u64 clone_flags,
		      struct fg_clone *clone)
{
	struct fg_thread *thr;
	int ret;

	ret = fg_unit_inherit(gate, GFP_KERNEL_ACCOUNT);
	thr = ret ? ERR_PTR(ret) : fg_thread_get(gate);
	if (IS_ERR(thr))
		return PTR_ERR(thr) == -ENXIO ? -ESTALE : PTR_ERR(thr);

	clone->thr = thr;
	clone->flags = clone_flags;
	/* Rule 1 */
	clone->need = (clone_flags & CLONE_VM ? 0 : FORKGATE_MEMORY) |
		      (clone_flags & CLONE_FILES ? 0 : FORKGATE_FILES);
	ret = fg_fork_allocate(gate, clone);
	if (!ret)
		return fg_fork_do(gate, clone);
	if (clone->need)
		fg_fork_drop(gate, thr);
	return ret;
}

/**
 * fg_fork_begin - F1 to F5, before the kernel's clone
 * @clone_flags: of the clone
 * @clone: filled in for fg_fork_end()
 *
 * If the gate has ended meanwhile, or a parent went on, the system call is made
 * again, from scratch, and passes the hook once more. It must not go on here:
 * nothing would hold the module for it (rule 15).
 *
 * Context: the cloning thread, in a system call; may sleep.
 * Return: 0: clone, then call fg_fork_end(). Otherwise the clone's error:
 * -ENOMEM, -EAGAIN, -EDEADLK, -ERESTARTNOINTR.
 */
int fg_fork_begin(u64 clone_flags, struct fg_clone *clone)
{
	struct fg_gate *gate;
	unsigned long irq;
	bool pinned;
	int ret;

	*clone = (struct fg_clone){};
	fg_step(FG_STEP_BEGIN);
	gate = fg_gate_get(current->mm);
	if (!gate)
		return restart_syscall();
	if (!fg_fork_count(gate)) {
		fg_gate_put(gate);
		return restart_syscall();
	}
	ret = fg_fork_at(gate, clone_flags, clone);
	if (!ret) {
		clone->thr->clone = clone;
		return 0;
	}
	raw_spin_lock_irqsave(&gate->lock, irq);
	pinned = fg_fork_uncount(gate);
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	fg_fork_cleanup(gate, clone, pinned);
	return ret == -ESTALE ? restart_syscall() : ret;
}

/**
 * fg_fork_copied - F6 ahead of time: the copy is complete, the clone is not
 * @clone: the clone
 * @child: the child, not running yet
 *
 * Rule 2: for clones that return much later, as a vfork, or one that stops for
 * a tracer.
 *
 * Context: the cloning thread; must not sleep.
 */
void fg_fork_copied(struct fg_clone *clone, struct task_struct *child)
{
	struct fg_thread *thr = clone->thr;
	struct fg_gate *gate = fg_thread_gate(thr);
	unsigned long irq;

	raw_spin_lock_irqsave(&gate->lock, irq);
	if (clone->stand_in)
		fg_thread_stand_in(clone, child);
	if (thr->fork.state == FG_FORK_COPYING) {
		fg_phase_leave(gate, thr);
		fg_phase_run(gate);
	}
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	fg_settle_atomic(gate);
}

/**
 * fg_fork_end - F6, after the kernel's clone
 * @clone: from fg_fork_begin()
 * @ret: what the clone returned
 *
 * Context: the cloning thread; may sleep.
 */
void fg_fork_end(struct fg_clone *clone, long ret)
{
	struct fg_thread *thr = clone->thr;
	struct fg_gate *gate = fg_thread_gate(thr);
	unsigned long irq;
	bool pinned;

	fg_step(FG_STEP_COPIED);
	thr->clone = NULL;
	raw_spin_lock_irqsave(&gate->lock, irq);
	if (clone->stand_in)
		fg_thread_resume(clone);
	if (thr->fork.state == FG_FORK_COPYING) {
		/* A signal after the grant: to be granted again */
		if (ret == -ERESTARTNOINTR)
			fg_fork_hold(gate, thr);
		else
			fg_phase_leave(gate, thr);
	}
	if (ret == -ERESTARTNOINTR && clone->tries)
		fg_fork_tries(gate, clone, true);
	fg_phase_run(gate);
	if (clone->need && ret != -ERESTARTNOINTR)
		thr->fork.past = FG_PAST_NONE;
	pinned = fg_fork_uncount(gate);
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	fg_settle(gate);
	fg_fork_cleanup(gate, clone, pinned);
}
