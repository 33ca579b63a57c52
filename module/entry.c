// SPDX-License-Identifier: GPL-2.0-only
/*
 * entry.c - K1 to K6: who may be inside a section, and who waits to enter
 *
 * The argument is at the head of gate.c. Must not know how forkers wait.
 */

#include <linux/sched/signal.h>
#include <linux/uaccess.h>

#include "gate.h"
#include "trace.h"

/**
 * fg_depth_domains - the domains that a slot's depths are inside of
 * @slot: the slot
 *
 * Pairs with the store-release of L1: who sees a slot idle sees all that its
 * section wrote.
 *
 * Return: FORKGATE_*.
 */
u32 fg_depth_domains(const struct forkgate_slot *slot)
{
	u32 memory = smp_load_acquire(&slot->depth[0]);	/* L1, see above */
	u32 files = smp_load_acquire(&slot->depth[1]);	/* likewise */

	return (memory ? FORKGATE_MEMORY : 0) | (files ? FORKGATE_FILES : 0);
}

/**
 * fg_thread_inside - the domains that a thread's slot is inside of
 * @thr: the thread, of a gate that is not dead; gate->lock is held
 *
 * An unadmitted level counts: a forker that has not passed it waits for it.
 *
 * Return: FORKGATE_*.
 */
u32 fg_thread_inside(struct fg_thread *thr)
{
	struct fg_slot *slot = thr->slot;

	if (slot->nr == FG_NO_SLOT || !fg_thread_acts(thr))
		return 0;
	return fg_depth_domains(fg_shared_slot(slot->gate, slot->nr));
}

/* The domains in which the scan of this phase has passed a slot (F4) */
static u32 fg_passed(struct fg_gate *gate, const struct fg_slot *slot)
{
	u32 unit = slot->nr / FORKGATE_UNIT_SLOTS, passed = 0;
	int d;

	for (d = 0; d < FG_NR_DOMAINS; d++) {
		const struct fg_domain *domain = &gate->domains[d];

		if (domain->state == FG_DOMAIN_COUNTED ||
		    (domain->state == FG_DOMAIN_SCANNING &&
		     unit < domain->cursor))
			passed |= BIT(d);
	}
	return passed;
}

static u32 fg_counted(struct fg_gate *gate, const struct fg_slot *slot)
{
	return slot->opening == gate->openings ? slot->counted : 0;
}

/**
 * fg_fork_inside - what others wait for a forker to leave (rule 4)
 * @gate: its gate, not dead; gate->lock is held
 * @thr: the forker
 *
 * In the phase, levels that its scan has passed do not count, as in K1; the
 * next phase will scan them again. That tells the gate what one that polls is
 * inside of then, see fg_polled_inside(), but not one that sleeps in the queue.
 *
 * Return: FORKGATE_*.
 */
u32 fg_fork_inside(struct fg_gate *gate, struct fg_thread *thr)
{
	u32 inside = fg_thread_inside(thr);

	if (!inside || (fg_fork_queued(gate, thr) &&
			thr->fork.kind != FG_POLLED_TICKET))
		return inside;
	return inside & (fg_counted(gate, thr->slot) |
			 ~fg_passed(gate, thr->slot));
}

static void fg_set_counted(struct fg_gate *gate, struct fg_slot *slot,
			   u32 counted)
{
	u32 changed = fg_counted(gate, slot) ^ counted;
	int d;

	slot->counted = counted;
	slot->opening = gate->openings;
	for (d = 0; d < FG_NR_DOMAINS; d++) {
		if (!(changed & BIT(d)))
			continue;
		gate->domains[d].inside += counted & BIT(d) ? 1 : -1;
		gate->domains[d].sole ^= (unsigned long)slot;
	}
}

/**
 * fg_count_inside - F4, K2: the gate knows that a slot is inside
 * @gate: its gate; gate->lock is held
 * @slot: a slot with a number
 * @domains: of what, whose scan has passed it or passes it now
 */
