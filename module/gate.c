// SPDX-License-Identifier: GPL-2.0-only
/*
 * gate.c - the protocol: who may be inside a section, who may copy, who waits
 *
 * Must not know how a clone is caught, where memory comes from, or what an
 * ioctl is. The models in tools/model use the same labels.
 *
 * Invariant. While a forker copies domain d, or holds a granted ticket for d,
 * no other thread is inside d. A level that a thread has stored but that
 * nobody admitted ("unadmitted": its thread is between E1 and E3 and will be
 * sent to wait) does not count.
 *
 * Fast paths, in user space (tools/lib/forkgate.h):
 *
 *   enter  E1  depth[d] += 1			leave  L1  depth[d] -= 1 (release)
 *	    E2  compiler barrier			L2  compiler barrier
 *	    E3  if (closed & D)				L3  if (depth[d] == 0 &&
 *		    ENTER: K1..K4				closed & d)
 *							    LEAVE: K5
 *
 * In the kernel, all under gate->lock unless marked *:
 *
 *   K1  Which of the caller's levels count? Those of domains that some forker's
 *	 cursor has passed are unadmitted, the others count.
 *   K2  Admit a thread that is inside something, or a forker itself, unless
 *	 somebody copies, or holds a granted ticket for, what it enters. Admit
 *	 a newcomer if besides no drain needs what it enters. Cursors that have
 *	 passed its slot go back to it. Somebody admitted past a drain makes
 *	 the gate strict: newcomers of either domain are kept out.
 *   K3  Otherwise give back the levels of this entry and the unadmitted ones
 *	 (that is a leave: K5) and sleep*.
 *   K4  A signal takes the sleeper out of the list, unless it was released.
 *   K5  Wake the forkers whose cursor stands at the slot that was left.
 *   K6  Release: count sleepers in, in batches, then wake them.
 *   K7  Yield: release the newcomers blocked so far, let the queue join the
 *	 phase, double the patience.
 *
 *   F1* allocate what the child needs				(fork.c)
 *   F2  join or start a phase: closed |= need; K5 for the own slot, because
 *	 this may be a signal handler between L1 and L3
 *   F3* fence: no running thread has missed `closed` without its depth being
 *	 visible						(fence.c)
 *   F4  scan from the cursor; at the end of the slots, granted
 *   F5  otherwise announce the sleep, then sleep*		(fork.c)
 *   F6  leave the phase; the last one out opens: blocked threads become
 *	 released ones, closed = 0, K6
 *   F7  when all released are counted in, the queue becomes the next phase
 *
 * Why no section is missed. (A) E1 before E3 in program order, (B) F2 before
 * F3 before F4. The fence makes each thread that runs either execute E3 after
 * F2 (it sees `closed` and asks K1) or have E1 visible to F4. A thread that
 * does not run passes a full barrier before it runs in user mode again, and
 * has passed one since it last did. (fence.c says where these are.)
 *
 * Why no wake-up is lost. The same with L1 for E1: after the fence a leaver
 * either is seen idle by F4 or sees `closed` at L3 and comes to K5. F4 and F5's
 * announcement are one critical section, K5 another: K5 finds the cursor at
 * its slot and the sleep announced, or F4 finds the slot idle.
 *
 * Why a slot found idle stays idle. Its thread's next entry sees `closed`
 * (A, B) and gets past K2 only by taking the cursor back to the slot.
 *
 * Why newcomers do not starve. K6 counts them in before anything is granted
 * and before the next phase closes (gate->released is empty in both cases).
 */

#include <linux/sched/signal.h>
#include <linux/uaccess.h>

#include "compat.h"
#include "gate.h"
#include "trace.h"

struct forkgate_slot *fg_slot(struct fg_gate *gate, int slot)
{
	return &gate->pages[slot / FG_SLOTS_PER_PAGE]
			->slots[slot % FG_SLOTS_PER_PAGE];
}

/*
 * The domains that a slot's depths are inside of. Pairs with the store-release
 * of L1: who sees a slot idle sees all that its section wrote.
 */
u32 fg_slot_inside(const struct forkgate_slot *slot)
{
	u32 memory = smp_load_acquire(&slot->depth[0]);	/* L1, see above */
	u32 files = smp_load_acquire(&slot->depth[1]);	/* likewise */

	return (memory ? FORKGATE_MEMORY : 0) | (files ? FORKGATE_FILES : 0);
}

