// SPDX-License-Identifier: GPL-2.0-only
/*
 * map.c - the mapping: units of slots, shared with user space
 *
 * vm_ops run under mmap_lock: no user access and no waiting for the gate here.
 * Must not know the protocol.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/mm.h>
#include <linux/pid_namespace.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include "compat.h"
#include "gate.h"
#include "trace.h"

static_assert(sizeof(struct forkgate_header) == FORKGATE_SLOT_SIZE);
static_assert(offsetof(struct forkgate_header, closed) == 8);
static_assert(sizeof(struct forkgate_slot) == FORKGATE_SLOT_SIZE);
static_assert(offsetof(struct forkgate_slot, site) == 8);
static_assert(offsetof(struct forkgate_slot, label) == 24);
static_assert(offsetof(struct forkgate_slot, tid) == 48);
static_assert(offsetof(struct forkgate_slot, tries) == 56);
static_assert(sizeof(struct fg_shared) == FORKGATE_UNIT_SIZE);
static_assert(FORKGATE_UNIT_SLOTS <= 64);

/* A page holds one unit, or several where pages are larger. */
#define FG_PAGE_UNITS	(PAGE_SIZE / FORKGATE_UNIT_SIZE)

static_assert(PAGE_SIZE % FORKGATE_UNIT_SIZE == 0);
static_assert(FORKGATE_UNITS % FG_PAGE_UNITS == 0);

static struct kmem_cache *fg_unit_cache;

/**
 * fg_units_init - make the cache of units
 *
 * Return: 0 or -ENOMEM.
 */
int __init fg_units_init(void)
{
	size_t size = FG_MAPPED_PAGE_OWNER(sizeof(struct fg_unit));

	fg_unit_cache = kmem_cache_create("forkgate_unit", size, 0, 0, NULL);
	return fg_unit_cache ? 0 : -ENOMEM;
}

/**
 * fg_units_exit - free what fg_units_init() has made
 *
 * Context: no gate is left.
 */
void fg_units_exit(void)
{
	kmem_cache_destroy(fg_unit_cache);
}

/* The first unit of a page brings the page. */
static struct fg_unit *fg_unit_alloc(u32 index, gfp_t gfp)
{
	struct fg_unit *unit = kmem_cache_zalloc(fg_unit_cache, gfp);

	if (!unit || index % FG_PAGE_UNITS)
		return unit;
	unit->page = alloc_page(FG_MAPPED_PAGE_GFP(gfp) | __GFP_ZERO);
	if (!unit->page) {
		kmem_cache_free(fg_unit_cache, unit);
		return NULL;
	}
	return unit;
}

/* Put a unit where it belongs; gate->lock is held. */
static void fg_unit_place(struct fg_gate *gate, u32 index, struct fg_unit *unit)
{
	if (!unit->page) {
		unit->page = gate->units[index - index % FG_PAGE_UNITS]->page;
		get_page(unit->page);
	}
	unit->shared = page_address(unit->page) +
		       index % FG_PAGE_UNITS * FORKGATE_UNIT_SIZE;
	/* Users may have written to what has no slots in use yet. */
	unit->shared->header.abi = FORKGATE_ABI;
	unit->shared->header.copy = gate->copy;
	unit->shared->header.closed = gate->closed;
	gate->units[index] = unit;
}

/**
 * fg_unit_free - free a unit; user mappings may keep the page a little longer
 * @unit: a unit that no gate refers to
 */
void fg_unit_free(struct fg_unit *unit)
{
	if (unit->page)
		put_page(unit->page);
	kmem_cache_free(fg_unit_cache, unit);
}

/* The slot that a copied gate inherits is in its unit now; gate->lock is held. */
static void fg_slot_inherited(struct fg_gate *gate, struct fg_unit *unit)
{
	struct fg_slot *slot = gate->inherits;
	u32 bit = gate->inherited % FORKGATE_UNIT_SLOTS;

	lockdep_assert_held(&gate->lock);

	unit->used |= BIT_ULL(bit);
	unit->slots[bit] = slot;
	slot->nr = gate->inherited;
	/* As the thread sees it, whoever has come by here */
	if (slot->owner)
		unit->shared->slots[bit].tid =
			pid_nr_ns(slot->owner->pid,
				  ns_of_pid(slot->owner->pid));
	gate->inherits = NULL;
}

/**
 * fg_unit_add - make sure that a gate has a unit
 * @gate: its gate, referenced or mapped
 * @index: which, below FORKGATE_UNITS
 * @gfp: how to allocate
 *
 * Context: may sleep, as @gfp says.
 * Return: 0, -ENOMEM, -ENXIO (the gate has ended).
 */
