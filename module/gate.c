// SPDX-License-Identifier: GPL-2.0-only
/*
 * gate.c - gates and their lives, and the argument why the protocol is right
 *
 * A gate is born by an address space's first mapping of the device, or copied
 * by a clone, and ends with the last mapping. This file must not decide who
 * waits: entry.c, phase.c, ticket.c, fork.c and timer.c do.
 *
 * The protocol. The models in tools/model use the same labels.
 *
 * Invariant. While a forker copies domain d, or holds a granted ticket for d,
 * no other thread is inside d. A level that a thread has stored but that
 * the gate has not admitted ("unadmitted": its thread is between E1 and E3 and
 * will be sent to wait) does not count.
 *
 * Fast paths, in user space (tools/lib/forkgate.h):
 *
 *   enter  E1  depth[d] += 1			leave  L1  depth[d] -= 1 (release)
 *	    E2  compiler barrier			L2  compiler barrier
 *	    E3  if (closed & D)				L3  if (depth[d] == 0 &&
 *		    ENTER: K1..K4				closed & d)
 *							    LEAVE: K5
 *
 * A domain of a phase goes through these states, with `closed` set in all but
 * the first:
 *
 *   OPEN --F2--> FENCING --F3--> SCANNING --F4--> COUNTED --F6--> OPEN
 *
 * The scan counts each slot once: domains[d].inside is how many slots it found
 * inside. From then on every change of a counted slot reaches the gate: an
 * entry comes to K2, which counts it, and the leave to zero comes to K5, which
 * uncounts it. A forker may go when the count, less its own slot, is zero.
 *
 * In the kernel, all under gate->lock unless marked *:
 *
 *   K1  Which of the caller's levels count? In a domain whose scan has passed
 *	 its slot, those that the gate has counted; in others, all.
 *   K2  Admit a thread that is inside something, or a forker itself, unless
 *	 another copies, or holds a granted ticket for, what it enters. Admit
 *	 a newcomer if moreover no drain needs what it enters. Count it where
 *	 the scan has passed its slot. Admitting a thread past a drain makes
 *	 the gate strict: newcomers of either domain are kept out.
 *   K3  Otherwise give back the levels of this entry and the unadmitted ones
 *	 (that is a leave: K5) and sleep*.
 *   K4  A signal takes the sleeper out of the list, unless it was released.
 *   K5  Uncount a slot whose depth has become zero; then grant (F4).
 *   K6  Release: count sleepers in, in batches, then wake them.
 *   K7  Yield: release the newcomers blocked so far, let the queue join the
 *	 phase, double the patience.
 *
 *   F1* allocate what the child needs				(fork.c)
 *   F2  join or start a phase: closed |= need; K5 for the own slot, because
 *	 this may be a signal handler between L1 and L3
 *   F3* write `closed` to every unit, then fence: no running thread has missed
 *	 it without its depth being visible			(fence.c)
 *   F4  scan, then grant: whoever changes what a grant depends on (a count, a
 *	 grant's end, the released counted in) grants what can be granted
 *   F5  otherwise look for a circle, then sleep*; a signal keeps the place
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
 * Why a count is right. A slot found idle is counted by K2 before its thread
 * goes on, since E3 sees `closed` (A, B). A slot counted inside is uncounted by
 * K5: after the fence a leaver either is seen idle by F4 or sees `closed` at
 * L3. K2, K5 and each batch of F4 are critical sections of one lock.
 *
 * Why no wake-up is lost. A grant is made by the one who makes it possible, in
 * the same critical section (F4), and recorded in the forker's state; a sleeper
 * sets its task state and drops the lock only if it is not granted (F5). While
 * a phase has domains that are not COUNTED, or units without `closed`, the
 * first sleeper of the phase is awake: fg_phase_run() wakes it.
 *
 * Why newcomers do not starve (rule 6). K6 counts them in before anything is
 * granted and before the next phase closes (gate->released is empty in both
 * cases). A phase has an end: after its first grant only those inside sections
 * join, and from the end of a grant through which a thread was kept out only as
 * long as there is a drain. Patience ends that: then nothing is granted until
 * all copies and tickets have ended and the drain has yielded.
 *
 * Why forkers do not starve. Those that come while a phase goes on join it or
 * are the next phase. No forker is granted before an earlier one that lacks only
 * its turn.
 */

#include <linux/init.h>
#include <linux/kprobes.h>
#include <linux/mm_types.h>
#include <linux/rculist.h>
#include <linux/slab.h>

#include "compat.h"
#include "gate.h"
#include "table.h"
#include "trace.h"

/* All gates that are mapped, by mm. */
#define FG_GATES_BITS	12
static struct fg_table_bucket fg_gates[1 << FG_GATES_BITS];