/* The owner of the first owned slot from *slot on, and which that is. */
struct fg_thread *fg_slot_owner(struct fg_gate *gate, u32 *slot)
{
	lockdep_assert_held(&gate->lock);

	while (*slot < gate->top) {
		struct fg_slot_page *page = gate->pages[*slot / FG_SLOTS_PER_PAGE];
		u32 bit = *slot % FG_SLOTS_PER_PAGE;
		u64 used = page ? page->used >> bit : 0;

		if (used) {
			bit += __ffs64(used);
			*slot = round_down(*slot, FG_SLOTS_PER_PAGE) + bit;
			return page->owner[bit];
		}
		*slot = round_down(*slot, FG_SLOTS_PER_PAGE) + FG_SLOTS_PER_PAGE;
	}
	return NULL;
}

/* K1: domains in which what @thr's slot says is unadmitted */
static u32 fg_passed(struct fg_gate *gate, struct fg_thread *thr)
{
	struct fg_thread *f;
	u32 passed = 0;

	list_for_each_entry(f, &gate->phase, fork.node)
		if (f->slot != thr->slot && (int)f->fork.cursor > thr->slot)
			passed |= f->fork.need;
	return passed;
}

/* Domains that nobody but @thr may enter now, whatever he is inside of. */
static u32 fg_barred(struct fg_gate *gate, const struct fg_thread *thr)
{
	struct fg_thread *f;
	u32 barred = 0;

	list_for_each_entry(f, &gate->phase, fork.node)
		if (f != thr && f->fork.state != FG_FORK_DRAINING)
			barred |= f->fork.need;
	return barred;
}

/* Domains that others than @thr wait to see idle. */
static u32 fg_drained(struct fg_gate *gate, const struct fg_thread *thr)
{
	struct fg_thread *f;
	u32 drained = 0;

	list_for_each_entry(f, &gate->phase, fork.node)
		if (f != thr && f->fork.state == FG_FORK_DRAINING)
			drained |= f->fork.need;
	return drained;
}

/*
 * The domains that @thr is inside of. An unadmitted level counts: a forker that
 * has not passed it waits for it.
 */
static u32 fg_thread_inside(struct fg_gate *gate, struct fg_thread *thr)
{
	if (thr->slot == FG_NO_SLOT)
		return 0;
	return fg_slot_inside(fg_slot(gate, thr->slot));
}

static void fg_forker_wake(struct fg_gate *gate, struct fg_thread *thr)
{
	if (thr->fork.sleeping) {
		WRITE_ONCE(thr->fork.kick, true);
		wake_up_process(thr->task);
	} else if (thr->fork.nonblock) {
		fg_gate_advance(gate);
	}
}

/**
 * fg_slot_left - K5: levels went out of a slot
 * @gate: its gate; gate->lock is held
 * @slot: its number
 */
void fg_slot_left(struct fg_gate *gate, int slot)
{
	struct fg_thread *f;
	u32 inside;

	lockdep_assert_held(&gate->lock);

	inside = fg_slot_inside(fg_slot(gate, slot));
	list_for_each_entry(f, &gate->phase, fork.node)
		if (f->fork.state == FG_FORK_DRAINING &&
		    f->fork.cursor == slot && f->slot != slot &&
		    !(inside & f->fork.need))
			fg_forker_wake(gate, f);
}

/* Entering threads */

static u32 fg_levels_domains(const u32 *levels)
{
	return (levels[0] ? FORKGATE_MEMORY : 0) |
	       (levels[1] ? FORKGATE_FILES : 0);
}

static void fg_close(struct fg_gate *gate, u32 domains)
{
	gate->closed |= domains;
	WRITE_ONCE(gate->header->closed, gate->closed);
}

/*
 * Newcomers of either domain are kept out until the phase ends. Threads that
 * go in and out of the one domain while they are inside the other, which only
 * newcomers are kept from, could otherwise prolong a phase without end.
 */
static void fg_be_strict(struct fg_gate *gate)
{
	if (list_empty(&gate->phase))
		return;
	gate->strict = true;
	fg_close(gate, FORKGATE_DOMAINS);
}

/* K2: may @thr enter @want? */
static bool fg_may_enter(struct fg_gate *gate, struct fg_thread *thr, u32 want,
			 bool newcomer)
{
	u32 drained = fg_drained(gate, thr);

	if (want & fg_barred(gate, thr))
		return false;
	if (newcomer)
		return !gate->patience || !(want & drained || gate->strict);
	if (want & drained)
		fg_be_strict(gate);
	return true;
}

