// SPDX-License-Identifier: GPL-2.0-only
/*
 * thread.c - threads of gated processes and their slots
 *
 * Finds a thread by its task, gives it a slot, and takes both away when it
 * unregisters, exits, execs or loses its gate. Must not decide who waits.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/hashtable.h>
#include <linux/pid_namespace.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "gate.h"
#include "trace.h"

/*
 * All linked threads by task. Changed under the lock, read under RCU: a task
 * looks up itself, and only itself or the end of its gate unlinks it.
 */
static struct {
	raw_spinlock_t lock;
	DECLARE_HASHTABLE(hash, 13);
} fg_thread_table = {
	.lock = __RAW_SPIN_LOCK_UNLOCKED(fg_thread_table.lock),
};

/**
 * fg_thread_find - the fg_thread of a task
 * @task: the task
 *
 * Context: any.
 * Return: it, referenced, or NULL.
 */
struct fg_thread *fg_thread_find(struct task_struct *task)
{
	struct fg_thread *thr;

	rcu_read_lock();
	hash_for_each_possible_rcu(fg_thread_table.hash, thr, hash,
				   (unsigned long)task) {
		if (thr->task == task && refcount_inc_not_zero(&thr->ref)) {
			rcu_read_unlock();
			return thr;
		}
	}
	rcu_read_unlock();
	return NULL;
}

/**
 * fg_thread_alloc - a thread that is not linked yet
 * @gate: its gate
 * @gfp: how to allocate
 *
 * Return: it, with one reference, or NULL.
 */
struct fg_thread *fg_thread_alloc(struct fg_gate *gate, gfp_t gfp)
{
	struct fg_thread *thr = kzalloc(sizeof(*thr), gfp);

	if (!thr)
		return NULL;
	refcount_set(&thr->ref, 1);
	refcount_inc(&gate->ref);
	thr->gate = gate;
	thr->slot = FG_NO_SLOT;
	INIT_LIST_HEAD(&thr->node);
	INIT_LIST_HEAD(&thr->fork.node);
	INIT_LIST_HEAD(&thr->entry.node);
	return thr;
}

/**
 * fg_thread_put - drop a reference
 * @thr: a referenced thread
 */
void fg_thread_put(struct fg_thread *thr)
{
	if (!refcount_dec_and_test(&thr->ref))
		return;
	put_pid(thr->pid);
	fg_gate_put(thr->gate);
	kfree_rcu(thr, rcu);
}

/* Make @thr what fg_thread_find(@task) finds; gate->lock is held. */
static void fg_thread_link(struct fg_thread *thr, struct task_struct *task)
{
	struct fg_gate *gate = thr->gate;

	lockdep_assert_held(&gate->lock);

	thr->task = task;
	thr->pid = get_pid(task_pid(task));
	thr->linked = true;
	list_add_tail(&thr->node, &gate->threads);
	refcount_inc(&thr->ref);
	raw_spin_lock(&fg_thread_table.lock);
	hash_add_rcu(fg_thread_table.hash, &thr->hash, (unsigned long)task);
	raw_spin_unlock(&fg_thread_table.lock);
}

static s32 fg_thread_tid(struct task_struct *task)
{
	return pid_nr_ns(task_pid(task), task_active_pid_ns(task));
}

/**
 * fg_thread_adopt - a copied gate learns which task its thread is
 * @thr: the gate's heir, which holds its slot already
 * @task: the child's only thread, not running yet
 *
 * Context: any; the reference of gate->heir goes over to the table.
 */
void fg_thread_adopt(struct fg_thread *thr, struct task_struct *task)
{
	struct fg_gate *gate = thr->gate;
	unsigned long irq;

	raw_spin_lock_irqsave(&gate->lock, irq);
	if (!gate->dead) {
		fg_thread_link(thr, task);
		fg_slot(gate, thr->slot)->tid = fg_thread_tid(task);
	}
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	fg_thread_put(thr);
}

/**
 * fg_thread_stand_in - a vfork child stands for its suspended parent's slot
 * @parent: the parent's thread
 * @child: the one prepared for the child
 * @task: the child, not running yet
 *
 * Context: any; keeps no reference to @child besides the table's.
 */
