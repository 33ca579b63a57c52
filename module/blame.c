// SPDX-License-Identifier: GPL-2.0-only
/*
 * blame.c - rule 12: who is inside what, and who waits for it
 *
 * For messages and tracepoints and for a process's own gate (STATE). Reads what
 * user space wrote without believing it. Must not change a gate.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cred.h>
#include <linux/ctype.h>
#include <linux/pid.h>
#include <linux/sched/user.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "compat.h"
#include "gate.h"

/* Units looked at, and forkers, before the lock is dropped */
#define FG_BLAME_BATCH		FG_SCAN_BATCH
#define FG_BLAME_FORKERS	256

/* Copy text that user space may change, up to its end or @size, printable. */
static void fg_printable(char *to, const char *from, int size)
{
	int i;

	for (i = 0; i < size; i++) {
		to[i] = READ_ONCE(from[i]);
		if (!to[i])
			break;
		if (!isascii(to[i]) || !isprint(to[i]))
			to[i] = '?';
	}
	memset(to + i, 0, size - i);
}

/**
 * fg_comm - the calling task's name, for messages
 * @comm: TASK_COMM_LEN bytes; printable
 *
 * Return: @comm.
 */
const char *fg_comm(char *comm)
{
	fg_printable(comm, current->comm, TASK_COMM_LEN - 1);
	comm[TASK_COMM_LEN - 1] = '\0';
	return comm;
}

/*
 * What user space calls the section that a slot is inside of: printable, empty
 * if the label belongs to another section. @label has FORKGATE_LABEL_SIZE bytes.
 */
static void fg_label(const struct forkgate_slot *slot, char *label)
{
	if (READ_ONCE(slot->label_site) == READ_ONCE(slot->site))
		fg_printable(label, slot->label, FORKGATE_LABEL_SIZE);
	else
		memset(label, 0, FORKGATE_LABEL_SIZE);
}

/**
 * fg_blame_slot - what a slot's thread is inside of
 * @gate: the gate, not dead; gate->lock is held
 * @slot: a slot with a number and an owner
 * @blame: filled in; its pid is not a reference
 */
void fg_blame_slot(struct fg_gate *gate, struct fg_slot *slot,
		   struct fg_blame *blame)
{
	const struct forkgate_slot *s = fg_shared_slot(gate, slot->nr);

	memset(blame, 0, sizeof(*blame));
	blame->domains = fg_depth_domains(s);
	blame->site = READ_ONCE(s->site);
	blame->pid = slot->owner ? slot->owner->pid : NULL;
	fg_label(s, blame->label);
}

/**
 * fg_slots_inside - visit slots that are inside a section
 * @gate: its gate; gate->lock is held
 * @unit: the first unit to look at; moved past those looked at
 * @fn: called for each slot with an owner that is inside
 * @arg: passed on
 *
 * Looks at a batch of units.
 *
 * Return: whether there are more units.
 */
bool fg_slots_inside(struct fg_gate *gate, u32 *unit,
		     void (*fn)(struct fg_slot *slot, void *arg), void *arg)
{
	u32 end = min(*unit + FG_BLAME_BATCH, gate->nr_units);
	struct fg_unit *u;
	u64 used;
	int bit;

	lockdep_assert_held(&gate->lock);

	if (gate->dead)
		return false;
	for (; *unit < end; ++*unit) {
		u = gate->units[*unit];
		for (used = u ? u->used : 0; used; used &= used - 1) {
			bit = __ffs64(used);
			if (u->slots[bit]->owner &&
			    fg_depth_domains(&u->shared->slots[bit]))
				fn(u->slots[bit], arg);
		}
	}
	return *unit < gate->nr_units;
}

struct fg_blame_search {
	struct fg_gate *gate;
	struct fg_thread *forker;
	struct fg_blame *blame;
};

static void fg_blame_found(struct fg_slot *slot, void *arg)
{
	struct fg_blame_search *search = arg;
	struct fg_thread *forker = search->forker;
	u32 inside;

	inside = fg_depth_domains(fg_shared_slot(search->gate, slot->nr));
	if (search->blame->pid || slot == forker->slot ||
	    !(inside & forker->fork.need))
		return;
	fg_blame_slot(search->gate, slot, search->blame);
	get_pid(search->blame->pid);
}

/**
 * fg_blame_fork - the first thread that a forker waits for
 * @gate: its gate
 * @thr: the forker
 * @blame: zero; filled in if there is one; drop it with fg_blame_drop()
 *
 * Return: whether there is one.
 */
bool fg_blame_fork(struct fg_gate *gate, struct fg_thread *thr,
		   struct fg_blame *blame)
{
	struct fg_blame_search search = { gate, thr, blame };
	unsigned long irq;
	u32 unit = 0;
	bool more;

	do {
		raw_spin_lock_irqsave(&gate->lock, irq);
		more = fg_slots_inside(gate, &unit, fg_blame_found, &search);
		raw_spin_unlock_irqrestore(&gate->lock, irq);
	} while (more && !blame->pid);
	return blame->pid;
}

/**
 * fg_blame_drop - done with a blame
 * @blame: filled in, or zero
 */
void fg_blame_drop(struct fg_blame *blame)
{
	put_pid(blame->pid);
}

/*
 * user_struct.ratelimit allows 100 events a second; charge 50 for a line, which
 * makes as many lines as printk_ratelimit() allows
 */
#define FG_LOG_COST	50

/**
 * fg_may_log - may the calling process's gate write a line to the log?
 * @gate: its gate
 *
 * Rule 13: limited for each gate, and for each user because he may have many.
 *
 * Context: the process whose gate it is; any.
 * Return: whether.
 */