/* A forker entered a section: others may be in a circle with it now. */
static void fg_phase_wake(struct fg_gate *gate)
{
	struct fg_thread *f;

	list_for_each_entry(f, &gate->phase, fork.node)
		fg_forker_wake(gate, f);
}

/* Count @thr into @domains, adding @levels to what its slot says. */
static void fg_admit(struct fg_gate *gate, struct fg_thread *thr, u32 domains,
		     const u32 *levels)
{
	struct forkgate_slot *slot = fg_slot(gate, thr->slot);
	struct fg_thread *f;
	int i;

	for (i = 0; i < FG_NR_DOMAINS; i++)
		if (levels[i])
			WRITE_ONCE(slot->depth[i],
				   READ_ONCE(slot->depth[i]) + levels[i]);

	list_for_each_entry(f, &gate->phase, fork.node)
		if (f->fork.state == FG_FORK_DRAINING && f->slot != thr->slot &&
		    (f->fork.need & domains) &&
		    (int)f->fork.cursor > thr->slot)
			f->fork.cursor = thr->slot;
	if (thr->fork.state != FG_FORK_NONE)
		fg_phase_wake(gate);
}

/* K6: a sleeper is counted in by whoever releases it */
static void fg_entry_admit(struct fg_gate *gate, struct fg_thread *thr)
{
	struct fg_entry *entry = &thr->entry;

	fg_admit(gate, thr, fg_levels_domains(entry->levels), entry->levels);
	list_del_init(&entry->node);
	gate->nr_blocked--;
	entry->state = FG_ENTRY_ADMITTED;
}

static bool fg_entry_released(struct fg_gate *gate, struct fg_entry *entry)
{
	return entry->let_go || entry->batch != gate->batch[entry->nested];
}

static void fg_release_blocked(struct fg_gate *gate, bool nested)
{
	list_splice_tail_init(&gate->blocked[nested], &gate->released);
	gate->batch[nested]++;
}

/* F7 */
static void fg_phase_add(struct fg_gate *gate, struct fg_thread *thr);

static void fg_phase_add_queue(struct fg_gate *gate)
{
	struct fg_thread *f, *tmp;

	list_for_each_entry_safe(f, tmp, &gate->queue, fork.node) {
		list_del(&f->fork.node);
		fg_phase_add(gate, f);
		fg_forker_wake(gate, f);
	}
}

static void fg_phase_next(struct fg_gate *gate)
{
	if (list_empty(&gate->phase) && list_empty(&gate->released))
		fg_phase_add_queue(gate);
}

/* Those whose scan is complete may go now, or as soon as it is their turn. */
static void fg_phase_turn(struct fg_gate *gate)
{
	struct fg_thread *f;

	list_for_each_entry(f, &gate->phase, fork.node)
		if (f->fork.turn)
			fg_forker_wake(gate, f);
}

/**
 * fg_release - K6: count a batch of released threads in
 * @gate: a referenced gate
 *
 * Every thread released helps with the next batch before it returns to user
 * mode, so that contexts that may not sleep need to call this but once.
 *
 * Context: any but hard interrupt context; takes gate->lock.
 * Return: whether there are more.
 */
bool fg_release(struct fg_gate *gate)
{
	struct fg_thread *thr;
	unsigned long irq;
	bool more;
	int n;

	raw_spin_lock_irqsave(&gate->lock, irq);
	for (n = 0; n < FG_RELEASE_BATCH; n++) {
		thr = list_first_entry_or_null(&gate->released,
					       struct fg_thread, entry.node);
		if (!thr)
			break;
		fg_entry_admit(gate, thr);
		wake_up_process(thr->task);
	}
	more = !list_empty(&gate->released);
	if (!more) {
		fg_phase_next(gate);
		fg_phase_turn(gate);
	}
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	return more;
}

/**
 * fg_release_all - K6, until none is left
 * @gate: a referenced gate
 *
 * Context: may sleep.
 */
void fg_release_all(struct fg_gate *gate)
{
	might_sleep();
	while (fg_release(gate)) {
		fg_step(FG_STEP_RELEASE);
		cond_resched();
	}
}

