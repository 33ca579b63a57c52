// SPDX-License-Identifier: GPL-2.0-only
/*
 * blame.c - who is inside what, and who waits for it
 *
 * For messages and tracepoints, for a process's own gate (STATE) and for root
 * (debugfs). Reads what user space wrote without believing it. Must not change
 * a gate.
 */

#include <linux/debugfs.h>
#include <linux/seq_file.h>
#include <linux/string_helpers.h>
#include <linux/uaccess.h>

#include "gate.h"

#define FG_HOLDERS_BATCH	16
#define FG_LINES_SHOWN		64

static struct dentry *fg_debugfs;

/* The label, if it belongs to the current section; printable. */
static void fg_label(const struct forkgate_slot *slot, char *label)
{
	int i;

	memset(label, 0, FORKGATE_LABEL_SIZE);
	if (READ_ONCE(slot->label_site) != READ_ONCE(slot->site))
		return;
	for (i = 0; i < FORKGATE_LABEL_SIZE; i++) {
		label[i] = READ_ONCE(slot->label[i]);
		if (!label[i])
			break;
		if (!isascii(label[i]) || !isprint(label[i]))
			label[i] = '?';
	}
	memset(label + i, 0, FORKGATE_LABEL_SIZE - i);
}

/**
 * fg_blame_slot - what a slot's thread is inside of
 * @gate: the gate; gate->lock is held
 * @slot: a slot with an owner
 * @blame: filled in; drop it with fg_blame_drop()
 */
void fg_blame_slot(struct fg_gate *gate, u32 slot, struct fg_blame *blame)
{
	const struct forkgate_slot *s = fg_slot(gate, slot);
	struct fg_thread *thr = fg_slot_owner(gate, &slot);

	memset(blame, 0, sizeof(*blame));
	blame->domains = fg_slot_inside(s);
	blame->site = READ_ONCE(s->site);
	blame->pid = get_pid(thr->pid);
	fg_label(s, blame->label);
}

/**
 * fg_blame_fork - the first thread that a forker waits for
 * @gate: its gate
 * @thr: the forker
 * @blame: filled in if there is one; drop it with fg_blame_drop()
 *
 * Return: whether there is one.
 */
bool fg_blame_fork(struct fg_gate *gate, struct fg_thread *thr,
		   struct fg_blame *blame)
{
	struct fg_thread *owner;
	bool found = false;
	unsigned long irq;
	u32 slot = 0;

	raw_spin_lock_irqsave(&gate->lock, irq);
	for (; !gate->dead && (owner = fg_slot_owner(gate, &slot)); slot++) {
		if (slot == thr->slot ||
		    !(fg_slot_inside(fg_slot(gate, slot)) & thr->fork.need))
			continue;
		fg_blame_slot(gate, slot, blame);
		found = true;
		break;
	}
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	return found;
}

/**
 * fg_blame_drop - done with a blame
 * @blame: filled in, or zero
 */
void fg_blame_drop(struct fg_blame *blame)
{
	put_pid(blame->pid);
}

static void fg_holder(struct fg_gate *gate, struct fg_thread *thr, u32 slot,
		      struct forkgate_holder *holder)
{
	const struct forkgate_slot *s = fg_slot(gate, slot);

	holder->tid = pid_vnr(thr->pid);
	holder->domains = fg_slot_inside(s);
	holder->depth[0] = READ_ONCE(s->depth[0]);
	holder->depth[1] = READ_ONCE(s->depth[1]);
	holder->site = READ_ONCE(s->site);
	fg_label(s, holder->label);
}

static u64 fg_longest_wait(struct fg_gate *gate, u32 *forkers)
{
	struct list_head *lists[] = { &gate->phase, &gate->queue };
	u64 now = ktime_get_ns(), longest = 0;
	struct fg_thread *f;
	int i;

	*forkers = 0;
	for (i = 0; i < ARRAY_SIZE(lists); i++) {
		list_for_each_entry(f, lists[i], fork.node) {
			++*forkers;
			if (f->fork.state == FG_FORK_QUEUED ||
			    f->fork.state == FG_FORK_DRAINING)
				longest = max(longest, now - f->fork.since);
		}
	}
	return longest;
}

/**
 * fg_state - STATE
 * @gate: the caller's gate, referenced
 * @state: in: where holders go; the rest is filled in
 *
 * Context: may sleep.
 * Return: 0, -EFAULT.
 */
int fg_state(struct fg_gate *gate, struct forkgate_state *state)
{
	struct forkgate_holder holders[FG_HOLDERS_BATCH];
	struct forkgate_holder __user *out = u64_to_user_ptr(state->holders);
	u32 max = state->holders ? state->holders_max : 0, slot = 0, n;
	struct fg_thread *thr;
	unsigned long irq;

	raw_spin_lock_irqsave(&gate->lock, irq);
	state->closed = gate->closed;
	state->threads = gate->nr_threads;
	state->blocked = gate->nr_blocked;
	state->wait_ns = fg_longest_wait(gate, &state->forkers);
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

	state->holders_count = 0;
	do {
		memset(holders, 0, sizeof(holders));
		thr = NULL;
		raw_spin_lock_irqsave(&gate->lock, irq);
		for (n = 0; n < FG_HOLDERS_BATCH && !gate->dead &&
		     (thr = fg_slot_owner(gate, &slot)); slot++)
			if (fg_slot_inside(fg_slot(gate, slot)))
				fg_holder(gate, thr, slot, &holders[n++]);
		raw_spin_unlock_irqrestore(&gate->lock, irq);

		if (state->holders_count < max &&
		    copy_to_user(out + state->holders_count, holders,
				 min(n, max - state->holders_count) *
				 sizeof(*out)))
			return -EFAULT;
		state->holders_count += n;
	} while (n == FG_HOLDERS_BATCH);
	return 0;
}