static struct fg_table_bucket *fg_gate_bucket(const struct mm_struct *mm)
{
	return fg_table_bucket(fg_gates, FG_GATES_BITS, mm);
}

/**
 * fg_gate_find_rcu - the gate of an address space
 * @mm: the address space
 *
 * Context: in an RCU read-side section, any.
 * Return: it, not referenced, or NULL.
 */
struct fg_gate *fg_gate_find_rcu(struct mm_struct *mm)
{
	struct fg_table_bucket *bucket = fg_gate_bucket(mm);
	struct fg_gate *gate;

	hlist_for_each_entry_rcu(gate, &bucket->head, hash)
		if (gate->mm == mm)
			return gate;
	return NULL;
}

NOKPROBE_SYMBOL(fg_gate_find_rcu);

/**
 * fg_gate_get - the gate of an address space
 * @mm: the address space
 *
 * Return: it, referenced, or NULL.
 */
struct fg_gate *fg_gate_get(struct mm_struct *mm)
{
	struct fg_gate *gate;

	rcu_read_lock();
	gate = fg_gate_find_rcu(mm);
	if (gate && !refcount_inc_not_zero(&gate->ref))
		gate = NULL;
	rcu_read_unlock();
	return gate;
}

/**
 * fg_gates_for_each - visit every mapped gate; may sleep in between
 * @fn: called under RCU; must not sleep
 * @arg: passed on
 */
void fg_gates_for_each(void (*fn)(struct fg_gate *gate, void *arg), void *arg)
{
	struct fg_gate *gate;
	int i;

	for (i = 0; i < ARRAY_SIZE(fg_gates); i++) {
		rcu_read_lock();
		hlist_for_each_entry_rcu(gate, &fg_gates[i].head, hash)
			fn(gate, arg);
		rcu_read_unlock();
		cond_resched();
	}
}

static struct kmem_cache *fg_gate_cache;

static void fg_crowd_construct(struct fg_crowd *crowd)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(crowd->waiting); i++)
		INIT_LIST_HEAD(&crowd->waiting[i]);
}

/* What a gate has when it is freed, too: no thread waits at it. */
static void fg_gate_construct(void *object)
{
	struct fg_gate *gate = object;
	int rank, want;

	raw_spin_lock_init(&gate->lock);
	mutex_init(&gate->fence_mutex);
	timerqueue_init_head(&gate->deadlines);
	INIT_LIST_HEAD(&gate->threads);
	INIT_LIST_HEAD(&gate->forkers);
	INIT_LIST_HEAD(&gate->released);
	INIT_LIST_HEAD(&gate->notify);
	for (rank = 0; rank < FG_NR_RANKS; rank++)
		for (want = 0; want < FG_NR_NEEDS; want++)
			INIT_LIST_HEAD(&gate->blocked[rank][want]);
	fg_crowd_construct(&gate->phase);
	fg_crowd_construct(&gate->queue);
}

/**
 * fg_gates_init - make the table of gates
 *
 * Return: 0 or -ENOMEM.
 */
int __init fg_gates_init(void)
{
	fg_table_init(fg_gates, FG_GATES_BITS);
	fg_gate_cache = kmem_cache_create("forkgate_gate",
					  sizeof(struct fg_gate), 0, 0,
					  fg_gate_construct);
	return fg_gate_cache ? 0 : -ENOMEM;
}

/**
 * fg_gates_exit - free what fg_gates_init() has made
 *
 * Context: no gate is left, and rcu_barrier() has been called.
 */
void fg_gates_exit(void)
{
	kmem_cache_destroy(fg_gate_cache);
}

static void fg_gate_free(struct rcu_head *rcu)
{
	kmem_cache_free(fg_gate_cache, container_of(rcu, struct fg_gate, rcu));
}

/**
 * fg_gate_put - drop a reference
 * @gate: a referenced gate
 *
 * Context: any.
 */
void fg_gate_put(struct fg_gate *gate)
{
	if (refcount_dec_and_test(&gate->ref))
		call_rcu(&gate->rcu, fg_gate_free);
}

/**
 * fg_gate_alloc - a gate without units, without an address space
 * @gfp: how to allocate
 *
 * Return: it, with one reference, or NULL.
 */
struct fg_gate *fg_gate_alloc(gfp_t gfp)
{
	struct fg_gate *gate = kmem_cache_alloc(fg_gate_cache, gfp);