static int fg_enter_wait(struct fg_gate *gate, struct fg_thread *thr)
{
	struct fg_entry *entry = &thr->entry;
	unsigned long irq;
	int ret = 0;

	fg_step(FG_STEP_BLOCKED);
	for (;;) {
		/* Pairs with wake_up_process() in fg_release() */
		set_current_state(TASK_INTERRUPTIBLE);
		raw_spin_lock_irqsave(&gate->lock, irq);
		if (entry->state == FG_ENTRY_BLOCKED && signal_pending(current)) {
			/* K4 */
			if (fg_entry_released(gate, entry)) {
				fg_entry_admit(gate, thr);
			} else {
				list_del_init(&entry->node);
				gate->nr_blocked--;
				entry->state = FG_ENTRY_NONE;
				ret = -ERESTARTNOINTR;
			}
		}
		if (entry->state == FG_ENTRY_VOID)
			ret = -ENXIO;
		if (entry->state != FG_ENTRY_BLOCKED) {
			entry->state = FG_ENTRY_NONE;
			raw_spin_unlock_irqrestore(&gate->lock, irq);
			break;
		}
		raw_spin_unlock_irqrestore(&gate->lock, irq);
		schedule();
	}
	__set_current_state(TASK_RUNNING);
	fg_release_all(gate);
	return ret;
}

/**
 * fg_enter - ENTER: the kernel decides about an entry
 * @gate: the caller's gate, referenced
 * @enter: checked arguments
 * @uenter: where they came from; told what was taken out of the slot, so that
 *	a call restarted after a signal goes on from there
 *
 * Context: the entering thread; may sleep, a signal restarts it.
 * Return: 0, -ESRCH (not registered), -EOVERFLOW, -EBUSY (non-blocking),
 * -EFAULT, -ENXIO (the mapping went away), -ERESTARTNOINTR.
 */
int fg_enter(struct fg_gate *gate, struct forkgate_enter *enter,
	     struct forkgate_enter __user *uenter)
{
	u32 own[FG_NR_DOMAINS], depth[FG_NR_DOMAINS], taken[FG_NR_DOMAINS] = {};
	u32 passed, inside = 0, want;
	struct forkgate_slot *slot;
	struct fg_thread *thr;
	unsigned long irq;
	bool newcomer;
	u64 since;
	int i, ret;

	thr = fg_thread_find(current);
	if (!thr)
		return -ESRCH;

	fg_step(FG_STEP_ENTER);
	since = ktime_get_ns();
	raw_spin_lock_irqsave(&gate->lock, irq);
	ret = -ENXIO;
	if (gate->dead)
		goto out_unlock;
	ret = -ESRCH;
	if (thr->gate != gate || !thr->linked || thr->slot == FG_NO_SLOT)
		goto out_unlock;

	/* K1 */
	slot = fg_slot(gate, thr->slot);
	passed = fg_passed(gate, thr);
	ret = -EOVERFLOW;
	for (i = 0; i < FG_NR_DOMAINS; i++) {
		depth[i] = READ_ONCE(slot->depth[i]);
		own[i] = (enter->flags & FORKGATE_COUNTED) &&
			 (enter->domains & BIT(i)) && depth[i];
		if (depth[i] + enter->levels[i] < depth[i])
			goto out_unlock;
		if (depth[i] > own[i] && !(passed & BIT(i)))
			inside |= BIT(i);
	}

	/* K2 */
	want = enter->domains | fg_levels_domains(enter->levels);
	newcomer = !inside && thr->fork.state == FG_FORK_NONE;
	if (fg_may_enter(gate, thr, want, newcomer)) {
		fg_admit(gate, thr, want, enter->levels);
		ret = 0;
		goto out_unlock;
	}

	/* K3 */
	for (i = 0; i < FG_NR_DOMAINS; i++) {
		taken[i] = own[i];
		if ((passed & BIT(i)) && !(enter->flags & FORKGATE_NONBLOCK))
			taken[i] = depth[i];
		WRITE_ONCE(slot->depth[i], depth[i] - taken[i]);
	}
	fg_slot_left(gate, thr->slot);
	ret = -EBUSY;
	if (enter->flags & FORKGATE_NONBLOCK)
		goto out_unlock;

	for (i = 0; i < FG_NR_DOMAINS; i++)
		thr->entry.levels[i] = enter->levels[i] += taken[i];
	enter->flags &= ~FORKGATE_COUNTED;
	thr->entry.since = since;
	thr->entry.state = FG_ENTRY_BLOCKED;
	thr->entry.nested = !newcomer;
	thr->entry.let_go = false;
	thr->entry.batch = gate->batch[thr->entry.nested];
	list_add_tail(&thr->entry.node, &gate->blocked[thr->entry.nested]);
	gate->nr_blocked++;
	trace_enter_wait(thr, want);
	fg_gate_arm(gate);
	raw_spin_unlock_irqrestore(&gate->lock, irq);

