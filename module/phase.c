// SPDX-License-Identifier: GPL-2.0-only
/*
 * phase.c - F2, F4, F6, F7 and K7: who may copy, and in which phase
 *
 * The argument is at the head of gate.c. All of this runs under gate->lock and
 * in steps bounded by a constant (rule 13): forkers are counted, not visited.
 *
 *	 join (F2)                   grant (F4)
 *   NONE ------> WAITING, queued       +-------> TICKET ----+
 *	|	     | F7, K7	        |	    |  |     | expiry, release,
 *	|	     v		        |    clone  |  |     | end of the thread
 *	+----> WAITING, in the phase ---+     (F4)  v  |     v
 *		     ^	    ^           +-------> COPYING -> NONE (F6)
 *		     |	    | a signal after the grant |
 *		     |	    +--------------------------+
 *		     +- the ticket does not cover the clone
 *
 * Must not know what a forker is waiting for its grant with: fork.c and
 * ticket.c do.
 */

#include <linux/module.h>

#include "gate.h"
#include "trace.h"

/**
 * fg_fork_queued - does a forker wait for the next phase?
 * @gate: its gate; gate->lock is held
 * @thr: a forker
 *
 * Return: whether it does; otherwise it is in the current one.
 */
bool fg_fork_queued(struct fg_gate *gate, struct fg_thread *thr)
{
	lockdep_assert_held(&gate->lock);

	return thr->fork.phase > gate->phase_nr;
}

static struct fg_crowd *fg_crowd(struct fg_gate *gate, struct fg_thread *thr)
{
	return fg_fork_queued(gate, thr) ? &gate->queue : &gate->phase;
}

/* Closing */

/* F3, the first half: publish `closed` to a batch of units. */
static void fg_publish(struct fg_gate *gate)
{
	u32 end = min(gate->published + FG_CLOSE_BATCH, gate->nr_units);
	struct fg_unit *unit;

	for (; gate->published < end; gate->published++) {
		unit = gate->units[gate->published];
		if (unit)
			WRITE_ONCE(unit->shared->header.closed, gate->closed);
	}
}

static void fg_set_closed(struct fg_gate *gate, u32 closed)
{
	if (gate->closed == closed)
		return;
	gate->closed = closed;
	gate->published = 0;
	fg_publish(gate);
}

/* F2: close what a forker of this phase needs. */
static void fg_phase_close(struct fg_gate *gate, u32 domains)
{
	int d;

	for (d = 0; d < FG_NR_DOMAINS; d++)
		if ((domains & BIT(d)) &&
		    gate->domains[d].state == FG_DOMAIN_OPEN)
			gate->domains[d].state = FG_DOMAIN_FENCING;
	fg_set_closed(gate, gate->closed | domains);
}

/**
 * fg_phase_strict - keep newcomers of either domain out until the phase ends
 * @gate: the gate; gate->lock is held
 *
 * Threads that go in and out of the one domain while they are inside the other,
 * which only newcomers are kept from, could otherwise prolong a phase without
 * end (rule 6).
 */
void fg_phase_strict(struct fg_gate *gate)
{
	lockdep_assert_held(&gate->lock);

	if (!gate->phase.nr)
		return;
	gate->strict = true;
	fg_set_closed(gate, FORKGATE_DOMAINS);
}

/**
 * fg_phase_unready - is there closing or scanning to do for this phase?
 * @gate: the gate; gate->lock is held
 *
 * Return: whether there is; its forkers call fg_phase_step() then.
 */
bool fg_phase_unready(struct fg_gate *gate)
{
	int d;

	lockdep_assert_held(&gate->lock);

	if (!gate->phase.nr)
		return false;
	if (gate->published < gate->nr_units)
		return true;
	for (d = 0; d < FG_NR_DOMAINS; d++)
		if (gate->domains[d].state == FG_DOMAIN_FENCING ||
		    gate->domains[d].state == FG_DOMAIN_SCANNING)
			return true;
	return false;
}

/* Is a slot of a unit inside a section? One that is not in use may look so. */
static bool fg_unit_busy(const struct fg_unit *unit)
{
	const struct forkgate_slot *slot = unit->shared->slots;
	const struct forkgate_slot *end = slot + fls64(unit->used);
	u64 depths = 0;

	for (; slot < end; slot++)
		depths |= READ_ONCE(*(const u64 *)slot->depth);
	if (depths)
		return true;
	/* L1: who sees the slots idle sees all that their sections wrote. */
	smp_acquire__after_ctrl_dep();
	return false;
}