void fg_thread_stand_in(struct fg_thread *parent, struct fg_thread *child,
			struct task_struct *task)
{
	struct fg_gate *gate = parent->gate;
	unsigned long irq;

	raw_spin_lock_irqsave(&gate->lock, irq);
	if (!gate->dead && parent->linked) {
		child->slot = parent->slot;
		child->stands_for = parent;
		parent->stand_in = child;
		fg_thread_link(child, task);
	}
	raw_spin_unlock_irqrestore(&gate->lock, irq);
}

/* The calling thread's fg_thread if it belongs to @gate, referenced. */
static struct fg_thread *fg_thread_own(struct fg_gate *gate)
{
	struct fg_thread *thr = fg_thread_find(current);

	if (thr && thr->gate != gate) {
		/* Of an address space that it has left by exec */
		fg_thread_unlink(thr, true);
		fg_thread_put(thr);
		thr = NULL;
	}
	return thr;
}

/**
 * fg_thread_get - the calling thread's fg_thread, made if need be
 * @gate: its gate, referenced
 *
 * Return: it, referenced; ERR_PTR(-ENOMEM), ERR_PTR(-ENXIO) if the gate ended.
 */
struct fg_thread *fg_thread_get(struct fg_gate *gate)
{
	struct fg_thread *thr = fg_thread_own(gate);
	unsigned long irq;
	bool dead;

	if (thr)
		return thr;
	thr = fg_thread_alloc(gate, GFP_KERNEL_ACCOUNT);
	if (!thr)
		return ERR_PTR(-ENOMEM);
	raw_spin_lock_irqsave(&gate->lock, irq);
	dead = gate->dead;
	if (!dead)
		fg_thread_link(thr, current);
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	if (!dead)
		return thr;
	fg_thread_put(thr);
	return ERR_PTR(-ENXIO);
}

/* @thr goes, and its slot unless others count there; gate->lock is held. */
static void fg_slot_free(struct fg_gate *gate, struct fg_thread *thr)
{
	struct fg_thread *parent = thr->stands_for, *child = thr->stand_in;
	struct fg_slot_page *page;
	u32 bit;

	if (parent)
		parent->stand_in = child;
	if (child)
		child->stands_for = parent;
	if (parent || thr->slot == FG_NO_SLOT)
		return;

	page = gate->pages[thr->slot / FG_SLOTS_PER_PAGE];
	bit = thr->slot % FG_SLOTS_PER_PAGE;
	if (child) {
		/* The vfork child lives on, the slot is its own from now on */
		page->owner[bit] = child;
		return;
	}
	memset(&page->slots[bit], 0, sizeof(page->slots[bit]));
	page->owner[bit] = NULL;
	page->used &= ~BIT_ULL(bit);
	gate->nr_threads--;
	fg_slot_left(gate, thr->slot);
}

/* Do all threads of the calling process go away, by exit_group() or exec? */
static bool fg_process_ends(void)
{
	return (current->signal->flags & SIGNAL_GROUP_EXIT) ||
	       current->signal->group_exec_task;
}

/**
 * fg_thread_unlink - a thread stops counting
 * @thr: a thread, referenced; nothing happens if it is not linked any more
 * @gone: it went away by itself, so that what it was inside of is abandoned
 *
 * Context: any, also atomic.
 */
void fg_thread_unlink(struct fg_thread *thr, bool gone)
{
	struct fg_gate *gate = thr->gate;
	struct fg_blame blame = {};
	bool abandoned = false;
	unsigned long irq;

	raw_spin_lock_irqsave(&gate->lock, irq);
	if (!thr->linked) {
		raw_spin_unlock_irqrestore(&gate->lock, irq);
		return;
	}
	if (gone && !gate->dead) {
		if (thr->slot != FG_NO_SLOT && !thr->stands_for &&
		    !thr->stand_in)
			fg_blame_slot(gate, thr->slot, &blame);
		abandoned = blame.domains || thr->fork.state == FG_FORK_TICKET ||
			    (thr->fork.state != FG_FORK_NONE &&
			     thr->fork.ticket);
	}
	if (abandoned) {
		fg_count(gate, FG_EVENT_ABANDON);
		trace_abandon(thr, &blame);
	}
	thr->linked = false;
	list_del_init(&thr->node);
	raw_spin_lock(&fg_thread_table.lock);
	hash_del_rcu(&thr->hash);
	raw_spin_unlock(&fg_thread_table.lock);
	fg_slot_free(gate, thr);
	thr->slot = FG_NO_SLOT;
	fg_phase_leave(gate, thr);
	raw_spin_unlock_irqrestore(&gate->lock, irq);

	if (blame.domains && !fg_process_ends())
		pr_info_ratelimited("thread %d went away inside %s%sat %#llx %s\n",
				    pid_nr(thr->pid),
				    blame.domains & FORKGATE_MEMORY ? "memory " : "",
				    blame.domains & FORKGATE_FILES ? "files " : "",
				    blame.site, blame.label);
	fg_blame_drop(&blame);
	fg_release(gate);
	fg_thread_put(thr);
}

