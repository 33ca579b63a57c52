// SPDX-License-Identifier: GPL-2.0-only
/*
 * thread.c - tasks of gated processes and the slots that they count in
 *
 * Finds a thread by its task, gives it a slot, and takes both away when it
 * unregisters, exits, execs or loses its gate. Must not decide who waits.
 *
 * A vfork child runs on its parent's memory while that is suspended, so it
 * counts in the same slot: it becomes the slot's actor. It is the parent that
 * ends this, when it goes on (fg_thread_resume()): then the parent is the
 * actor again, whatever became of the child or of children of the child. The
 * owner, with whom the slot goes, is the parent, unless it is killed while it
 * is suspended: then the child inherits the slot, or whoever is the actor.
 *
 * In a nest of vforks a thread in the middle can be killed. Its child survives
 * though the slot is its grandparent's, which goes on. Forks wait for what such
 * a survivor is inside of, because that is in the slot, which stays until the
 * survivor ends. Levels that it never gives back stay with the grandparent.
 */

#include <linux/init.h>
#include <linux/pid_namespace.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "compat.h"
#include "gate.h"
#include "table.h"
#include "trace.h"

/*
 * All linked threads by task: a task looks up itself, and only itself or the
 * end of its gate unlinks it.
 */
#define FG_THREADS_BITS	14
static struct fg_table_bucket fg_threads[1 << FG_THREADS_BITS];

static struct fg_table_bucket *fg_thread_bucket(const struct task_struct *task)
{
	return fg_table_bucket(fg_threads, FG_THREADS_BITS, task);
}

static struct kmem_cache *fg_thread_cache;

/* What a thread has when it is freed, too: it is in no list. */
static void fg_thread_construct(void *object)
{
	struct fg_thread *thr = object;

	INIT_LIST_HEAD(&thr->node);
	INIT_LIST_HEAD(&thr->fork.node);
	INIT_LIST_HEAD(&thr->fork.wait);
	INIT_LIST_HEAD(&thr->fork.notify);
	timerqueue_init(&thr->fork.deadline);
}

/**
 * fg_threads_init - make the table of threads
 *
 * Return: 0 or -ENOMEM.
 */
int __init fg_threads_init(void)
{
	fg_table_init(fg_threads, FG_THREADS_BITS);
	fg_thread_cache = kmem_cache_create("forkgate_thread",
					    sizeof(struct fg_thread), 0, 0,
					    fg_thread_construct);
	return fg_thread_cache ? 0 : -ENOMEM;
}

/**
 * fg_threads_exit - free what fg_threads_init() has made
 *
 * Context: no thread is left, and rcu_barrier() has been called.
 */
void fg_threads_exit(void)
{
	kmem_cache_destroy(fg_thread_cache);
}

/**
 * fg_thread_find - the fg_thread of a task
 * @task: the task
 *
 * Context: any.
 * Return: it, referenced, or NULL.
 */
struct fg_thread *fg_thread_find(struct task_struct *task)
{
	struct fg_table_bucket *bucket = fg_thread_bucket(task);
	struct fg_thread *thr;

	rcu_read_lock();
	hlist_for_each_entry_rcu(thr, &bucket->head, hash) {
		if (thr->task == task && refcount_inc_not_zero(&thr->ref)) {
			rcu_read_unlock();
			return thr;
		}
	}
	rcu_read_unlock();
	return NULL;
}

/* Sleeping locks of PREEMPT_RT are behind put_pid() and kfree(). */
static void fg_thread_free(struct rcu_head *rcu)
{
	struct fg_thread *thr = container_of(rcu, struct fg_thread, rcu);

	put_pid(thr->pid);
	fg_fork_unpoll(&thr->fork);
	if (thr->own.gate)
		fg_gate_put(thr->own.gate);
	kmem_cache_free(fg_thread_cache, thr);
}

/**
 * fg_thread_put - drop a reference
 * @thr: a referenced thread
 *
 * Context: any.
 */
void fg_thread_put(struct fg_thread *thr)
{
	struct fg_thread *parent;

	for (; thr && refcount_dec_and_test(&thr->ref); thr = parent) {
		parent = thr->parent;
		call_rcu(&thr->rcu, fg_thread_free);
	}
}