	if (copy_to_user(uenter, enter, sizeof(*enter))) {
		raw_spin_lock_irqsave(&gate->lock, irq);
		ret = 0;
		if (thr->entry.state == FG_ENTRY_BLOCKED) {
			/* As if it had never asked: unadmitted again */
			list_del_init(&thr->entry.node);
			gate->nr_blocked--;
			for (i = 0; i < FG_NR_DOMAINS; i++)
				WRITE_ONCE(slot->depth[i],
					   READ_ONCE(slot->depth[i]) + taken[i]);
			ret = -EFAULT;
		}
		thr->entry.state = FG_ENTRY_NONE;
		raw_spin_unlock_irqrestore(&gate->lock, irq);
		fg_release_all(gate);
		fg_thread_put(thr);
		return ret;
	}

	ret = fg_enter_wait(gate, thr);
	since = ktime_get_ns() - since;
	trace_enter_go(thr, want, ret, since);
	fg_took(FG_TIME_ENTRY, since);
	fg_step(FG_STEP_ADMITTED);
	fg_thread_put(thr);
	return ret;

out_unlock:
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	fg_thread_put(thr);
	return ret;
}

/**
 * fg_leave - LEAVE: somebody may wait for what was left
 * @gate: the caller's gate, referenced
 * @leave: checked arguments
 *
 * Context: the leaving thread.
 * Return: 0, -ESRCH (not registered), -EPERM (not inside), -ENXIO.
 */
int fg_leave(struct fg_gate *gate, const struct forkgate_leave *leave)
{
	struct forkgate_slot *slot;
	struct fg_thread *thr;
	unsigned long irq;
	int i, ret;

	thr = fg_thread_find(current);
	if (!thr)
		return -ESRCH;

	fg_step(FG_STEP_LEAVE);
	raw_spin_lock_irqsave(&gate->lock, irq);
	ret = -ENXIO;
	if (gate->dead)
		goto out;
	ret = -ESRCH;
	if (thr->gate != gate || !thr->linked || thr->slot == FG_NO_SLOT)
		goto out;

	slot = fg_slot(gate, thr->slot);
	if (!(leave->flags & FORKGATE_COUNTED)) {
		ret = -EPERM;
		if (leave->domains & ~fg_slot_inside(slot))
			goto out;
		for (i = 0; i < FG_NR_DOMAINS; i++)
			if (leave->domains & BIT(i))	/* as L1 */
				smp_store_release(&slot->depth[i],
						  READ_ONCE(slot->depth[i]) - 1);
	}
	fg_slot_left(gate, thr->slot);
	ret = 0;
out:
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	fg_thread_put(thr);
	return ret;
}

/* Phases */

/* F2: into the current phase, which begins with its first member */
static void fg_phase_add(struct fg_gate *gate, struct fg_thread *thr)
{
	struct fg_fork *fork = &thr->fork;

	if (list_empty(&gate->phase)) {
		gate->granted = false;
		gate->strict = false;
		gate->patience = fork->patience;
		gate->closed_at = ktime_get_ns();
		gate->yield_at = fg_saturated_add(gate->closed_at,
						  fork->patience);
		fg_count(gate, FG_EVENT_PHASE);
	} else if (gate->patience < fork->patience) {
		gate->yield_at = fg_saturated_add(gate->yield_at,
						  fork->patience -
						  gate->patience);
		gate->patience = fork->patience;
	}
	fork->state = FG_FORK_DRAINING;
	fork->cursor = 0;
	fork->turn = false;
	list_add_tail(&fork->node, &gate->phase);
	fg_close(gate, fork->need);
	trace_close(thr, fork->need);
}

/**
 * fg_phase_join - F2: a forker arrives
 * @gate: its gate; gate->lock is held
 * @thr: the forker; fork.need and fork.patience are set
 *
 * It joins the phase until somebody was granted in it. One that is inside a
 * section joins in any case, because the phase may be waiting for that section;
 * and without patience all do, because then no newcomer is kept out whom the
 * queue would protect.
 */