static const char * const fg_fork_states[] = {
	[FG_FORK_NONE] = "none",
	[FG_FORK_QUEUED] = "queued",
	[FG_FORK_DRAINING] = "draining",
	[FG_FORK_TICKET] = "ticket",
	[FG_FORK_COPYING] = "copying",
};

static const char *fg_domains(u32 domains)
{
	static const char * const names[] = {
		"none", "memory", "files", "memory,files",
	};

	return names[domains & FORKGATE_DOMAINS];
}

/* One word, whatever user space called it: all but graphic characters is octal. */
static void fg_show_name(struct seq_file *m, const char *name)
{
	seq_escape_str(m, name, ESCAPE_NAP | ESCAPE_APPEND | ESCAPE_OCTAL,
		       " \\");
}

/* Lists are cut: they are shown with the gate's lock held. */
static bool fg_shown(struct seq_file *m, u32 *shown)
{
	if (++*shown == FG_LINES_SHOWN + 1)
		seq_puts(m, " more\n");
	return *shown > FG_LINES_SHOWN;
}

static void fg_show_forkers(struct seq_file *m, const char *list,
			    struct list_head *head)
{
	u64 now = ktime_get_ns();
	struct fg_thread *f;
	u32 shown = 0;

	list_for_each_entry(f, head, fork.node) {
		if (fg_shown(m, &shown))
			break;
		seq_printf(m, " fork tid=%d slot=%d list=%s state=%s need=%s ticket=%d wait_ns=%llu\n",
			   pid_nr(f->pid), f->slot, list,
			   fg_fork_states[f->fork.state],
			   fg_domains(f->fork.need), f->fork.ticket,
			   now - f->fork.since);
	}
}

static void fg_show_entries(struct seq_file *m, struct list_head *head)
{
	u64 now = ktime_get_ns();
	struct fg_thread *thr;
	u32 shown = 0;

	list_for_each_entry(thr, head, entry.node) {
		if (fg_shown(m, &shown))
			break;
		seq_printf(m, " enter tid=%d slot=%d domains=%s nested=%d wait_ns=%llu\n",
			   pid_nr(thr->pid), thr->slot,
			   fg_domains((thr->entry.levels[0] ? FORKGATE_MEMORY : 0) |
				      (thr->entry.levels[1] ? FORKGATE_FILES : 0)),
			   thr->entry.nested, now - thr->entry.since);
	}
}

static void fg_show_holders(struct seq_file *m, struct fg_gate *gate)
{
	const struct forkgate_slot *s;
	struct fg_blame blame;
	u32 slot, shown = 0;

	for (slot = 0; fg_slot_owner(gate, &slot); slot++) {
		s = fg_slot(gate, slot);
		if (!fg_slot_inside(s))
			continue;
		if (fg_shown(m, &shown))
			break;
		fg_blame_slot(gate, slot, &blame);
		seq_printf(m, " inside tid=%d slot=%u domains=%s depth=%u,%u site=%#llx label=",
			   pid_nr(blame.pid), slot, fg_domains(blame.domains),
			   READ_ONCE(s->depth[0]), READ_ONCE(s->depth[1]),
			   blame.site);
		fg_show_name(m, blame.label);
		seq_putc(m, '\n');
		fg_blame_drop(&blame);
	}
}

static void fg_gate_show(struct fg_gate *gate, void *m)
{
	const struct forkgate_policy *policy = &gate->policy;
	struct fg_thread *thr;
	unsigned long irq;
	int i;

	raw_spin_lock_irqsave(&gate->lock, irq);
	if (gate->dead)
		goto out;
	thr = list_first_entry_or_null(&gate->threads, struct fg_thread, node);
	seq_printf(m, "gate tgid=%d comm=", thr ? task_tgid_nr(thr->task) : 0);
	if (thr)
		fg_show_name(m, thr->task->group_leader->comm);
	seq_printf(m, " closed=%s closed_ns=%llu threads=%u blocked=%u",
		   fg_domains(gate->closed),
		   gate->closed ? ktime_get_ns() - gate->closed_at : 0,
		   gate->nr_threads, gate->nr_blocked);
	for (i = 0; i < FG_NR_EVENTS; i++)
		seq_printf(m, " %s=%llu", fg_event_names[i], gate->events[i]);
	seq_printf(m, "\n policy patience=%llu ticket_hold=%llu timeout=%llu backstop=%llu on_timeout=%s\n",
		   policy->patience, policy->ticket_hold, policy->timeout,
		   policy->backstop,
		   policy->on_timeout == FORKGATE_PROCEED ? "proceed" : "fail");
	fg_show_forkers(m, "phase", &gate->phase);
	fg_show_forkers(m, "queue", &gate->queue);
	fg_show_entries(m, &gate->blocked[0]);
	fg_show_entries(m, &gate->blocked[1]);
	fg_show_entries(m, &gate->released);
	fg_show_holders(m, gate);
out:
	raw_spin_unlock_irqrestore(&gate->lock, irq);
}

static int gates_show(struct seq_file *m, void *unused)
{
	fg_gates_for_each(fg_gate_show, m);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(gates);

/**
 * fg_blame_init - root may look at all gates; without debugfs nobody may
 */
void fg_blame_init(void)
{
	fg_debugfs = debugfs_create_dir("forkgate", NULL);
	debugfs_create_file("gates", 0400, fg_debugfs, NULL, &gates_fops);
	fg_stats_init(fg_debugfs);
	fg_step_init(fg_debugfs);
}

/**
 * fg_blame_exit - nobody looks any more
 */
void fg_blame_exit(void)
{
	debugfs_remove_recursive(fg_debugfs);
}