/* F4: count the slots of a unit that are inside. */
static void fg_scan_unit(struct fg_gate *gate, u32 index, u32 domains)
{
	struct fg_unit *unit = gate->units[index];
	u64 used;
	u32 inside;
	int bit;

	if (!unit || (!gate->nr_polled && !fg_unit_busy(unit)))
		return;
	for (used = unit->used; used; used &= used - 1) {
		bit = __ffs64(used);
		inside = fg_depth_domains(&unit->shared->slots[bit]) & domains;
		if (inside)
			fg_count_inside(gate, unit->slots[bit], inside);
		fg_polled_inside(gate, unit->slots[bit]);
	}
}

/* F4, a batch of it */
static void fg_scan(struct fg_gate *gate)
{
	u32 domains = 0, cursor = FORKGATE_UNITS, end;
	struct fg_domain *domain;
	int d;

	/* Those whose scan is behind, together where they are */
	for (d = 0; d < FG_NR_DOMAINS; d++) {
		domain = &gate->domains[d];
		if (domain->state != FG_DOMAIN_SCANNING ||
		    domain->cursor > cursor)
			continue;
		if (domain->cursor < cursor)
			domains = 0;
		cursor = domain->cursor;
		domains |= BIT(d);
	}
	end = min(cursor + FG_SCAN_BATCH, gate->nr_units);
	for (; cursor < end; cursor++)
		fg_scan_unit(gate, cursor, domains);
	for (d = 0; d < FG_NR_DOMAINS; d++) {
		domain = &gate->domains[d];
		if (!(domains & BIT(d)))
			continue;
		domain->cursor = cursor;
		if (cursor == gate->nr_units)
			domain->state = FG_DOMAIN_COUNTED;
	}
}

/**
 * fg_phase_alone - is there a single forker, and no one else who waits?
 * @gate: the gate; gate->lock is held
 *
 * Return: whether. Its phase makes nothing possible for others then.
 */
bool fg_phase_alone(struct fg_gate *gate)
{
	lockdep_assert_held(&gate->lock);

	return gate->phase.nr == 1 && !gate->queue.nr && !gate->nr_blocked;
}

/**
 * fg_phase_unfenced - the domains that wait for a fence
 * @gate: the gate; gate->lock is held
 *
 * Return: FORKGATE_*; 0 while units do not say yet what is closed.
 */
u32 fg_phase_unfenced(struct fg_gate *gate)
{
	u32 domains = 0;
	int d;

	lockdep_assert_held(&gate->lock);

	if (gate->published < gate->nr_units)
		return 0;
	for (d = 0; d < FG_NR_DOMAINS; d++)
		if (gate->domains[d].state == FG_DOMAIN_FENCING)
			domains |= BIT(d);
	return domains;
}

/**
 * fg_phase_step - F3, F4: advance a phase that is not ready
 * @gate: the gate; gate->lock is held
 *
 * Return: true if fg_fence() is what comes next.
 */
bool fg_phase_step(struct fg_gate *gate)
{
	lockdep_assert_held(&gate->lock);

	if (gate->published < gate->nr_units) {
		fg_publish(gate);
		return false;
	}
	if (fg_phase_unfenced(gate))
		return true;
	fg_scan(gate);
	return false;
}

/* Being in a phase */

static void fg_drains_add(struct fg_crowd *crowd, u32 need, int n)
{
	int d;

	for (d = 0; d < FG_NR_DOMAINS; d++)
		if (need & BIT(d))
			crowd->drains[d] += n;
}

static void fg_holds_add(struct fg_gate *gate, u32 need, int n)
{
	int d;

	for (d = 0; d < FG_NR_DOMAINS; d++)
		if (need & BIT(d))
			gate->domains[d].holds += n;
}

/* Which of the lists of those that can be granted */
static int fg_wait_bit(const struct fg_fork *fork)
{
	return fork->kind * FG_NR_NEEDS + fork->need;
}

static void fg_wait_list(struct fg_gate *gate, struct fg_thread *thr, bool first)
{
	struct fg_crowd *crowd = fg_crowd(gate, thr);
	struct fg_fork *fork = &thr->fork;
	int bit = fg_wait_bit(fork);

	if (first)
		list_add(&fork->wait, &crowd->waiting[bit]);
	else
		list_add_tail(&fork->wait, &crowd->waiting[bit]);
	crowd->waits |= BIT(bit);
}