void fg_phase_join(struct fg_gate *gate, struct fg_thread *thr)
{
	lockdep_assert_held(&gate->lock);

	if (thr->slot != FG_NO_SLOT)
		fg_slot_left(gate, thr->slot);
	if (list_empty(&gate->phase) ?
	    list_empty(&gate->queue) && list_empty(&gate->released) :
	    (!gate->granted && list_empty(&gate->queue)) ||
	    fg_thread_inside(gate, thr) || !gate->patience) {
		fg_phase_add(gate, thr);
	} else {
		thr->fork.state = FG_FORK_QUEUED;
		thr->fork.turn = false;
		list_add_tail(&thr->fork.node, &gate->queue);
		fg_be_strict(gate);
	}
}

/**
 * fg_phase_widen - a forker goes on as one that drains
 * @gate: its gate; gate->lock is held
 * @thr: a forker in any state but FG_FORK_NONE
 * @need: what it needs besides
 *
 * What it was granted, it has to be granted again. A queued one joins the
 * phase if it is inside a section by now.
 */
void fg_phase_widen(struct fg_gate *gate, struct fg_thread *thr, u32 need)
{
	struct fg_fork *fork = &thr->fork;

	lockdep_assert_held(&gate->lock);

	if (thr->slot != FG_NO_SLOT)
		fg_slot_left(gate, thr->slot);
	fork->need |= need;
	fork->turn = false;
	if (fork->state == FG_FORK_QUEUED) {
		if (!list_empty(&gate->phase) && fg_thread_inside(gate, thr)) {
			list_del(&fork->node);
			fg_phase_add(gate, thr);
		}
		return;
	}
	if (fork->state != FG_FORK_DRAINING)
		fork->barred = true;
	fork->state = FG_FORK_DRAINING;
	fork->cursor = 0;
	fg_close(gate, fork->need);
}

/**
 * fg_phase_unbar - a copy or a ticket ended while others still drain
 * @gate: its gate; gate->lock is held
 *
 * The caller calls fg_release() once it has dropped the lock.
 */
void fg_phase_unbar(struct fg_gate *gate)
{
	struct fg_thread *thr, *tmp;

	lockdep_assert_held(&gate->lock);

	list_for_each_entry_safe(thr, tmp, &gate->blocked[1], entry.node) {
		if (fg_levels_domains(thr->entry.levels) & fg_barred(gate, thr))
			continue;
		thr->entry.let_go = true;
		list_move_tail(&thr->entry.node, &gate->released);
	}
	if (!gate->patience && !fg_barred(gate, NULL))
		fg_release_blocked(gate, false);
	fg_phase_turn(gate);
	fg_gate_arm(gate);
}

/* F6: the last one out */
static void fg_open(struct fg_gate *gate)
{
	u64 closed = ktime_get_ns() - gate->closed_at;

	trace_open(gate, closed);
	fg_took(FG_TIME_PHASE, closed);
	fg_release_blocked(gate, true);
	fg_release_blocked(gate, false);
	gate->strict = false;
	gate->fenced = 0;
	gate->closed = 0;
	WRITE_ONCE(gate->header->closed, 0);
	fg_phase_next(gate);
}

/**
 * fg_phase_leave - F6: a forker is done, whichever way
 * @gate: its gate; gate->lock is held
 * @thr: a forker in any state
 *
 * The caller calls fg_release() once it has dropped the lock.
 */
void fg_phase_leave(struct fg_gate *gate, struct fg_thread *thr)
{
	enum fg_fork_state state = thr->fork.state;

	lockdep_assert_held(&gate->lock);

	if (state == FG_FORK_NONE)
		return;
	list_del_init(&thr->fork.node);
	thr->fork.state = FG_FORK_NONE;
	thr->fork.deadline = 0;
	thr->fork.nonblock = false;
	if (state == FG_FORK_QUEUED)
		return;
	if (list_empty(&gate->phase))
		fg_open(gate);
	else if (state != FG_FORK_DRAINING || thr->fork.barred)
		fg_phase_unbar(gate);
	thr->fork.barred = false;
}

/* F4, a batch of it */
static int fg_scan(struct fg_gate *gate, struct fg_thread *thr)
{
	struct fg_fork *fork = &thr->fork;
	int n;

	for (n = 0; n < FG_SCAN_BATCH; n++, fork->cursor++) {
		if (!fg_slot_owner(gate, &fork->cursor))
			return FG_GRANTED;
		if (fork->cursor != thr->slot &&
		    (fg_slot_inside(fg_slot(gate, fork->cursor)) & fork->need))
			return FG_WAIT;
	}
	return FG_MORE;
}