/**
 * fg_thread_alloc - a thread that is not linked yet
 * @gate: its gate
 * @parent: for whom it stands as a vfork child; NULL for a slot of its own
 * @gfp: how to allocate
 *
 * Return: it, with one reference, or NULL.
 */
struct fg_thread *fg_thread_alloc(struct fg_gate *gate,
				  struct fg_thread *parent, gfp_t gfp)
{
	struct fg_thread *thr = kmem_cache_alloc(fg_thread_cache, gfp);

	if (!thr)
		return NULL;
	memset_after(thr, 0, fork.deadline);
	refcount_set(&thr->ref, 1);
	thr->own.nr = FG_NO_SLOT;
	if (parent) {
		refcount_inc(&parent->ref);
		thr->parent = parent;
		thr->nest = parent->nest + 1;
		thr->slot = parent->slot;
	} else {
		refcount_inc(&gate->ref);
		thr->own.gate = gate;
		thr->slot = &thr->own;
	}
	thr->fork.edge = FG_NO_EDGE;
	return thr;
}

static bool fg_thread_linked(const struct fg_thread *thr)
{
	return !hlist_unhashed(&thr->hash);
}

/*
 * Make @thr what fg_thread_find(@task) finds, and the actor of its slot;
 * gate->lock is held.
 */
static void fg_thread_link(struct fg_thread *thr, struct task_struct *task)
{
	struct fg_gate *gate = fg_thread_gate(thr);

	lockdep_assert_held(&gate->lock);

	thr->task = task;
	thr->pid = get_pid(task_pid(task));
	refcount_inc(&thr->ref);
	list_add_tail(&thr->node, &gate->threads);
	fg_table_add(fg_thread_bucket(task), &thr->hash);
	thr->slot->actor = thr;
	if (!thr->slot->owner)
		thr->slot->owner = thr;
}

static s32 fg_thread_tid(struct task_struct *task)
{
	return pid_nr_ns(task_pid(task), task_active_pid_ns(task));
}

/**
 * fg_thread_adopt - a copied gate learns which task its thread is
 * @heir: the thread, which has its slot, or will inherit it; its reference is
 *	dropped
 * @task: the child's only thread, not running yet
 *
 * Context: any.
 */
void fg_thread_adopt(struct fg_thread *heir, struct task_struct *task)
{
	struct fg_gate *gate = fg_thread_gate(heir);
	unsigned long irq;

	raw_spin_lock_irqsave(&gate->lock, irq);
	if (!gate->dead) {
		fg_thread_link(heir, task);
		if (heir->slot->nr != FG_NO_SLOT)
			fg_shared_slot(gate, heir->slot->nr)->tid =
				fg_thread_tid(task);
	}
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	fg_thread_put(heir);
}

/* What a thread's slot says, zero without one; gate->lock is held. */
static void fg_thread_depths(struct fg_thread *thr, u32 *depth)
{
	const struct forkgate_slot *shared;
	struct fg_gate *gate = fg_thread_gate(thr);
	int d;

	if (!gate->dead && thr->slot->nr != FG_NO_SLOT) {
		shared = fg_shared_slot(gate, thr->slot->nr);
		for (d = 0; d < FG_NR_DOMAINS; d++)
			depth[d] = READ_ONCE(shared->depth[d]);
	} else {
		memset(depth, 0, FG_NR_DOMAINS * sizeof(*depth));
	}
}

/**
 * fg_thread_stand_in - a vfork child acts for its suspended parent (rule 3)
 * @clone: the vfork; gate->lock is held
 * @task: the child, not running yet
 *
 * In a nest too deep to be looked at under the lock it does not.
 */
void fg_thread_stand_in(struct fg_clone *clone, struct task_struct *task)
{
	struct fg_thread *child = clone->stand_in, *parent = clone->thr;
	struct fg_gate *gate = fg_thread_gate(child);

	lockdep_assert_held(&gate->lock);

	if (gate->dead || !fg_thread_acts(parent) || child->nest > FG_NEST_MAX)
		return;
	fg_thread_depths(parent, clone->depth);
	parent->child = child;
	fg_thread_link(child, task);
}