static struct fg_thread *fg_earlier(struct fg_thread *a, struct fg_thread *b)
{
	return !a || b->fork.order < a->fork.order ? b : a;
}

/* The first of a list of the phase's waiting forkers, which is not empty */
static struct fg_thread *fg_wait_first(struct fg_gate *gate, int bit)
{
	return list_first_entry(&gate->phase.waiting[bit], struct fg_thread,
				fork.wait);
}

/* The earliest of the phase's waiting forkers of the kinds below @kinds */
static struct fg_thread *fg_phase_head(struct fg_gate *gate, u32 kinds)
{
	unsigned long waits = gate->phase.waits;
	struct fg_thread *head = NULL;
	int bit;

	for_each_set_bit(bit, &waits, kinds * FG_NR_NEEDS)
		head = fg_earlier(head, fg_wait_first(gate, bit));
	return head;
}

static void fg_phase_begin(struct fg_gate *gate, u64 now)
{
	gate->joining = FG_JOIN_ALL;
	gate->strict = false;
	gate->closed_at = now;
	gate->yield_at = fg_saturated_add(gate->closed_at, gate->phase.patience);
	fg_count(gate, FG_EVENT_PHASE);
}

/* A phase waits at least as patiently as the most patient of its forkers. */
static void fg_phase_patience(struct fg_gate *gate, u64 patience)
{
	if (gate->phase.patience >= patience)
		return;
	gate->yield_at = fg_saturated_add(gate->yield_at,
					  patience - gate->phase.patience);
	gate->phase.patience = patience;
}

/* The domains that forkers of the phase wait to see idle */
static u32 fg_phase_drains(struct fg_gate *gate)
{
	u32 drains = 0;
	int d;

	for (d = 0; d < FG_NR_DOMAINS; d++)
		if (gate->phase.drains[d])
			drains |= BIT(d);
	return drains;
}

/* Rule 6: may a forker that comes now join? */
static bool fg_phase_joinable(struct fg_gate *gate, struct fg_thread *thr)
{
	if (!gate->phase.nr)
		return !gate->queue.nr && list_empty(&gate->released);
	switch (gate->joining) {
	case FG_JOIN_ALL:
		if (!gate->queue.nr)
			return true;
		fallthrough;
	case FG_JOIN_INSIDE:
		return fg_thread_inside(thr) || !gate->phase.patience;
	case FG_JOIN_DRAIN:
		return gate->phase.patience && fg_thread_inside(thr) &&
		       fg_phase_drains(gate);
	}
	return false;
}

/**
 * fg_phase_join - F2: a forker arrives
 * @gate: its gate, not dead; gate->lock is held
 * @thr: the forker, FG_FORK_NONE; fork.need, .kind, .driver and .patience are
 *	set
 * @now: ns
 *
 * It joins the phase or is queued for the next (rule 6). The caller calls
 * fg_phase_run() before it drops the lock.
 */
void fg_phase_join(struct fg_gate *gate, struct fg_thread *thr, u64 now)
{
	struct fg_fork *fork = &thr->fork;

	lockdep_assert_held(&gate->lock);

	/* This may be a signal handler between L1 and L3. */
	if (thr->slot->nr != FG_NO_SLOT && fg_thread_acts(thr))
		fg_slot_left(gate, thr->slot);

	fork->state = FG_FORK_WAITING;
	fork->order = gate->order++;
	list_add_tail(&fork->node, &gate->forkers);
	if (fg_phase_joinable(gate, thr)) {
		fork->phase = gate->phase_nr;
		if (!gate->phase.nr) {
			gate->phase.patience = fork->patience;
			fg_phase_begin(gate, now);
		}
		fg_phase_patience(gate, fork->patience);
		fg_phase_close(gate, fork->need);
		trace_close(thr, fork->need);
	} else {
		fork->phase = gate->phase_nr + 1;
		gate->queue.patience = max(gate->queue.patience, fork->patience);
		fg_phase_strict(gate);
	}
	fg_crowd(gate, thr)->nr++;
	fg_drains_add(fg_crowd(gate, thr), fork->need, 1);
	fg_wait_list(gate, thr, false);
}