/* Nothing is granted beside a ticket, and no ticket beside anything. */
static bool fg_phase_my_turn(struct fg_gate *gate, struct fg_thread *thr)
{
	struct fg_thread *f;

	if (!list_empty(&gate->released))
		return false;
	list_for_each_entry(f, &gate->phase, fork.node)
		if (f != thr && (f->fork.state == FG_FORK_TICKET ||
				 (f->fork.state == FG_FORK_COPYING &&
				  thr->fork.ticket)))
			return false;
	return true;
}

/**
 * fg_phase_try - F4: grant a forker what it waits for, if that is possible
 * @gate: its gate; gate->lock is held
 * @thr: the forker
 *
 * Whoever copies was granted here, under the lock: this is the check that no
 * ticket replaces. A ticket is granted alone, because its holder may enter
 * sections.
 *
 * Return: FG_GRANTED, or what to do before calling again.
 */
int fg_phase_try(struct fg_gate *gate, struct fg_thread *thr)
{
	struct fg_fork *fork = &thr->fork;
	int ret;

	lockdep_assert_held(&gate->lock);

	fork->turn = false;
	if (fork->state == FG_FORK_QUEUED)
		return FG_WAIT;
	if (fork->need & ~gate->fenced)
		return FG_FENCE;
	ret = fg_scan(gate, thr);
	if (!ret && !fg_phase_my_turn(gate, thr)) {
		fork->turn = true;
		ret = FG_WAIT;
	}
	if (ret == FG_WAIT && fork->barred) {
		fork->barred = false;
		fg_phase_unbar(gate);
	}
	if (ret)
		return ret;

	fork->barred = false;
	fork->cursor = INT_MAX;
	fork->state = fork->ticket ? FG_FORK_TICKET : FG_FORK_COPYING;
	gate->granted = true;
	if (fork->ticket) {
		fork->deadline = fg_saturated_add(ktime_get_ns(),
						  gate->policy.ticket_hold);
		fg_gate_arm(gate);
	}
	trace_grant(thr, fork->need, ktime_get_ns() - fork->since);
	return FG_GRANTED;
}

static bool fg_forker_waits(const struct fg_thread *thr)
{
	return thr->fork.sleeping ||
	       (thr->fork.nonblock && thr->fork.state != FG_FORK_TICKET);
}

/**
 * fg_phase_circular - would this wait close a circle?
 * @gate: its gate; gate->lock is held
 * @thr: a forker about to sleep
 *
 * Forker i waits for forker j when need(i) meets inside(j). There is a circle
 * through @thr exactly if somebody that it waits for, directly or not, needs
 * what @thr is inside of. With two domains the search is a fixed point over
 * masks. Forkers that do not sleep look for themselves before they do; those
 * in user mode with a kept place can still leave what they are inside of.
 *
 * Return: whether it would.
 */
bool fg_phase_circular(struct fg_gate *gate, struct fg_thread *thr)
{
	u32 inside, reached, needed = 0, before;
	struct list_head *lists[] = { &gate->phase, &gate->queue };
	struct fg_thread *f;
	int i;

	lockdep_assert_held(&gate->lock);

	inside = fg_thread_inside(gate, thr);
	if (!inside)
		return false;
	reached = thr->fork.need;
	do {
		before = reached;
		for (i = 0; i < ARRAY_SIZE(lists); i++) {
			list_for_each_entry(f, lists[i], fork.node) {
				if (f == thr || !fg_forker_waits(f) ||
				    !(fg_thread_inside(gate, f) & reached))
					continue;
				reached |= f->fork.need;
				needed |= f->fork.need;
			}
		}
	} while (reached != before);
	return needed & inside;
}

/* Time */

/* Is there somebody to let through, and a drain that could do so? */
static bool fg_may_yield(struct fg_gate *gate)
{
	return gate->patience && fg_drained(gate, NULL) &&
	       !fg_barred(gate, NULL) &&
	       !(list_empty(&gate->blocked[0]) && list_empty(&gate->queue));
}

/**
 * fg_gate_arm - have the timer run when something ends or a drain must yield
 * @gate: the gate; gate->lock is held
 */