int fg_unit_add(struct fg_gate *gate, u32 index, gfp_t gfp)
{
	struct fg_unit **units = NULL, *unit;
	unsigned long irq;
	int ret = 0;

	if (index % FG_PAGE_UNITS) {
		ret = fg_unit_add(gate, index - index % FG_PAGE_UNITS, gfp);
		if (ret)
			return ret;
	}
	unit = fg_unit_alloc(index, gfp);
	if (!unit)
		return -ENOMEM;
	if (index && READ_ONCE(gate->max_units) == 1) {
		units = kcalloc(FORKGATE_UNITS, sizeof(*units), gfp);
		if (!units) {
			fg_unit_free(unit);
			return -ENOMEM;
		}
	}

	raw_spin_lock_irqsave(&gate->lock, irq);
	if (gate->dead) {
		ret = -ENXIO;
		goto out;
	}
	if (units && gate->max_units == 1) {
		units[0] = gate->unit;
		gate->units = units;
		WRITE_ONCE(gate->max_units, FORKGATE_UNITS);
		units = NULL;
	}
	if (!gate->units[index]) {
		fg_unit_place(gate, index, unit);
		if (gate->inherits &&
		    gate->inherited / FORKGATE_UNIT_SLOTS == index)
			fg_slot_inherited(gate, unit);
		unit = NULL;
		if (gate->published == gate->nr_units)
			gate->published = max(gate->nr_units, index + 1);
		gate->nr_units = max(gate->nr_units, index + 1);
	}
out:
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	kfree(units);
	if (unit)
		fg_unit_free(unit);
	return ret;
}

/**
 * fg_unit_inherit - make the unit of the slot that a copied gate inherits
 * @gate: the gate, referenced or mapped, or not in use yet
 * @gfp: how to allocate
 *
 * Rule 10: for a page fault, and for those that look at slots without one.
 *
 * Context: may sleep, as @gfp says.
 * Return: 0, also if there is nothing to inherit; -ENOMEM, -ENXIO.
 */
int fg_unit_inherit(struct fg_gate *gate, gfp_t gfp)
{
	if (!READ_ONCE(gate->inherits))
		return 0;
	return fg_unit_add(gate, gate->inherited / FORKGATE_UNIT_SLOTS, gfp);
}

/*
 * Rule 14: a copy reached the mapping although no clone of this thread was let
 * through: the hook was switched off or came too late. Nothing can be refused
 * here, so nothing may fail.
 */
static struct fg_gate *fg_map_bypassed(struct fg_gate *parent)
{
	struct fg_thread *thr = fg_thread_find(current);
	char comm[TASK_COMM_LEN];
	struct fg_gate *gate;
	unsigned long irq;

	if (thr && fg_thread_gate(thr) != parent) {
		fg_thread_put(thr);
		thr = NULL;
	}
	gate = fg_gate_copy(thr, parent, GFP_KERNEL_ACCOUNT | __GFP_NOFAIL);
	fg_gate_mark_copy(gate, FORKGATE_COPY_BYPASSED);
	raw_spin_lock_irqsave(&parent->lock, irq);
	fg_count(parent, FG_EVENT_BYPASS);
	trace_bypass(parent);
	raw_spin_unlock_irqrestore(&parent->lock, irq);
	if (thr) {
		fg_outcome(parent, thr, FORKGATE_OUTCOME_BYPASSED);
		fg_thread_put(thr);
	}
	fg_hook_bypassed();
	if (fg_may_log(parent))
		pr_warn("%s[%d]: its memory was copied without passing the gate; are kprobes or ftrace switched off?\n",
			fg_comm(comm), task_pid_nr(current));
	return gate;
}

/* The forker goes on in the child where it is; its gate->lock is held. */
static void fg_slot_copy(struct fg_gate *child, struct fg_gate *parent)
{
	int nr = child->heir ? child->heir->slot->nr : FG_NO_SLOT;
	struct forkgate_slot *to;

	if (nr == FG_NO_SLOT || parent->dead)
		return;
	to = &child->units[nr / FORKGATE_UNIT_SLOTS]
			->shared->slots[nr % FORKGATE_UNIT_SLOTS];
	*to = *fg_shared_slot(parent, nr);
	to->outcome = FORKGATE_OUTCOME_NONE;
	to->tries = 0;
}

/*
 * Rule 10: the gate that a clone has made for its child, or one made now. The
 * policy (rule 8) may have changed while the clone waited.
 */
static struct fg_gate *fg_map_child(struct fg_gate *parent)
{
	struct fg_thread *thr = fg_thread_find(current);
	struct fg_gate *child = NULL;
	unsigned long irq;

