// SPDX-License-Identifier: GPL-2.0-only
/*
 * debugfs.c - rule 12: all gates of the machine, for root
 *
 * Lists are cut and slots are looked at in batches, because a gate's lock is
 * held meanwhile. Must not change a gate.
 */

#include <linux/debugfs.h>
#include <linux/seq_file.h>
#include <linux/string_helpers.h>

#include "compat.h"
#include "gate.h"

#define FG_LINES_SHOWN	64

static struct dentry *fg_debugfs;

static const char *fg_fork_state(struct fg_gate *gate, struct fg_thread *thr)
{
	switch (thr->fork.state) {
	case FG_FORK_NONE:
		break;
	case FG_FORK_WAITING:
		return fg_fork_queued(gate, thr) ? "queued" : "draining";
	case FG_FORK_TICKET:
		return "ticket";
	case FG_FORK_COPYING:
		return "copying";
	}
	return "none";
}

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

static bool fg_shown(struct seq_file *m, u32 *shown)
{
	if (++*shown == FG_LINES_SHOWN + 1)
		seq_puts(m, " more\n");
	return *shown > FG_LINES_SHOWN;
}

static void fg_show_forkers(struct seq_file *m, struct fg_gate *gate)
{
	u64 now = ktime_get_ns();
	struct fg_thread *thr;
	u32 shown = 0;

	list_for_each_entry(thr, &gate->forkers, fork.node) {
		if (fg_shown(m, &shown))
			break;
		seq_printf(m, " fork tid=%d slot=%d list=%s state=%s need=%s ticket=%d wait_ns=%llu\n",
			   pid_nr(thr->pid), thr->slot->nr,
			   fg_fork_queued(gate, thr) ? "queue" : "phase",
			   fg_fork_state(gate, thr), fg_domains(thr->fork.need),
			   thr->fork.kind != FG_CLONE, now - thr->fork.since);
	}
}

static void fg_show_entries(struct seq_file *m, struct list_head *head)
{
	u64 now = ktime_get_ns();
	struct fg_entry *entry;
	u32 shown = 0;

	list_for_each_entry(entry, head, node) {
		if (fg_shown(m, &shown))
			break;
		seq_printf(m, " enter tid=%d slot=%d domains=%s nested=%d wait_ns=%llu\n",
			   pid_nr(entry->thr->pid), entry->thr->slot->nr,
			   fg_domains(entry->want), entry->rank == FG_NESTED,
			   now - entry->since);
	}
}

struct fg_show {
	struct seq_file *m;
	struct fg_gate *gate;
	u32 shown;
};

static void fg_show_holder(struct fg_slot *slot, void *arg)
{
	struct fg_show *show = arg;
	const struct forkgate_slot *s = fg_shared_slot(show->gate, slot->nr);
	struct fg_blame blame;

	if (fg_shown(show->m, &show->shown)) {
		show->shown = FG_LINES_SHOWN + 1;
		return;
	}
	fg_blame_slot(show->gate, slot, &blame);
	seq_printf(show->m, " inside tid=%d slot=%u domains=%s depth=%u,%u site=%#llx label=",
		   pid_nr(blame.pid), slot->nr, fg_domains(blame.domains),
		   READ_ONCE(s->depth[0]), READ_ONCE(s->depth[1]), blame.site);
	fg_show_name(show->m, blame.label);
	seq_putc(show->m, '\n');
}

static void fg_show_head(struct seq_file *m, struct fg_gate *gate)
{
	const struct forkgate_policy *policy = &gate->policy;
	struct fg_thread *thr;
	int i;

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
}

static void fg_gate_show(struct fg_gate *gate, void *m)
{
	struct fg_show show = { m, gate, 0 };
	unsigned long irq;
	u32 rank, want, unit = 0;
	bool more;

	raw_spin_lock_irqsave(&gate->lock, irq);
	if (gate->dead) {
		raw_spin_unlock_irqrestore(&gate->lock, irq);
		return;
	}
	fg_show_head(m, gate);
	fg_show_forkers(m, gate);
	for (rank = 0; rank < FG_NR_RANKS; rank++)
		for (want = 1; want < FG_NR_NEEDS; want++)
			fg_show_entries(m, &gate->blocked[rank][want]);
	fg_show_entries(m, &gate->released);
	do {
		more = fg_slots_inside(gate, &unit, fg_show_holder, &show);
		raw_spin_unlock_irqrestore(&gate->lock, irq);
		raw_spin_lock_irqsave(&gate->lock, irq);
	} while (more && show.shown <= FG_LINES_SHOWN);
	raw_spin_unlock_irqrestore(&gate->lock, irq);
}

static int gates_show(struct seq_file *m, void *unused)
{
	fg_gates_for_each(fg_gate_show, m);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(gates);

/**
 * fg_debugfs_init - make the files; without debugfs there are none
 */
void fg_debugfs_init(void)
{
	fg_debugfs = debugfs_create_dir("forkgate", NULL);
	debugfs_create_file("gates", 0400, fg_debugfs, NULL, &gates_fops);
	fg_stats_init(fg_debugfs);
	fg_step_init(fg_debugfs);
}

/**
 * fg_debugfs_exit - remove them
 */
void fg_debugfs_exit(void)
{
	debugfs_remove_recursive(fg_debugfs);
}