/* Take a waiting forker out of what says that it waits. */
static void fg_wait_end(struct fg_gate *gate, struct fg_thread *thr)
{
	struct fg_crowd *crowd = fg_crowd(gate, thr);
	struct fg_fork *fork = &thr->fork;
	int bit = fg_wait_bit(fork);

	list_del_init(&fork->wait);
	if (list_empty(&crowd->waiting[bit]))
		crowd->waits &= ~BIT(bit);
	fg_drains_add(crowd, fork->need, -1);
	fg_phase_no_edge(gate, thr);
}

static void fg_queue_left(struct fg_gate *gate)
{
	if (!--gate->queue.nr)
		gate->queue.patience = 0;
}

/* K7, F7: the queue is in the phase. */
static void fg_phase_merge(struct fg_gate *gate)
{
	struct fg_crowd *phase = &gate->phase, *queue = &gate->queue;
	u32 need = 0;
	int d, bit;

	if (!queue->nr)
		return;
	gate->phase_nr++;
	phase->nr += queue->nr;
	for (d = 0; d < FG_NR_DOMAINS; d++) {
		if (queue->drains[d])
			need |= BIT(d);
		phase->drains[d] += queue->drains[d];
		queue->drains[d] = 0;
	}
	fg_phase_patience(gate, queue->patience);
	queue->nr = 0;
	queue->patience = 0;
	fg_phase_close(gate, need);
	for_each_set_bit(bit, &queue->waits, ARRAY_SIZE(queue->waiting))
		list_splice_tail_init(&queue->waiting[bit],
				      &phase->waiting[bit]);
	phase->waits |= queue->waits;
	queue->waits = 0;
}

/* Rule 6, F7: the queue is the next phase once all released are counted in. */
static void fg_phase_next(struct fg_gate *gate)
{
	struct fg_thread *thr;

	if (gate->phase.nr || !gate->queue.nr || !list_empty(&gate->released))
		return;
	gate->phase.patience = gate->queue.patience;
	fg_phase_begin(gate, ktime_get_ns());
	fg_phase_merge(gate);
	thr = fg_phase_head(gate, FG_NR_KINDS);
	if (thr)
		trace_close(thr, gate->closed);
}

/* Granting */

/* Rule 2, F4: are all other threads outside of what a forker needs? */
static bool fg_phase_idle(struct fg_gate *gate, struct fg_thread *thr)
{
	const struct fg_slot *slot = thr->slot;
	unsigned long own = 0;
	int d;

	if (fg_thread_acts(thr) && !slot->survivors)
		own = (unsigned long)slot;

	for (d = 0; d < FG_NR_DOMAINS; d++) {
		const struct fg_domain *domain = &gate->domains[d];

		if (!(thr->fork.need & BIT(d)))
			continue;
		if (domain->state != FG_DOMAIN_COUNTED)
			return false;
		/* Rule 3: what the forker is inside of does not count. */
		if (domain->inside &&
		    !(domain->inside == 1 && domain->sole == own))
			return false;
	}
	return true;
}

/* Rule 11: nothing is granted beside a ticket, and no ticket beside anything. */
static bool fg_phase_turn(struct fg_gate *gate, struct fg_thread *thr)
{
	return !gate->nr_tickets &&
	       (thr->fork.kind == FG_CLONE || !gate->nr_copies);
}

/*
 * Wake a forker that is in fg_fork_wait(). Also the current task where the timer
 * runs on top of one that has announced its sleep; not one that looks itself.
 */
static void fg_phase_wake(struct fg_thread *thr)
{
	if (thr->task != current || !in_task())
		wake_up_process(thr->task);
}

/*
 * The first forker that can be granted, or NULL while it has to wait for its
 * turn: no later one overtakes it (rule 6). Of those with the same need and
 * kind it is the first of the list, unless one of them is itself the only
 * thread inside.
 */
static struct fg_thread *fg_phase_first(struct fg_gate *gate)
{
	unsigned long waits = gate->phase.waits;
	struct fg_thread *thr, *first = NULL;
	struct fg_slot *slot;
	int d, bit;