void fg_count_inside(struct fg_gate *gate, struct fg_slot *slot, u32 domains)
{
	lockdep_assert_held(&gate->lock);

	fg_set_counted(gate, slot, fg_counted(gate, slot) | domains);
}

/**
 * fg_uncount - K5: the gate knows that a slot is idle
 * @gate: its gate; gate->lock is held
 * @slot: a slot with a number
 * @domains: of what
 */
void fg_uncount(struct fg_gate *gate, struct fg_slot *slot, u32 domains)
{
	lockdep_assert_held(&gate->lock);

	fg_set_counted(gate, slot, fg_counted(gate, slot) & ~domains);
}

/**
 * fg_polled_inside - a slot's depths may have changed
 * @gate: its gate; gate->lock is held
 * @slot: a slot with a number
 *
 * What a thread that polls for a ticket is inside of matters to circles, and it
 * may be in one now (rule 4).
 */
void fg_polled_inside(struct fg_gate *gate, struct fg_slot *slot)
{
	struct fg_thread *thr = slot->actor;

	lockdep_assert_held(&gate->lock);

	if (!gate->nr_polled || !thr || thr->fork.edge == FG_NO_EDGE ||
	    thr->fork.driver == FG_BY_CALLER)
		return;
	fg_phase_no_edge(gate, thr);
	if (fg_phase_circular(gate, thr))
		fg_phase_nudge(gate, thr);
	fg_phase_edge(gate, thr);
}

/**
 * fg_slot_left - K5: levels went out of a slot
 * @gate: its gate, not dead; gate->lock is held
 * @slot: a slot with a number
 *
 * The caller calls fg_phase_run() once it has done the rest of its change.
 */
void fg_slot_left(struct fg_gate *gate, struct fg_slot *slot)
{
	lockdep_assert_held(&gate->lock);

	fg_uncount(gate, slot,
		   ~fg_depth_domains(fg_shared_slot(gate, slot->nr)));
	fg_polled_inside(gate, slot);
}

static u32 fg_levels_domains(const u32 *levels)
{
	return (levels[0] ? FORKGATE_MEMORY : 0) |
	       (levels[1] ? FORKGATE_FILES : 0);
}

/**
 * fg_barred - domains that a thread may not enter, whatever it is inside of
 * @gate: the gate; gate->lock is held
 * @thr: the thread, may be NULL
 *
 * Rule 5: those of a copy in progress and of a granted ticket, except for the
 * ticket's holder.
 *
 * Return: FORKGATE_*.
 */
static u32 fg_barred(struct fg_gate *gate, struct fg_thread *thr)
{
	u32 barred = 0;
	int d;

	lockdep_assert_held(&gate->lock);

	/* Beside a ticket only copies can be in progress that are unsafe anyway. */
	if (thr && thr->fork.state == FG_FORK_TICKET)
		return 0;
	for (d = 0; d < FG_NR_DOMAINS; d++)
		if (gate->domains[d].holds)
			barred |= BIT(d);
	return barred;
}

/* Domains that forkers other than @thr are draining; it may be NULL. */
static u32 fg_drained(struct fg_gate *gate, struct fg_thread *thr)
{
	u32 own = thr && thr->fork.state == FG_FORK_WAITING &&
		  !fg_fork_queued(gate, thr) ? thr->fork.need : 0;
	u32 drained = 0;
	int d;

	for (d = 0; d < FG_NR_DOMAINS; d++)
		if (gate->phase.drains[d] > !!(own & BIT(d)))
			drained |= BIT(d);
	return drained;
}

/* Does a drain keep newcomers out of @want? Rule 5 and, for patience 0, rule 7 */
static bool fg_newcomers_wait(struct fg_gate *gate, u32 want, u32 drained)
{
	return gate->phase.patience && (want & drained || gate->strict);
}

