// SPDX-License-Identifier: GPL-2.0-only
/*
 * timer.c - ends of tickets, places and patience, and work deferred until the
 * lock is dropped, or to a context that may sleep
 *
 * Wait queues and messages need sleeping locks on PREEMPT_RT, so they are not
 * for sections under gate->lock, nor for tracepoint handlers: these leave them
 * to fg_settle(), or to the timer, which runs in a softirq. Must not decide who
 * waits.
 */

#include <linux/jiffies.h>
#include <linux/sched.h>

#include "compat.h"
#include "gate.h"
#include "trace.h"

/* Batches of one softirq, which keeps preemption off, and of one call */
#define FG_TIMER_ROUNDS	4

/**
 * fg_deadline_clear - a place or a ticket has no end (any more)
 * @gate: its gate; gate->lock is held
 * @thr: the forker
 */
void fg_deadline_clear(struct fg_gate *gate, struct fg_thread *thr)
{
	lockdep_assert_held(&gate->lock);

	if (!RB_EMPTY_NODE(&thr->fork.deadline.node))
		timerqueue_del(&gate->deadlines, &thr->fork.deadline);
}

/**
 * fg_deadline_set - a place or a ticket ends while its thread is in user mode
 * @gate: its gate; gate->lock is held
 * @thr: the forker
 * @ns: when, or FORKGATE_FOREVER
 */
void fg_deadline_set(struct fg_gate *gate, struct fg_thread *thr, u64 ns)
{
	lockdep_assert_held(&gate->lock);

	fg_deadline_clear(gate, thr);
	if (ns > KTIME_MAX)
		return;
	thr->fork.deadline.expires = ns;
	timerqueue_add(&gate->deadlines, &thr->fork.deadline);
	fg_timer_arm(gate);
}

static u64 fg_next_deadline(struct fg_gate *gate)
{
	struct timerqueue_node *node = timerqueue_getnext(&gate->deadlines);

	return node ? node->expires : FORKGATE_FOREVER;
}

/* A pending timer holds the gate. */
static void fg_timer_at(struct fg_gate *gate, unsigned long expires)
{
	if (!gate->dead && !timer_reduce(&gate->timer, expires))
		refcount_inc(&gate->ref);
}

/**
 * fg_timer_end - the gate is dead: its timer does not run any more
 * @gate: the gate, dead and referenced; gate->lock is held
 *
 * One that is running ends without arming it again.
 */
void fg_timer_end(struct fg_gate *gate)
{
	lockdep_assert_held(&gate->lock);

	if (timer_delete(&gate->timer))
		fg_gate_put(gate);
}

/**
 * fg_timer_arm - have the timer run when something ends or a drain must yield
 * @gate: the gate; gate->lock is held
 */
void fg_timer_arm(struct fg_gate *gate)
{
	u64 next = fg_next_deadline(gate), now;

	lockdep_assert_held(&gate->lock);

	if (fg_phase_may_yield(gate))
		next = min(next, gate->yield_at);
	if (next == FORKGATE_FOREVER)
		return;
	now = ktime_get_ns();
	fg_timer_at(gate, jiffies + 1 + (next > now ?
		    nsecs_to_jiffies(min(next - now, FORKGATE_TIME_MAX)) : 0));
}

/**
 * fg_timer_kick - have the timer do what this context may not
 * @gate: the gate; gate->lock is held
 */
void fg_timer_kick(struct fg_gate *gate)
{
	lockdep_assert_held(&gate->lock);

	fg_timer_at(gate, jiffies);
}

/*
 * A place (rule 8) or a ticket (rule 11) ran out while its holder was in user
 * mode.
 */
static void fg_expire(struct fg_gate *gate, struct fg_thread *thr)
{
	struct fg_fork *fork = &thr->fork;

	fg_count(gate, FG_EVENT_EXPIRE);
	trace_expire(thr, fork->need);
	if (fork->state == FG_FORK_TICKET)
		fg_fork_leave_past(gate, fork, FG_PAST_PREPARED);
	else if (fork->kind == FG_POLLED_TICKET &&
		 ktime_get_ns() >= fork->limit)
		fg_fork_leave_past(gate, fork, FG_PAST_WAITED);
	fg_phase_leave(gate, thr);
}

/* Return: whether there is more to do at once. */
static bool fg_timer_batch(struct fg_gate *gate)
{
	u64 now = ktime_get_ns();
	struct timerqueue_node *node;
	int n;

	for (n = 0; n < FG_EXPIRE_BATCH && fg_next_deadline(gate) <= now; n++) {
		node = timerqueue_getnext(&gate->deadlines);
		fg_expire(gate, container_of(node, struct fg_thread,
					     fork.deadline));
	}
	/* Rule 7 */
	if (fg_phase_may_yield(gate) && now >= gate->yield_at)
		fg_phase_yield(gate, now);
	fg_phase_run(gate);
	return fg_release_batch(gate) || fg_next_deadline(gate) <= now;
}

/**
 * fg_timer - the gate's timer
 * @timer: gate->timer, whose reference to the gate is dropped
 *
 * Context: timer softirq.
 */
void fg_timer(struct timer_list *timer)
{
	struct fg_gate *gate = timer_container_of(gate, timer, timer);
	struct fg_report report;
	bool more;
	unsigned long irq;
	int n;

	for (n = 0, more = true; more && n < FG_TIMER_ROUNDS; n++) {
		raw_spin_lock_irqsave(&gate->lock, irq);
		more = !gate->dead && fg_timer_batch(gate);
		report = gate->report;
		gate->report.blame.pid = NULL;
		raw_spin_unlock_irqrestore(&gate->lock, irq);
		fg_report(&report);
		more |= fg_poll_wake(gate);
	}
	raw_spin_lock_irqsave(&gate->lock, irq);
	if (more)
		fg_timer_kick(gate);
	else
		fg_timer_arm(gate);
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	fg_gate_put(gate);
}

/**
 * fg_settle_now - count the released in (K6), and tell poll() of some
 * @gate: a referenced gate
 *
 * Context: may sleep.
 */
void fg_settle_now(struct fg_gate *gate)
{
	unsigned long irq;
	bool more = true;
	int n;

	while (more && !list_empty_careful(&gate->released)) {
		raw_spin_lock_irqsave(&gate->lock, irq);
		more = fg_release_batch(gate);
		raw_spin_unlock_irqrestore(&gate->lock, irq);
		if (more) {
			fg_step(FG_STEP_RELEASE);
			cond_resched();
		}
	}
	/* Those who poll may be many, and of others: the timer has the rest. */
	for (n = 0; n < FG_TIMER_ROUNDS; n++) {
		if (list_empty_careful(&gate->notify) || !fg_poll_wake(gate))
			break;
		cond_resched();
	}
}

/**
 * fg_settle_atomic - the same for callers that may not sleep
 * @gate: a referenced gate
 *
 * Context: any except hard interrupts.
 */
void fg_settle_atomic(struct fg_gate *gate)
{
	unsigned long irq;

	if (list_empty_careful(&gate->released) &&
	    list_empty_careful(&gate->notify))
		return;
	raw_spin_lock_irqsave(&gate->lock, irq);
	if (fg_release_batch(gate) || !list_empty(&gate->notify))
		fg_timer_kick(gate);
	raw_spin_unlock_irqrestore(&gate->lock, irq);
}