	if (thr && thr->clone)
		child = xchg(&thr->clone->child, NULL);
	if (thr)
		fg_thread_put(thr);
	if (!child)
		child = fg_map_bypassed(parent);
	raw_spin_lock_irqsave(&parent->lock, irq);
	child->policy = parent->policy;
	fg_slot_copy(child, parent);
	raw_spin_unlock_irqrestore(&parent->lock, irq);
	return child;
}

/*
 * Called for the child's mapping while the kernel copies an address space, in
 * the forking thread, and for a mapping that mremap() is about to move.
 */
static void fg_vm_open(struct vm_area_struct *vma)
{
	struct fg_gate *gate = vma->vm_private_data, *child;
	unsigned long irq;

	if (vma->vm_mm != current->mm) {
		child = fg_gate_get(vma->vm_mm);
		if (!child) {
			child = fg_map_child(gate);
			fg_gate_attach(child, vma->vm_mm);
			vma->vm_private_data = child;
			return;
		}
		/* Mapped twice; the other mapping keeps it. */
		gate = child;
		vma->vm_private_data = child;
		fg_gate_put(child);
	}
	raw_spin_lock_irqsave(&gate->lock, irq);
	gate->vmas++;
	raw_spin_unlock_irqrestore(&gate->lock, irq);
}

static void fg_vm_close(struct vm_area_struct *vma)
{
	struct fg_gate *gate = vma->vm_private_data;
	unsigned long irq;
	bool last;

	raw_spin_lock_irqsave(&gate->lock, irq);
	last = !--gate->vmas;
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	if (last)
		fg_gate_detach(gate);
}

static vm_fault_t fg_vm_fault(struct vm_fault *vmf)
{
	struct fg_gate *gate = vmf->vma->vm_private_data;
	u64 index = (u64)vmf->pgoff * FG_PAGE_UNITS;
	struct fg_unit *unit;
	unsigned long irq;

	if (index >= FORKGATE_UNITS)
		return VM_FAULT_SIGBUS;
	/* Rule 10: with the page comes the slot in it, in whichever of its units. */
	if (gate->inherited / FORKGATE_UNIT_SLOTS / FG_PAGE_UNITS == vmf->pgoff &&
	    fg_unit_inherit(gate, GFP_KERNEL_ACCOUNT))
		return VM_FAULT_OOM;
	for (;;) {
		unit = NULL;
		raw_spin_lock_irqsave(&gate->lock, irq);
		if (index < gate->max_units)
			unit = gate->units[index];
		raw_spin_unlock_irqrestore(&gate->lock, irq);
		if (unit)
			break;
		if (fg_unit_add(gate, index, GFP_KERNEL_ACCOUNT))
			return VM_FAULT_OOM;
	}
	/* The mapping, which a fault holds, keeps its units. */
	get_page(unit->page);
	vmf->page = unit->page;
	return 0;
}

/* A mapping is all or nothing: no munmap or mprotect of a part, */
static int fg_vm_may_split(struct vm_area_struct *vma, unsigned long addr)
{
	return -EINVAL;
}

/* and it stays where it is: slots are known by their address. */
static int fg_vm_mremap(struct vm_area_struct *vma)
{
	return -EINVAL;
}

static const struct vm_operations_struct fg_vm_ops = {
	.open = fg_vm_open,
	.close = fg_vm_close,
	.may_split = fg_vm_may_split,
	.mremap = fg_vm_mremap,
	.fault = fg_vm_fault,
};

/**
 * fg_map - map the gate of the calling process, made if need be
 * @vma: the mapping
 *
 * Context: mmap_lock is held for writing: no other mapping comes or goes.
 * Return: 0, -EINVAL (not shared, an offset, too long), -EPERM (executable),
 * -ENOMEM.
 */
int fg_map(struct vm_area_struct *vma)
{
	struct fg_gate *gate;
	unsigned long irq;

	if (!(vma->vm_flags & VM_SHARED) || vma->vm_pgoff ||
	    vma->vm_end - vma->vm_start > FORKGATE_MAP_SIZE)
		return -EINVAL;
	if (vma->vm_flags & VM_EXEC)
		return -EPERM;

	gate = fg_gate_get(vma->vm_mm);
	if (gate) {
		raw_spin_lock_irqsave(&gate->lock, irq);
		gate->vmas++;
		raw_spin_unlock_irqrestore(&gate->lock, irq);
		fg_gate_put(gate);
	} else {
		gate = fg_gate_alloc(GFP_KERNEL_ACCOUNT);
		if (!gate)
			return -ENOMEM;
		fg_gate_attach(gate, vma->vm_mm);
	}
	vm_flags_set(vma, VM_DONTEXPAND | VM_DONTDUMP);
	vm_flags_clear(vma, VM_MAYEXEC);
	vma->vm_private_data = gate;
	vma->vm_ops = &fg_vm_ops;
	return 0;
}