/* K2: may @thr enter @want? */
static bool fg_may_enter(struct fg_gate *gate, struct fg_thread *thr, u32 want,
			 bool newcomer)
{
	u32 drained = fg_drained(gate, thr);

	if (want & fg_barred(gate, thr))
		return false;
	if (newcomer)
		return !fg_newcomers_wait(gate, want, drained);
	if (want & drained)
		fg_phase_strict(gate);
	return true;
}

/* Count @thr into @domains, adding @levels to what its slot says. */
static void fg_admit(struct fg_gate *gate, struct fg_thread *thr, u32 domains,
		     const u32 *levels)
{
	struct fg_slot *slot = thr->slot;
	struct forkgate_slot *shared = fg_shared_slot(gate, slot->nr);
	int d;

	for (d = 0; d < FG_NR_DOMAINS; d++)
		if (levels[d])
			WRITE_ONCE(shared->depth[d],
				   READ_ONCE(shared->depth[d]) + levels[d]);
	fg_count_inside(gate, slot, domains & fg_passed(gate, slot));
	fg_polled_inside(gate, slot);
}

/* K6: count a sleeper in. */
static void fg_entry_admit(struct fg_gate *gate, struct fg_entry *entry)
{
	struct fg_thread *thr = entry->thr;

	list_del_init(&entry->node);
	gate->nr_blocked--;
	entry->state = FG_ENTRY_VOID;
	if (gate->dead || !fg_thread_acts(thr) || thr->slot->nr == FG_NO_SLOT)
		return;
	fg_admit(gate, thr, entry->want, entry->levels);
	entry->state = FG_ENTRY_ADMITTED;
}

static void fg_release_list(struct fg_gate *gate, u32 rank, u32 want)
{
	list_splice_tail_init(&gate->blocked[rank][want], &gate->released);
	gate->batch[rank][want]++;
}

/**
 * fg_release_newcomers - K7: let the newcomers blocked so far go
 * @gate: the gate; gate->lock is held
 */
void fg_release_newcomers(struct fg_gate *gate)
{
	u32 want;

	lockdep_assert_held(&gate->lock);

	for (want = 1; want < FG_NR_NEEDS; want++)
		fg_release_list(gate, FG_NEWCOMER, want);
}

/**
 * fg_release_blocked - F6: release every blocked entry
 * @gate: the gate; gate->lock is held
 */
void fg_release_blocked(struct fg_gate *gate)
{
	u32 want;

	lockdep_assert_held(&gate->lock);

	if (!gate->nr_blocked)
		return;
	for (want = 1; want < FG_NR_NEEDS; want++)
		fg_release_list(gate, FG_NESTED, want);
	fg_release_newcomers(gate);
}

/**
 * fg_release_unbarred - a copy or a ticket has ended, others are in the phase
 * @gate: the gate; gate->lock is held
 *
 * Lets those go that only it kept out: threads inside sections, and newcomers
 * that no drain keeps out.
 */
void fg_release_unbarred(struct fg_gate *gate)
{
	u32 barred = fg_barred(gate, NULL), drained = fg_drained(gate, NULL);
	u32 want;

	if (!gate->nr_blocked)
		return;
	for (want = 1; want < FG_NR_NEEDS; want++) {
		if (want & barred)
			continue;
		fg_release_list(gate, FG_NESTED, want);
		if (!fg_newcomers_wait(gate, want, drained))
			fg_release_list(gate, FG_NEWCOMER, want);
	}
}

/**
 * fg_any_blocked - does a thread of a rank wait that was not released?
 * @gate: the gate; gate->lock is held
 * @rank: FG_NEWCOMER or FG_NESTED
 *
 * Return: whether one does.
 */
bool fg_any_blocked(struct fg_gate *gate, u32 rank)
{
	u32 want;

	lockdep_assert_held(&gate->lock);

	if (!gate->nr_blocked)
		return false;
	for (want = 1; want < FG_NR_NEEDS; want++)
		if (!list_empty(&gate->blocked[rank][want]))
			return true;
	return false;
}