/*
 * Give the linked @thr a slot; gate->lock is held. A vfork child takes it for
 * its parent, who goes on counting where the child began.
 * Return: 0, -ENOSPC, or -EAGAIN with the index of a page to allocate first.
 */
static int fg_slot_take(struct fg_gate *gate, struct fg_thread *thr, u32 *index)
{
	struct fg_slot_page *page;
	u32 bit;

	for (*index = 0; *index < FG_SLOT_PAGES; ++*index) {
		page = gate->pages[*index];
		if (!page)
			return -EAGAIN;
		if (~page->used)
			break;
	}
	if (*index == FG_SLOT_PAGES)
		return -ENOSPC;

	while (thr->stands_for)
		thr = thr->stands_for;
	bit = __ffs64(~page->used);
	memset(&page->slots[bit], 0, sizeof(page->slots[bit]));
	page->slots[bit].tid = fg_thread_tid(thr->task);
	page->used |= BIT_ULL(bit);
	page->owner[bit] = thr;
	for (; thr; thr = thr->stand_in)
		thr->slot = *index * FG_SLOTS_PER_PAGE + bit;
	gate->top = max_t(u32, gate->top, *index * FG_SLOTS_PER_PAGE + bit + 1);
	gate->nr_threads++;
	return 0;
}

/**
 * fg_thread_register - REGISTER: the calling thread gets a slot
 * @gate: its gate, referenced
 * @reg: told which
 *
 * Idempotent; in a vfork child the slot is its parent's.
 *
 * Return: 0, -ENOMEM, -ENOSPC, -ENXIO.
 */
int fg_thread_register(struct fg_gate *gate, struct forkgate_register *reg)
{
	struct fg_thread *thr = fg_thread_get(gate);
	unsigned long irq;
	u32 index;
	int ret;

	if (IS_ERR(thr))
		return PTR_ERR(thr);
	do {
		ret = 0;
		raw_spin_lock_irqsave(&gate->lock, irq);
		if (gate->dead || !thr->linked)
			ret = -ENXIO;
		else if (thr->slot == FG_NO_SLOT)
			ret = fg_slot_take(gate, thr, &index);
		reg->slot = thr->slot;
		raw_spin_unlock_irqrestore(&gate->lock, irq);
		if (ret == -EAGAIN && !fg_slot_page(gate, index))
			ret = -ENOMEM;
	} while (ret == -EAGAIN);
	reg->offset = FORKGATE_SLOT_OFFSET((u64)reg->slot);
	fg_thread_put(thr);
	return ret;
}

/**
 * fg_thread_unregister - UNREGISTER: the calling thread gives its slot back
 * @gate: its gate, referenced
 *
 * Return: 0, -ESRCH (it has none), -EBUSY (it is inside a section, holds a
 * ticket or is a vfork child).
 */
int fg_thread_unregister(struct fg_gate *gate)
{
	struct fg_thread *thr = fg_thread_own(gate);
	unsigned long irq;
	int ret = 0;

	if (!thr)
		return -ESRCH;
	raw_spin_lock_irqsave(&gate->lock, irq);
	if (thr->slot == FG_NO_SLOT)
		ret = -ESRCH;
	else if (fg_slot_inside(fg_slot(gate, thr->slot)) ||
		 thr->fork.state != FG_FORK_NONE || thr->stands_for)
		ret = -EBUSY;
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	if (!ret)
		fg_thread_unlink(thr, false);
	fg_thread_put(thr);
	return ret;
}