/* Has no parent of a thread gone on without it? gate->lock is held. */
static bool fg_thread_stands(const struct fg_thread *thr)
{
	for (; thr->parent; thr = thr->parent)
		if (thr->parent->child != thr)
			return false;
	return true;
}

/**
 * fg_thread_tell - tell a thread how its clone or prepare has ended
 * @gate: its gate; gate->lock is held
 * @thr: the thread
 * @outcome: FORKGATE_OUTCOME_*
 */
void fg_thread_tell(struct fg_gate *gate, struct fg_thread *thr, u32 outcome)
{
	struct fg_slot *slot = thr->slot;

	lockdep_assert_held(&gate->lock);

	if (!gate->dead && fg_thread_acts(thr) && slot->nr != FG_NO_SLOT)
		WRITE_ONCE(fg_shared_slot(gate, slot->nr)->outcome, outcome);
}

/**
 * fg_outcome - the same without the lock
 * @gate: its gate
 * @thr: the thread
 * @outcome: FORKGATE_OUTCOME_*
 */
void fg_outcome(struct fg_gate *gate, struct fg_thread *thr, u32 outcome)
{
	unsigned long irq;

	raw_spin_lock_irqsave(&gate->lock, irq);
	fg_thread_tell(gate, thr, outcome);
	raw_spin_unlock_irqrestore(&gate->lock, irq);
}

/*
 * The slot says what it said before the vfork; gate->lock is held. A child may
 * have gone away inside sections of its own (rule 9), or while it waited to
 * enter one, with its parent's unadmitted levels taken out of the slot (K3).
 */
static void fg_thread_restore(struct fg_clone *clone)
{
	struct fg_thread *thr = clone->thr;
	struct fg_gate *gate = fg_thread_gate(thr);
	struct fg_blame blame = {};
	struct forkgate_slot *shared;
	u32 depth[FG_NR_DOMAINS];
	int d;

	/* What is more may be a survivor's. */
	if (gate->dead || thr->slot->nr == FG_NO_SLOT || thr->slot->survivors)
		return;
	shared = fg_shared_slot(gate, thr->slot->nr);
	fg_thread_depths(thr, depth);
	for (d = 0; d < FG_NR_DOMAINS; d++) {
		if (depth[d] > clone->depth[d])
			blame.domains |= BIT(d);
		WRITE_ONCE(shared->depth[d], clone->depth[d]);
	}
	if (!blame.domains)
		return;
	fg_slot_left(gate, thr->slot);
	fg_count(gate, FG_EVENT_ABANDON);
	trace_abandon(thr, &blame);
}

/**
 * fg_thread_resume - a vfork has ended: the parent acts for itself again
 * @clone: the vfork; gate->lock is held
 *
 * One that is killed does not run any more: the child, if it goes on, keeps the
 * slot where that was the parent's own, and survives without it elsewhere.
 *
 * Context: the parent, after its clone has returned.
 */
void fg_thread_resume(struct fg_clone *clone)
{
	struct fg_thread *thr = clone->thr, *child = clone->stand_in;
	struct fg_slot *slot = thr->slot;
	bool killed = fatal_signal_pending(current);

	lockdep_assert_held(&fg_thread_gate(thr)->lock);

	if (thr->child != child)
		return;
	if (killed && slot->owner == thr && fg_thread_linked(child)) {
		slot->owner = child;
		return;
	}
	if (killed && fg_thread_linked(child)) {
		child->survives = true;
		slot->survivors++;
	}
	if (!killed && slot->owner && fg_thread_linked(thr) &&
	    fg_thread_stands(thr)) {
		slot->actor = thr;
		fg_thread_restore(clone);
	}
	thr->child = NULL;
}

/*
 * May a thread be inside by a slot that is not its own? It, or a parent of its,
 * has survived a parent; gate->lock is held.
 */
static bool fg_thread_survives(const struct fg_thread *thr)
{
	for (; thr; thr = thr->parent)
		if (thr->survives)
			return true;
	return false;
}

/*
 * The calling thread's fg_thread if it acts at @gate, referenced, or NULL. One
 * that was of another address space, or stood for a parent that has gone on
 * without it, starts anew; but one that survived a parent between them, or
 * stands for one that did, may be inside by a slot that is not its own, and gets
 * ERR_PTR(-EAGAIN).
 */