	if (!waits)
		return NULL;
	for_each_set_bit(bit, &waits, ARRAY_SIZE(gate->phase.waiting)) {
		thr = fg_wait_first(gate, bit);
		if (fg_phase_idle(gate, thr))
			first = fg_earlier(first, thr);
	}
	for (d = 0; d < FG_NR_DOMAINS; d++) {
		if (gate->domains[d].inside != 1)
			continue;
		slot = (struct fg_slot *)gate->domains[d].sole;
		thr = slot->actor;
		if (thr && !list_empty(&thr->fork.wait) &&
		    !fg_fork_queued(gate, thr) && fg_phase_idle(gate, thr))
			first = fg_earlier(first, thr);
	}
	return first && fg_phase_turn(gate, first) ? first : NULL;
}

/* A clone is let through. */
static void fg_phase_copying(struct fg_gate *gate, struct fg_thread *thr)
{
	thr->fork.state = FG_FORK_COPYING;
	gate->nr_copies++;
	fg_count(gate, FG_EVENT_FORK);
}

static void fg_phase_grant(struct fg_gate *gate, struct fg_thread *thr)
{
	struct fg_fork *fork = &thr->fork;

	fg_wait_end(gate, thr);
	fg_deadline_clear(gate, thr);
	fg_holds_add(gate, fork->need, 1);
	if (trace_grant_enabled())
		trace_grant(thr, fork->need, ktime_get_ns() - fork->since);
	if (gate->joining == FG_JOIN_ALL)
		gate->joining = FG_JOIN_INSIDE;
	fg_thread_tell(gate, thr, FORKGATE_OUTCOME_GRANTED);
	if (fork->kind == FG_CLONE) {
		fg_phase_copying(gate, thr);
	} else {
		fork->state = FG_FORK_TICKET;
		gate->nr_tickets++;
		fg_deadline_set(gate, thr,
				fg_saturated_add(ktime_get_ns(),
						 gate->policy.ticket_hold));
	}
	if (fork->driver != FG_BY_CALLER)
		fg_poll_notify(gate, thr);
	else
		fg_phase_wake(thr);
}

/**
 * fg_phase_nudge - a forker that polls has to call
 * @gate: its gate; gate->lock is held
 * @thr: the forker; nothing happens if it does not poll, or knows
 */
void fg_phase_nudge(struct fg_gate *gate, struct fg_thread *thr)
{
	lockdep_assert_held(&gate->lock);

	if (thr->fork.driver != FG_BY_POLL)
		return;
	thr->fork.driver = FG_BY_NUDGE;
	fg_poll_notify(gate, thr);
}

/*
 * A phase that is not ready is brought on by its forkers, of which the first
 * that sleeps must be awake. If all of them poll, the first is told to call,
 * and loses its place if it does not within ticket_hold.
 */
static void fg_phase_rouse(struct fg_gate *gate)
{
	struct fg_thread *thr = fg_phase_head(gate, FG_POLLED_TICKET);
	u64 until;

	if (thr) {
		fg_phase_wake(thr);
		return;
	}
	thr = fg_phase_head(gate, FG_NR_KINDS);
	if (!thr || thr->fork.driver == FG_BY_CALLER)
		return;
	fg_phase_nudge(gate, thr);
	until = ktime_get_ns() + gate->policy.ticket_hold;
	if (RB_EMPTY_NODE(&thr->fork.deadline.node) ||
	    until < thr->fork.deadline.expires)
		fg_deadline_set(gate, thr, until);
}

/* Yielding */

/*
 * Rule 6: a copy or a ticket has ended and others are in the phase. If threads
 * are still kept out, only those join for whom the phase has to wait anyway, so
 * that it has an end. If they were let go, it is open again to the forkers that
 * were put off.
 */
static void fg_phase_seal(struct fg_gate *gate)
{
	if (fg_any_blocked(gate, FG_NEWCOMER) ||
	    fg_any_blocked(gate, FG_NESTED)) {
		gate->joining = FG_JOIN_DRAIN;
	} else if (gate->joining == FG_JOIN_DRAIN) {
		gate->joining = FG_JOIN_INSIDE;
		fg_phase_merge(gate);
	}
}

/* Would a yield let a blocked newcomer or a queued forker through? */
static bool fg_phase_wants_yield(struct fg_gate *gate)
{
	return (gate->nr_blocked || gate->queue.nr) && gate->phase.patience &&
	       fg_phase_drains(gate) &&
	       (gate->queue.nr || fg_any_blocked(gate, FG_NEWCOMER));
}