/**
 * fg_release_batch - K6: count a batch of released threads in
 * @gate: the gate; gate->lock is held
 *
 * Every thread released helps with the next batch before it returns to user
 * mode, so that contexts that may not sleep need to call this but once.
 *
 * Return: whether there are more.
 */
bool fg_release_batch(struct fg_gate *gate)
{
	struct fg_entry *entry;
	int n;

	lockdep_assert_held(&gate->lock);

	for (n = 0; n < FG_RELEASE_BATCH; n++) {
		entry = list_first_entry_or_null(&gate->released,
						 struct fg_entry, node);
		if (!entry)
			break;
		fg_entry_admit(gate, entry);
		wake_up_process(entry->thr->task);
	}
	if (n && list_empty(&gate->released))
		fg_phase_run(gate);
	return !list_empty(&gate->released);
}

static bool fg_entry_released(struct fg_gate *gate, struct fg_entry *entry)
{
	return entry->batch != gate->batch[entry->rank][entry->want];
}

/*
 * Sleep until counted in. Return: 0, -ENXIO, or -ERESTARTNOINTR with the
 * entry's levels removed from the slot.
 */
static int fg_enter_wait(struct fg_gate *gate, struct fg_entry *entry)
{
	unsigned long irq;
	int ret = 0;

	fg_step(FG_STEP_BLOCKED);
	for (;;) {
		raw_spin_lock_irqsave(&gate->lock, irq);
		if (entry->state == FG_ENTRY_BLOCKED && signal_pending(current)) {
			/* K4 */
			if (fg_entry_released(gate, entry)) {
				fg_entry_admit(gate, entry);
				fg_phase_run(gate);
			} else {
				list_del_init(&entry->node);
				gate->nr_blocked--;
				ret = -ERESTARTNOINTR;
				break;
			}
		}
		if (entry->state != FG_ENTRY_BLOCKED)
			break;
		set_current_state(TASK_INTERRUPTIBLE);
		raw_spin_unlock_irqrestore(&gate->lock, irq);
		schedule();
	}
	if (!ret && entry->state == FG_ENTRY_VOID)
		ret = -ENXIO;
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	__set_current_state(TASK_RUNNING);
	fg_settle(gate);
	return ret;
}

/*
 * The restarted call goes on from what the kernel took out of the slot. If user
 * space cannot be told, it is as if the call had never been made: the levels
 * are in the slot again, unadmitted.
 */
static int fg_enter_interrupted(struct fg_gate *gate, struct fg_entry *entry,
				struct forkgate_enter *enter, const u32 *taken,
				struct forkgate_enter __user *uenter)
{
	struct fg_thread *thr = entry->thr;
	struct forkgate_slot *shared;
	unsigned long irq;
	int d;

	for (d = 0; d < FG_NR_DOMAINS; d++)
		enter->levels[d] = entry->levels[d];
	enter->flags &= ~FORKGATE_COUNTED;
	if (!copy_to_user(uenter, enter, sizeof(*enter)))
		return -ERESTARTNOINTR;

	raw_spin_lock_irqsave(&gate->lock, irq);
	if (!gate->dead && fg_thread_acts(thr) && thr->slot->nr != FG_NO_SLOT) {
		shared = fg_shared_slot(gate, thr->slot->nr);
		for (d = 0; d < FG_NR_DOMAINS; d++)
			WRITE_ONCE(shared->depth[d],
				   READ_ONCE(shared->depth[d]) + taken[d]);
	}
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	return -EFAULT;
}

/* An open gate may have left `closed` set in units far away (F6). */
static void fg_unit_refresh(struct fg_gate *gate, const struct fg_slot *slot)
{
	struct fg_shared *shared =
		gate->units[slot->nr / FORKGATE_UNIT_SLOTS]->shared;

	WRITE_ONCE(shared->header.closed, gate->closed);
}

/*
 * The calling thread if it acts at @gate with a slot; gate->lock is held.
 * Return: 0, -ENXIO, -ESRCH.
 */