static struct fg_thread *fg_thread_own(struct fg_gate *gate)
{
	struct fg_thread *thr = fg_thread_find(current);
	bool here, acts, survives;
	unsigned long irq;

	if (!thr)
		return NULL;
	/* Only this thread changes that, or a parent that ends its vfork. */
	if (fg_thread_gate(thr) == gate && READ_ONCE(thr->slot->actor) == thr)
		return thr;
	raw_spin_lock_irqsave(&gate->lock, irq);
	here = fg_thread_gate(thr) == gate;
	acts = here && fg_thread_acts(thr);
	survives = here && fg_thread_survives(thr);
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	if (acts)
		return thr;
	if (!survives)
		fg_thread_unlink(thr, true);
	fg_thread_put(thr);
	return survives ? ERR_PTR(-EAGAIN) : NULL;
}

/**
 * fg_thread_get - the calling thread's fg_thread, made if need be
 * @gate: its gate, referenced
 *
 * Context: may sleep.
 * Return: it, referenced; ERR_PTR(-ENOMEM), ERR_PTR(-ENXIO) if the gate ended,
 * ERR_PTR(-EAGAIN) if the calling thread may count in another's slot.
 */
struct fg_thread *fg_thread_get(struct fg_gate *gate)
{
	struct fg_thread *thr = fg_thread_own(gate);
	unsigned long irq;
	bool dead;