bool fg_may_log(struct fg_gate *gate)
{
	int n;

	if (!__ratelimit(&gate->messages))
		return false;
	for (n = 0; n < FG_LOG_COST; n++)
		if (!__ratelimit(&current_user()->ratelimit))
			return false;
	return true;
}

/**
 * fg_report_later - have the timer log something about a thread
 * @gate: its gate, not dead; gate->lock is held
 * @thr: the calling thread
 * @blame: what it is inside of
 * @bypass: see struct fg_report
 *
 * Nothing happens while an earlier report has not been logged.
 */
void fg_report_later(struct fg_gate *gate, struct fg_thread *thr,
		     const struct fg_blame *blame, bool bypass)
{
	lockdep_assert_held(&gate->lock);

	if (gate->report.blame.pid || !fg_may_log(gate))
		return;
	gate->report.blame = *blame;
	gate->report.blame.pid = get_pid(thr->pid);
	gate->report.bypass = bypass;
	fg_timer_kick(gate);
}

/**
 * fg_report - log it
 * @report: taken out of gate->report; may be empty
 *
 * Context: process or softirq.
 */
void fg_report(struct fg_report *report)
{
	struct fg_blame *blame = &report->blame;

	if (!blame->pid)
		return;
	if (report->bypass)
		pr_warn("thread %d: its descriptors were copied without passing the gate; are kprobes or ftrace switched off?\n",
			pid_nr(blame->pid));
	else
		pr_info("thread %d went away inside %s%sat %#llx %s\n",
			pid_nr(blame->pid),
			blame->domains & FORKGATE_MEMORY ? "memory " : "",
			blame->domains & FORKGATE_FILES ? "files " : "",
			blame->site, blame->label);
	fg_blame_drop(blame);
	blame->pid = NULL;
}

struct fg_holders {
	struct fg_gate *gate;
	struct forkgate_holder *found;
	u32 count;
};

static void fg_holder(struct fg_slot *slot, void *arg)
{
	struct fg_holders *holders = arg;
	const struct forkgate_slot *s = fg_shared_slot(holders->gate, slot->nr);
	struct forkgate_holder *holder = &holders->found[holders->count++];

	memset(holder, 0, sizeof(*holder));
	holder->tid = pid_vnr(slot->owner->pid);
	holder->domains = fg_depth_domains(s);
	holder->depth[0] = READ_ONCE(s->depth[0]);
	holder->depth[1] = READ_ONCE(s->depth[1]);
	holder->site = READ_ONCE(s->site);
	fg_label(s, holder->label);
}

/* The longest wait, of as many forkers as may be looked at; lock held. */
static u64 fg_longest_wait(struct fg_gate *gate)
{
	u64 now = ktime_get_ns(), longest = 0;
	struct fg_thread *thr;
	int n = 0;

	list_for_each_entry(thr, &gate->forkers, fork.node) {
		if (n++ == FG_BLAME_FORKERS)
			break;
		if (thr->fork.state == FG_FORK_WAITING)
			longest = max(longest, now - thr->fork.since);
	}
	return longest;
}

static int fg_state_holders(struct fg_gate *gate, struct forkgate_state *state,
			    struct forkgate_holder *found)
{
	struct forkgate_holder __user *out = u64_to_user_ptr(state->holders);
	u32 max = state->holders ? state->holders_max : 0, unit = 0;
	struct fg_holders holders = { gate, found };
	unsigned long irq;
	bool more;

	state->holders_count = 0;
	do {
		holders.count = 0;
		raw_spin_lock_irqsave(&gate->lock, irq);
		more = fg_slots_inside(gate, &unit, fg_holder, &holders);
		raw_spin_unlock_irqrestore(&gate->lock, irq);

		if (state->holders_count < max &&
		    copy_to_user(out + state->holders_count, found,
				 min(holders.count, max - state->holders_count) *
				 sizeof(*out)))
			return -EFAULT;
		state->holders_count += holders.count;
		cond_resched();
	} while (more);
	return 0;
}

/**
 * fg_state - STATE
 * @gate: the caller's gate, referenced
 * @state: in: where holders go; the rest is filled in
 *
 * Context: may sleep.
 * Return: 0, -EFAULT, -ENOMEM.
 */
int fg_state(struct fg_gate *gate, struct forkgate_state *state)
{
	struct forkgate_holder *found;
	unsigned long irq;
	int ret;

	found = kvmalloc_array(FG_BLAME_BATCH * FORKGATE_UNIT_SLOTS,
			       sizeof(*found), GFP_KERNEL_ACCOUNT);
	if (!found)
		return -ENOMEM;
	raw_spin_lock_irqsave(&gate->lock, irq);
	state->closed = gate->closed;
	state->threads = gate->nr_threads;
	state->blocked = gate->nr_blocked;
	state->forkers = gate->phase.nr + gate->queue.nr;
	state->wait_ns = fg_longest_wait(gate);
	state->forks = gate->events[FG_EVENT_FORK];
	state->phases = gate->events[FG_EVENT_PHASE];
	state->yields = gate->events[FG_EVENT_YIELD];
	state->expired = gate->events[FG_EVENT_EXPIRE];
	state->timeouts = gate->events[FG_EVENT_TIMEOUT];
	state->deadlocks = gate->events[FG_EVENT_DEADLOCK];
	state->unsafe = gate->events[FG_EVENT_UNSAFE];
	state->abandoned = gate->events[FG_EVENT_ABANDON];
	state->bypasses = gate->events[FG_EVENT_BYPASS];
	raw_spin_unlock_irqrestore(&gate->lock, irq);

	ret = fg_state_holders(gate, state, found);
	kvfree(found);
	return ret;
}