void fg_gate_arm(struct fg_gate *gate)
{
	struct list_head *lists[] = { &gate->phase, &gate->queue };
	u64 now = ktime_get_ns(), next = FORKGATE_FOREVER;
	struct fg_thread *f;
	int i;

	lockdep_assert_held(&gate->lock);

	if (gate->dead)
		return;
	if (fg_may_yield(gate))
		next = gate->yield_at;
	for (i = 0; i < ARRAY_SIZE(lists); i++)
		list_for_each_entry(f, lists[i], fork.node)
			if (f->fork.deadline && f->fork.deadline < next)
				next = f->fork.deadline;
	if (next == FORKGATE_FOREVER)
		return;
	timer_reduce(&gate->timer, jiffies + 1 +
		     (next > now ? nsecs_to_jiffies(next - now) : 0));
}

/* K7 */
static void fg_yield(struct fg_gate *gate, u64 now)
{
	struct fg_thread *f;

	fg_release_blocked(gate, false);
	fg_count(gate, FG_EVENT_YIELD);
	gate->patience = fg_saturated_add(gate->patience, gate->patience);
	gate->yield_at = fg_saturated_add(now, gate->patience);
	list_for_each_entry(f, &gate->phase, fork.node)
		f->fork.patience = gate->patience;
	fg_phase_add_queue(gate);
	trace_yield(gate, gate->patience);
}

/* A place or a ticket ran out while its holder was in user mode. */
static void fg_expire(struct fg_gate *gate, struct fg_thread *thr)
{
	struct fg_fork *fork = &thr->fork;

	fg_count(gate, FG_EVENT_EXPIRE);
	trace_expire(thr, fork->need);
	if (fork->state == FG_FORK_TICKET)
		fork->expired = true;
	fg_gate_advance(gate);	/* for poll */
	fg_phase_leave(gate, thr);
}

static struct fg_thread *fg_overdue(struct fg_gate *gate, u64 now)
{
	struct list_head *lists[] = { &gate->phase, &gate->queue };
	struct fg_thread *f;
	int i;

	for (i = 0; i < ARRAY_SIZE(lists); i++)
		list_for_each_entry(f, lists[i], fork.node)
			if (f->fork.deadline && f->fork.deadline <= now)
				return f;
	return NULL;
}

/**
 * fg_gate_timer - yields, and ends what is overdue
 * @timer: gate->timer
 *
 * Context: timer softirq.
 */
void fg_gate_timer(struct timer_list *timer)
{
	struct fg_gate *gate = timer_container_of(gate, timer, timer);
	u64 now = ktime_get_ns();
	struct fg_thread *f;
	unsigned long irq;

	raw_spin_lock_irqsave(&gate->lock, irq);
	while ((f = fg_overdue(gate, now)))
		fg_expire(gate, f);
	if (!gate->dead && fg_may_yield(gate) && now >= gate->yield_at)
		fg_yield(gate, now);
	fg_gate_arm(gate);
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	fg_release(gate);
}

/**
 * fg_gate_advance - have tickets brought on for which nobody sleeps
 * @gate: the gate; gate->lock is held
 */
void fg_gate_advance(struct fg_gate *gate)
{
	lockdep_assert_held(&gate->lock);

	if (queue_work(fg_wq, &gate->advance))
		refcount_inc(&gate->ref);
}

/**
 * fg_gate_end - the last mapping is gone: nobody waits at this gate any more
 * @gate: a referenced gate, already dead for those who look it up
 *
 * Context: under mmap_lock; does not sleep for long.
 */
void fg_gate_end(struct fg_gate *gate)
{
	struct fg_thread *thr, *tmp;
	unsigned long irq;
	bool more;
	int n;

	raw_spin_lock_irqsave(&gate->lock, irq);
	gate->dead = true;
	fg_release_blocked(gate, true);
	fg_release_blocked(gate, false);
	list_splice_tail_init(&gate->queue, &gate->phase);
	list_for_each_entry_safe(thr, tmp, &gate->phase, fork.node) {
		list_del_init(&thr->fork.node);
		thr->fork.state = FG_FORK_NONE;
		if (thr->fork.sleeping)
			fg_forker_wake(gate, thr);
	}
	do {
		n = 0;
		list_for_each_entry_safe(thr, tmp, &gate->released, entry.node) {
			if (n++ == FG_RELEASE_BATCH)
				break;
			list_del_init(&thr->entry.node);
			gate->nr_blocked--;
			thr->entry.state = FG_ENTRY_VOID;
			wake_up_process(thr->task);
		}
		more = !list_empty(&gate->released);
		raw_spin_unlock_irqrestore(&gate->lock, irq);
		raw_spin_lock_irqsave(&gate->lock, irq);
	} while (more);
	raw_spin_unlock_irqrestore(&gate->lock, irq);
}