	if (thr)
		return thr;
	thr = fg_thread_alloc(gate, NULL, GFP_KERNEL_ACCOUNT);
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

/* No thread counts in the slot any more; gate->lock is held. */
static void fg_slot_free(struct fg_gate *gate, struct fg_slot *slot)
{
	struct fg_unit *unit;
	u32 index, bit;

	if (gate->inherits == slot) {
		gate->inherits = NULL;
		gate->nr_threads--;
	}
	if (slot->nr == FG_NO_SLOT || gate->dead)
		return;
	fg_uncount(gate, slot, FORKGATE_DOMAINS);
	index = slot->nr / FORKGATE_UNIT_SLOTS;
	bit = slot->nr % FORKGATE_UNIT_SLOTS;
	unit = gate->units[index];
	memset(&unit->shared->slots[bit], 0, sizeof(unit->shared->slots[bit]));
	unit->slots[bit] = NULL;
	unit->used &= ~BIT_ULL(bit);
	gate->free = min(gate->free, index);
	gate->nr_threads--;
	slot->nr = FG_NO_SLOT;
}

/* Do all threads of the calling process go away, by exit_group() or exec? */
static bool fg_process_ends(void)
{
	return (current->signal->flags & SIGNAL_GROUP_EXIT) ||
	       current->signal->group_exec_task;
}

/* Rule 9: what an owner that goes away was inside of; gate->lock is held. */
static void fg_abandon(struct fg_gate *gate, struct fg_thread *thr)
{
	const struct fg_fork *fork = &thr->fork;
	struct fg_blame blame = {};

	if (thr->slot->owner == thr && thr->slot->nr != FG_NO_SLOT)
		fg_blame_slot(gate, thr->slot, &blame);
	if (!blame.domains && fork->state != FG_FORK_TICKET &&
	    !(fork->state == FG_FORK_WAITING && fork->kind != FG_CLONE))
		return;
	fg_count(gate, FG_EVENT_ABANDON);
	trace_abandon(thr, &blame);
	if (blame.domains && !fg_process_ends())
		fg_report_later(gate, thr, &blame, false);
}

/*
 * A survivor's levels in the slot cannot be told from those of the thread that
 * went on with it, and stay; gate->lock is held.
 */
static void fg_survivor_gone(struct fg_gate *gate, struct fg_thread *thr,
			     bool gone)
{
	struct fg_slot *slot = thr->slot;
	struct fg_blame blame = {};

	if (--slot->survivors || gate->dead || slot->nr == FG_NO_SLOT)
		return;
	fg_slot_left(gate, slot);
	blame.domains = fg_depth_domains(fg_shared_slot(gate, slot->nr));
	if (!gone || !blame.domains || !slot->owner)
		return;
	fg_count(gate, FG_EVENT_ABANDON);
	trace_abandon(thr, &blame);
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
	struct fg_gate *gate = fg_thread_gate(thr);
	struct fg_slot *slot = thr->slot;
	unsigned long irq;

	raw_spin_lock_irqsave(&gate->lock, irq);
	if (!fg_thread_linked(thr)) {
		raw_spin_unlock_irqrestore(&gate->lock, irq);
		return;
	}
	if (gone && !gate->dead)
		fg_abandon(gate, thr);
	list_del_init(&thr->node);
	fg_table_del(fg_thread_bucket(thr->task), &thr->hash);
	fg_phase_leave(gate, thr);
	list_del_init(&thr->fork.notify);
	if (gate->notified == thr)
		gate->notified = NULL;
	if (thr->survives)
		fg_survivor_gone(gate, thr, gone);
	if (slot->actor == thr)
		slot->actor = NULL;
	if (slot->owner == thr)
		slot->owner = slot->actor;
	if (!slot->owner && !slot->survivors)
		fg_slot_free(gate, slot);
	fg_phase_run(gate);
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	fg_settle_atomic(gate);
	fg_thread_put(thr);
}

/*
 * Give a slot that has none a number; gate->lock is held.
 * Return: 0, -ENOSPC, or -EAGAIN with the index of a unit to allocate first.
 */
static int fg_slot_take(struct fg_gate *gate, struct fg_slot *slot, u32 *index)
{
	struct fg_unit *unit;
	u32 bit;

	for (*index = gate->free; *index < FORKGATE_UNITS; ++*index) {
		unit = *index < gate->max_units ? gate->units[*index] : NULL;
		if (!unit)
			return -EAGAIN;
		if (hweight64(unit->used) < FORKGATE_UNIT_SLOTS)
			break;
	}
	gate->free = *index;
	if (*index == FORKGATE_UNITS)
		return -ENOSPC;

	bit = __ffs64(~unit->used);
	memset(&unit->shared->slots[bit], 0, sizeof(unit->shared->slots[bit]));
	unit->shared->slots[bit].tid = fg_thread_tid(slot->owner->task);
	unit->used |= BIT_ULL(bit);
	unit->slots[bit] = slot;
	slot->nr = *index * FORKGATE_UNIT_SLOTS + bit;
	gate->nr_threads++;
	return 0;
}

/**
 * fg_thread_register - REGISTER: the calling thread gets a slot
 * @gate: its gate, referenced
 * @reg: told which
 *
 * Idempotent; in a vfork child the slot is its parent's, who goes on counting
 * where the child began.
 *
 * Context: may sleep.
 * Return: 0, -ENOMEM, -ENOSPC, -ENXIO, -EAGAIN (as fg_thread_get()).
 */
int fg_thread_register(struct fg_gate *gate, struct forkgate_register *reg)
{
	struct fg_thread *thr = fg_thread_get(gate);
	unsigned long irq;
	u32 index = 0;
	int ret;

	if (IS_ERR(thr))
		return PTR_ERR(thr);
	do {
		ret = 0;
		raw_spin_lock_irqsave(&gate->lock, irq);
		if (gate->dead || !fg_thread_acts(thr) || !thr->slot->owner)
			ret = -ENXIO;
		else if (thr->slot->nr == FG_NO_SLOT)
			ret = fg_slot_take(gate, thr->slot, &index);
		reg->slot = thr->slot->nr;
		raw_spin_unlock_irqrestore(&gate->lock, irq);
		if (ret == -EAGAIN) {
			int err = fg_unit_add(gate, index, GFP_KERNEL_ACCOUNT);

			if (err)
				ret = err;
		}
	} while (ret == -EAGAIN);
	if (!ret)
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

	if (IS_ERR_OR_NULL(thr))
		return -ESRCH;
	raw_spin_lock_irqsave(&gate->lock, irq);
	if (gate->dead || thr->slot->nr == FG_NO_SLOT)
		ret = -ESRCH;
	else if (fg_thread_inside(thr) || thr->fork.state != FG_FORK_NONE ||
		 thr->slot->owner != thr)
		ret = -EBUSY;
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	if (!ret)
		fg_thread_unlink(thr, false);
	fg_thread_put(thr);
	return ret;
}