/**
 * fg_phase_may_yield - does the drain yield when patience is over?
 * @gate: the gate; gate->lock is held
 *
 * Return: whether.
 */
bool fg_phase_may_yield(struct fg_gate *gate)
{
	lockdep_assert_held(&gate->lock);

	return fg_phase_wants_yield(gate) && !gate->nr_tickets &&
	       !gate->nr_copies;
}

/**
 * fg_phase_yield - K7: let those blocked so far through, once (rule 7)
 * @gate: the gate; gate->lock is held
 * @now: ns
 *
 * The caller calls fg_phase_run() before it drops the lock.
 */
void fg_phase_yield(struct fg_gate *gate, u64 now)
{
	lockdep_assert_held(&gate->lock);

	fg_release_newcomers(gate);
	fg_count(gate, FG_EVENT_YIELD);
	fg_phase_merge(gate);
	gate->phase.patience = fg_saturated_add(gate->phase.patience,
						gate->phase.patience);
	gate->yield_at = fg_saturated_add(now, gate->phase.patience);
	fg_phase_seal(gate);
	trace_yield(gate, gate->phase.patience);
}

/*
 * Rule 7: when patience is over nothing more is granted until the copies and
 * tickets have ended and the drain has yielded. Return: whether to grant.
 */
static bool fg_phase_may_grant(struct fg_gate *gate)
{
	u64 now;

	if (!fg_phase_wants_yield(gate))
		return true;
	now = ktime_get_ns();
	if (now < gate->yield_at)
		return true;
	if (gate->nr_tickets || gate->nr_copies)
		return false;
	fg_phase_yield(gate, now);
	return list_empty(&gate->released);
}

/**
 * fg_phase_run - F4, F7: do what a change has made possible
 * @gate: the gate; gate->lock is held
 *
 * At most FG_GRANT_BATCH grants; the forkers granted call it again. So do those
 * whose copies and tickets end, and fg_release_batch().
 */
void fg_phase_run(struct fg_gate *gate)
{
	struct fg_thread *thr;
	bool grant;
	int n;

	lockdep_assert_held(&gate->lock);

	if (gate->dead || !list_empty(&gate->released))
		return;
	fg_phase_next(gate);
	if (!gate->phase.nr)
		return;
	grant = fg_phase_may_grant(gate);
	if (fg_phase_unready(gate))
		fg_phase_rouse(gate);
	for (n = 0; grant && n < FG_GRANT_BATCH; n++) {
		thr = fg_phase_first(gate);
		if (!thr)
			break;
		fg_phase_grant(gate, thr);
	}
	fg_timer_arm(gate);
}

/**
 * fg_phase_verify - F4: the clone of a ticket's holder
 * @gate: its gate, not dead; gate->lock is held
 * @thr: the holder; fork.need is what the ticket covers
 *
 * The ticket does not replace the check (rule 2).
 *
 * Return: whether it may copy now; its state is FG_FORK_COPYING then.
 */
bool fg_phase_verify(struct fg_gate *gate, struct fg_thread *thr)
{
	lockdep_assert_held(&gate->lock);

	if (!fg_phase_idle(gate, thr))
		return false;
	fg_deadline_clear(gate, thr);
	fg_thread_tell(gate, thr, FORKGATE_OUTCOME_GRANTED);
	gate->nr_tickets--;
	fg_phase_copying(gate, thr);
	thr->fork.kind = FG_CLONE;
	if (trace_grant_enabled())
		trace_grant(thr, thr->fork.need,
			    ktime_get_ns() - thr->fork.since);
	return true;
}

/**
 * fg_phase_force - a clone goes ahead although it was not granted
 * @gate: its gate, not dead; gate->lock is held
 * @thr: a forker, FG_FORK_WAITING
 *
 * It still blocks others, as a granted copy does, if it is in the phase. The
 * caller calls fg_phase_run() before it drops the lock.
 */
void fg_phase_force(struct fg_gate *gate, struct fg_thread *thr)
{
	lockdep_assert_held(&gate->lock);

	if (fg_fork_queued(gate, thr)) {
		fg_phase_leave(gate, thr);
		fg_count(gate, FG_EVENT_FORK);
		return;
	}
	fg_wait_end(gate, thr);
	fg_deadline_clear(gate, thr);
	fg_holds_add(gate, thr->fork.need, 1);
	fg_phase_copying(gate, thr);
	if (gate->joining == FG_JOIN_ALL)
		gate->joining = FG_JOIN_INSIDE;
}