static int fg_check_slot(struct fg_gate *gate, struct fg_thread *thr)
{
	if (gate->dead)
		return -ENXIO;
	if (fg_thread_gate(thr) != gate || !fg_thread_acts(thr) ||
	    thr->slot->nr == FG_NO_SLOT)
		return -ESRCH;
	fg_unit_refresh(gate, thr->slot);
	return 0;
}

/**
 * struct fg_levels - what an entry finds in its slot (K1)
 * @depth: levels in the slot
 * @own: how many of them are this entry's
 * @unadmitted: domains in which the levels do not count
 * @inside: domains that the thread is inside of without this entry
 */
struct fg_levels {
	u32 depth[FG_NR_DOMAINS];
	u32 own[FG_NR_DOMAINS];
	u32 unadmitted;
	u32 inside;
};

/* K1. Return: 0 or -EOVERFLOW. */
static int fg_levels_read(struct fg_gate *gate, const struct fg_slot *slot,
			  const struct forkgate_enter *enter,
			  struct fg_levels *levels)
{
	const struct forkgate_slot *shared = fg_shared_slot(gate, slot->nr);
	u32 depth, own;
	int d;

	levels->unadmitted = fg_passed(gate, slot) & ~fg_counted(gate, slot);
	levels->inside = 0;
	for (d = 0; d < FG_NR_DOMAINS; d++) {
		depth = READ_ONCE(shared->depth[d]);
		own = (enter->flags & FORKGATE_COUNTED) &&
		      (enter->domains & BIT(d)) && depth;
		if (depth + enter->levels[d] < depth)
			return -EOVERFLOW;
		if (depth > own && !(levels->unadmitted & BIT(d)))
			levels->inside |= BIT(d);
		levels->depth[d] = depth;
		levels->own[d] = own;
	}
	return 0;
}

/*
 * K3: take what does not count out of the slot, to be added upon admission; of
 * an entry that does not wait only its own.
 */
static void fg_levels_take(struct fg_gate *gate, struct fg_slot *slot,
			   const struct forkgate_enter *enter,
			   const struct fg_levels *levels, u32 *taken)
{
	struct forkgate_slot *shared = fg_shared_slot(gate, slot->nr);
	int d;

	for (d = 0; d < FG_NR_DOMAINS; d++) {
		taken[d] = levels->own[d];
		if ((levels->unadmitted & BIT(d)) &&
		    !(enter->flags & FORKGATE_NONBLOCK))
			taken[d] = levels->depth[d];
		WRITE_ONCE(shared->depth[d], levels->depth[d] - taken[d]);
	}
	fg_slot_left(gate, slot);
}

/* K3: into the list of those who wait */
static void fg_entry_block(struct fg_gate *gate, struct fg_entry *entry,
			   const struct forkgate_enter *enter, const u32 *taken)
{
	int d;

	for (d = 0; d < FG_NR_DOMAINS; d++)
		entry->levels[d] = enter->levels[d] + taken[d];
	entry->want |= fg_levels_domains(entry->levels);
	entry->state = FG_ENTRY_BLOCKED;
	entry->batch = gate->batch[entry->rank][entry->want];
	list_add_tail(&entry->node, &gate->blocked[entry->rank][entry->want]);
	gate->nr_blocked++;
	trace_enter_wait(entry->thr, entry->want, entry->rank == FG_NESTED);
	fg_timer_arm(gate);
}

/*
 * K1 to K3; gate->lock is held. Return: 0 admitted, 1 @entry is blocked and
 * @taken is out of the slot, or an error.
 */