	if (!gate)
		return NULL;
	memset_after(&gate->phase, 0, waiting);
	memset_after(&gate->queue, 0, waiting);
	memset_after(gate, 0, queue);
	refcount_set(&gate->ref, 1);
	timer_setup(&gate->timer, fg_timer, 0);
	gate->units = &gate->unit;
	gate->max_units = 1;
	ratelimit_default_init(&gate->messages);
	ratelimit_set_flags(&gate->messages, RATELIMIT_MSG_ON_RELEASE);
	/* Rule 8: until told otherwise */
	gate->policy.patience = 100 * NSEC_PER_MSEC;
	gate->policy.ticket_hold = 100 * NSEC_PER_MSEC;
	gate->policy.timeout = FORKGATE_FOREVER;
	gate->policy.backstop = 10ULL * NSEC_PER_SEC;
	gate->policy.on_timeout = FORKGATE_FAIL;
	return gate;
}

/**
 * fg_gate_copy - F1: the gate of a child to be (rule 10)
 * @thr: the forking thread, or NULL
 * @parent: its gate
 * @gfp: how to allocate
 *
 * It is open, has no forkers, and the forker's slot at the same place, if the
 * forker has one. Its unit is there if the forker is inside a section, so that
 * the child goes on with it (rule 3). An idle slot inherits its number alone:
 * most children exec or exit without one section. Their first touch of the page
 * that has the slot is a page fault, which makes its unit (fg_vm_fault()).
 *
 * Return: it, with one reference and no address space yet, or NULL.
 */
struct fg_gate *fg_gate_copy(struct fg_thread *thr, struct fg_gate *parent,
			     gfp_t gfp)
{
	struct fg_gate *gate = fg_gate_alloc(gfp);
	u32 inside = 0;
	unsigned long irq;
	int nr = FG_NO_SLOT;

	if (!gate)
		return NULL;
	if (thr) {
		raw_spin_lock_irqsave(&parent->lock, irq);
		if (!parent->dead && fg_thread_acts(thr)) {
			nr = parent->inherits == thr->slot ?
			     parent->inherited : thr->slot->nr;
			inside = fg_thread_inside(thr);
		}
		raw_spin_unlock_irqrestore(&parent->lock, irq);
	}
	if (nr == FG_NO_SLOT)
		return gate;

	gate->heir = fg_thread_alloc(gate, NULL, gfp);
	if (!gate->heir)
		goto fail;
	gate->inherits = gate->heir->slot;
	gate->inherited = nr;
	gate->nr_threads = 1;
	if (inside && fg_unit_inherit(gate, gfp))
		goto fail;
	return gate;

fail:
	fg_gate_discard(gate);
	return NULL;
}

/**
 * fg_gate_mark_copy - say in a child's gate how its memory came to be
 * @gate: the gate, not in use yet
 * @copy: FORKGATE_COPY_*
 */
void fg_gate_mark_copy(struct fg_gate *gate, u32 copy)
{
	u32 i;

	gate->copy |= copy;
	for (i = 0; i < gate->nr_units; i++)
		if (gate->units[i])
			gate->units[i]->shared->header.copy = gate->copy;
}

/**
 * fg_gate_attach - an address space has its first mapping of a gate
 * @gate: the gate, of whose reference the mapping is the owner from now on
 * @mm: the address space
 *
 * Context: mmap_lock is held for writing, or @mm is not in use yet.
 */
void fg_gate_attach(struct fg_gate *gate, struct mm_struct *mm)
{
	gate->mm = mm;
	gate->vmas = 1;
	fg_table_add(fg_gate_bucket(mm), &gate->hash);
}

/**
 * fg_gate_detach - the last mapping of a gate is gone
 * @gate: the gate
 *
 * Context: may sleep, under mmap_lock.
 */
void fg_gate_detach(struct fg_gate *gate)
{
	fg_table_del(fg_gate_bucket(gate->mm), &gate->hash);
	fg_gate_discard(gate);
}

/**
 * fg_gate_discard - the end of a gate that has no mapping (any more)
 * @gate: the gate; the reference for being mapped is dropped
 *
 * Its units are freed here, its threads and itself after a grace period.
 *
 * Context: may sleep.
 */
void fg_gate_discard(struct fg_gate *gate)
{
	struct fg_thread *thr;
	unsigned long irq;
	u32 i;

	fg_gate_end(gate);
	thr = xchg(&gate->heir, NULL);
	if (thr)
		fg_thread_put(thr);
	for (;;) {
		raw_spin_lock_irqsave(&gate->lock, irq);
		thr = list_first_entry_or_null(&gate->threads,
					       struct fg_thread, node);
		if (thr)
			refcount_inc(&thr->ref);
		raw_spin_unlock_irqrestore(&gate->lock, irq);
		if (!thr)
			break;
		fg_thread_unlink(thr, false);
		fg_thread_put(thr);
		cond_resched();
	}

	/* The gate is dead: nothing looks at them any more. */
	for (i = 0; i < gate->nr_units; i++)
		if (gate->units[i])
			fg_unit_free(gate->units[i]);
	if (gate->units != &gate->unit)
		kfree(gate->units);
	fg_gate_put(gate);
}