/* F6: the last one out */
static void fg_phase_open(struct fg_gate *gate)
{
	u64 closed = ktime_get_ns() - gate->closed_at;
	int d;

	trace_open(gate, closed);
	fg_account(FG_TIME_PHASE, closed);
	fg_release_blocked(gate);
	gate->strict = false;
	gate->openings++;
	for (d = 0; d < FG_NR_DOMAINS; d++)
		gate->domains[d] = (struct fg_domain){ .state = FG_DOMAIN_OPEN };
	/* The units of later batches are told by those who come from there. */
	fg_set_closed(gate, 0);
}

static void fg_hold_end(struct fg_gate *gate, struct fg_thread *thr)
{
	fg_holds_add(gate, thr->fork.need, -1);
	if (thr->fork.state == FG_FORK_TICKET)
		gate->nr_tickets--;
	else
		gate->nr_copies--;
}

/**
 * fg_phase_again - a forker goes on as one that waits
 * @gate: its gate, not dead; gate->lock is held
 * @thr: a forker in any state but FG_FORK_NONE
 * @need: domains it needs in addition
 * @kind: what it waits for from now on
 * @driver: what drives it
 *
 * What it was granted, it has to be granted again. The caller calls
 * fg_phase_run() before it drops the lock.
 */
void fg_phase_again(struct fg_gate *gate, struct fg_thread *thr, u32 need,
		    enum fg_fork_kind kind, enum fg_fork_driver driver)
{
	struct fg_fork *fork = &thr->fork;
	bool held = fork->state != FG_FORK_WAITING;

	lockdep_assert_held(&gate->lock);

	if (thr->slot->nr != FG_NO_SLOT && fg_thread_acts(thr))
		fg_slot_left(gate, thr->slot);
	if (held)
		fg_hold_end(gate, thr);
	else
		fg_wait_end(gate, thr);
	fg_deadline_clear(gate, thr);

	/* One that is inside by now may join a phase that waits for it. */
	if (fg_fork_queued(gate, thr) && gate->phase.nr &&
	    fg_phase_joinable(gate, thr)) {
		fg_queue_left(gate);
		gate->phase.nr++;
		fork->phase = gate->phase_nr;
		fg_phase_patience(gate, fork->patience);
	}
	fork->state = FG_FORK_WAITING;
	fork->need |= need;
	fork->kind = kind;
	fork->driver = driver;
	fg_drains_add(fg_crowd(gate, thr), fork->need, 1);
	if (!fg_fork_queued(gate, thr))
		fg_phase_close(gate, fork->need);
	if (driver != FG_BY_RESTART)
		fg_wait_list(gate, thr, true);
	if (held) {
		fg_release_unbarred(gate);
		fg_phase_seal(gate);
	}
}

/**
 * fg_phase_leave - F6: a forker leaves, for whatever reason
 * @gate: its gate; gate->lock is held
 * @thr: a forker in any state
 *
 * The caller calls fg_phase_run() before it drops the lock.
 */
void fg_phase_leave(struct fg_gate *gate, struct fg_thread *thr)
{
	struct fg_fork *fork = &thr->fork;
	bool queued, held;

	lockdep_assert_held(&gate->lock);

	if (fork->state == FG_FORK_NONE)
		return;
	queued = fg_fork_queued(gate, thr);
	held = fork->state != FG_FORK_WAITING;
	if (held)
		fg_hold_end(gate, thr);
	else
		fg_wait_end(gate, thr);
	fg_deadline_clear(gate, thr);
	if (fork->kind == FG_POLLED_TICKET)
		fg_poll_notify(gate, thr);
	list_del_init(&fork->node);
	fork->state = FG_FORK_NONE;
	if (queued) {
		fg_queue_left(gate);
		return;
	}
	/* Rule 7: the next attempt goes on with what the yields have made. */
	fork->patience = max(fork->patience, gate->phase.patience);
	if (!--gate->phase.nr) {
		fg_phase_open(gate);
		return;
	}
	fg_release_unbarred(gate);
	if (held)
		fg_phase_seal(gate);
}

/* Circles (rule 4) */

static int fg_edge(u32 need, u32 inside)
{
	return need * FG_NR_NEEDS + inside;
}