static int fg_enter_decide(struct fg_gate *gate, struct fg_entry *entry,
			   const struct forkgate_enter *enter, u32 *taken)
{
	struct fg_thread *thr = entry->thr;
	struct fg_levels levels;
	bool newcomer;
	int ret;

	ret = fg_check_slot(gate, thr);
	if (!ret)
		ret = fg_levels_read(gate, thr->slot, enter, &levels);
	if (ret)
		return ret;

	entry->want = enter->domains | fg_levels_domains(enter->levels);
	newcomer = !levels.inside && thr->fork.state == FG_FORK_NONE;
	entry->rank = newcomer ? FG_NEWCOMER : FG_NESTED;
	if (fg_may_enter(gate, thr, entry->want, newcomer)) {
		fg_admit(gate, thr, entry->want, enter->levels);
		if (fg_phase_unready(gate))	/* strict since now */
			fg_phase_run(gate);
		return 0;
	}
	fg_levels_take(gate, thr->slot, enter, &levels, taken);
	fg_phase_run(gate);
	if (enter->flags & FORKGATE_NONBLOCK)
		return -EBUSY;
	fg_entry_block(gate, entry, enter, taken);
	return 1;
}

/**
 * fg_enter - ENTER: the kernel decides about an entry
 * @gate: the caller's gate, referenced
 * @enter: checked arguments
 * @uenter: where they came from; told what was taken out of the slot when a
 *	signal interrupts, so that the restarted call goes on from there
 *
 * Context: the entering thread; may sleep, a signal restarts it.
 * Return: 0, -ESRCH (not registered), -EOVERFLOW, -EBUSY (non-blocking),
 * -EFAULT, -ENXIO (the mapping went away), -ERESTARTNOINTR.
 */
int fg_enter(struct fg_gate *gate, struct forkgate_enter *enter,
	     struct forkgate_enter __user *uenter)
{
	struct fg_entry entry = { .since = ktime_get_ns() };
	u32 taken[FG_NR_DOMAINS];
	unsigned long irq;
	int ret;

	entry.thr = fg_thread_find(current);
	if (!entry.thr)
		return -ESRCH;

	fg_step(FG_STEP_ENTER);
	raw_spin_lock_irqsave(&gate->lock, irq);
	ret = fg_enter_decide(gate, &entry, enter, taken);
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	fg_settle(gate);
	if (ret <= 0)
		goto out;

	ret = fg_enter_wait(gate, &entry);
	trace_enter_go(entry.thr, entry.want, ret,
		       ktime_get_ns() - entry.since);
	fg_account(FG_TIME_ENTRY, ktime_get_ns() - entry.since);
	fg_step(FG_STEP_ADMITTED);
	if (ret == -ERESTARTNOINTR)
		ret = fg_enter_interrupted(gate, &entry, enter, taken, uenter);
out:
	fg_thread_put(entry.thr);
	return ret;
}

/**
 * fg_leave - LEAVE: a thread may wait for what was left (K5)
 * @gate: the caller's gate, referenced
 * @leave: checked arguments
 *
 * Context: the leaving thread.
 * Return: 0, -ESRCH (not registered), -EPERM (not inside), -ENXIO.
 */
int fg_leave(struct fg_gate *gate, const struct forkgate_leave *leave)
{
	struct forkgate_slot *shared;
	struct fg_thread *thr;
	unsigned long irq;
	int d, ret;

	thr = fg_thread_find(current);
	if (!thr)
		return -ESRCH;

	fg_step(FG_STEP_LEAVE);
	raw_spin_lock_irqsave(&gate->lock, irq);
	ret = fg_check_slot(gate, thr);
	if (ret)
		goto out;

	shared = fg_shared_slot(gate, thr->slot->nr);
	if (!(leave->flags & FORKGATE_COUNTED)) {
		ret = -EPERM;
		if (leave->domains & ~fg_depth_domains(shared))
			goto out;
		for (d = 0; d < FG_NR_DOMAINS; d++)
			if (leave->domains & BIT(d))	/* as L1 */
				smp_store_release(&shared->depth[d],
						  READ_ONCE(shared->depth[d]) - 1);
	}
	fg_slot_left(gate, thr->slot);
	fg_phase_run(gate);
	ret = 0;
out:
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	fg_settle(gate);
	fg_thread_put(thr);
	return ret;
}