/**
 * fg_phase_edge - a forker sleeps, or is polled for: others may wait for it
 * @gate: its gate; gate->lock is held
 * @thr: the forker
 */
void fg_phase_edge(struct fg_gate *gate, struct fg_thread *thr)
{
	lockdep_assert_held(&gate->lock);

	thr->fork.edge = fg_edge(thr->fork.need, fg_fork_inside(gate, thr));
	gate->edges[thr->fork.edge]++;
	gate->nr_polled += thr->fork.kind == FG_POLLED_TICKET;
}

/**
 * fg_phase_no_edge - the reverse
 * @gate: its gate; gate->lock is held
 * @thr: the forker
 */
void fg_phase_no_edge(struct fg_gate *gate, struct fg_thread *thr)
{
	lockdep_assert_held(&gate->lock);

	if (thr->fork.edge == FG_NO_EDGE)
		return;
	gate->edges[thr->fork.edge]--;
	gate->nr_polled -= thr->fork.kind == FG_POLLED_TICKET;
	thr->fork.edge = FG_NO_EDGE;
}

/**
 * fg_phase_circular - would this wait close a circle? (rule 4)
 * @gate: its gate, not dead; gate->lock is held
 * @thr: a forker about to sleep, without an edge
 *
 * Forker i waits for forker j when need(i) meets inside(j). There is a circle
 * through @thr exactly if somebody that it waits for, directly or not, needs
 * what @thr is inside of. With two domains that is a fixed point over the kinds
 * of edges. Forkers that do not sleep look for themselves before they do; those
 * in user mode with a kept place can still leave what they are inside of.
 *
 * Return: whether it would.
 */
bool fg_phase_circular(struct fg_gate *gate, struct fg_thread *thr)
{
	u32 own, reached = thr->fork.need, needed = 0, before;
	u32 need, inside;

	lockdep_assert_held(&gate->lock);

	own = fg_fork_inside(gate, thr);
	if (!own)
		return false;
	do {
		before = reached;
		for (need = 1; need < FG_NR_NEEDS; need++) {
			for (inside = 1; inside < FG_NR_NEEDS; inside++) {
				if (!(inside & reached) ||
				    !gate->edges[fg_edge(need, inside)])
					continue;
				reached |= need;
				needed |= need;
			}
		}
	} while (reached != before);
	return needed & own;
}

/* The end */

static void fg_fork_void(struct fg_gate *gate, struct fg_thread *thr)
{
	struct fg_fork *fork = &thr->fork;

	list_del_init(&fork->node);
	list_del_init(&fork->wait);
	fg_deadline_clear(gate, thr);
	if (fork->kind == FG_POLLED_TICKET)
		fg_poll_notify(gate, thr);
	else if (fork->state == FG_FORK_WAITING &&
		 fork->driver == FG_BY_CALLER)
		wake_up_process(thr->task);
	fork->edge = FG_NO_EDGE;
	fork->state = FG_FORK_NONE;
}

/**
 * fg_gate_end - the last mapping is gone: no one waits at this gate any more
 * @gate: a referenced gate, not found any more by those who look it up
 *
 * Context: under mmap_lock; may sleep.
 */
void fg_gate_end(struct fg_gate *gate)
{
	struct fg_report report;
	struct fg_thread *thr;
	unsigned long irq;
	bool more;
	int n;

	raw_spin_lock_irqsave(&gate->lock, irq);
	gate->dead = true;
	/* Rule 15: so far the mapping's file has held the module for them. */
	if (gate->clones) {
		__module_get(THIS_MODULE);
		gate->pinned = true;
	}
	fg_timer_end(gate);
	fg_release_blocked(gate);
	report = gate->report;
	gate->report.blame.pid = NULL;
	do {
		more = fg_release_batch(gate);
		for (n = 0; n < FG_GRANT_BATCH; n++) {
			thr = list_first_entry_or_null(&gate->forkers,
						       struct fg_thread,
						       fork.node);
			if (!thr)
				break;
			fg_fork_void(gate, thr);
		}
		more |= !list_empty(&gate->forkers);
		raw_spin_unlock_irqrestore(&gate->lock, irq);
		raw_spin_lock_irqsave(&gate->lock, irq);
	} while (more);
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	fg_settle(gate);
	/* No timer does the rest. */
	while (fg_poll_wake(gate))
		cond_resched();
	fg_blame_drop(&report.blame);
}
