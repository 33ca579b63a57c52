// SPDX-License-Identifier: GPL-2.0-only
/*
 * mm.c - gates: the memory they share with user space, and their lives
 *
 * A gate is born by an address space's first mapping of the device, or copied
 * by a clone, and ends with the last mapping. Must not know the protocol.
 */

#include <linux/hashtable.h>
#include <linux/kprobes.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "compat.h"
#include "gate.h"
#include "trace.h"

static_assert(sizeof(struct forkgate_header) == 128);
static_assert(offsetof(struct forkgate_header, closed) == 64);
static_assert(sizeof(struct forkgate_slot) == FORKGATE_SLOT_SIZE);
static_assert(offsetof(struct forkgate_slot, site) == 8);
static_assert(offsetof(struct forkgate_slot, label) == 24);
static_assert(offsetof(struct forkgate_slot, tid) == 48);
static_assert(PAGE_SIZE == FORKGATE_HEADER_SIZE);
static_assert(FG_SLOTS_PER_PAGE == 64);

/* All gates that are mapped, by mm. Changed under the lock, read under RCU. */
static struct {
	raw_spinlock_t lock;
	DECLARE_HASHTABLE(hash, 10);
} fg_gate_table = {
	.lock = __RAW_SPIN_LOCK_UNLOCKED(fg_gate_table.lock),
};

/**
 * fg_gate_find_rcu - the gate of an address space
 * @mm: the address space
 *
 * Context: in an RCU read-side section, any.
 * Return: it, not referenced, or NULL.
 */
struct fg_gate *fg_gate_find_rcu(struct mm_struct *mm)
{
	struct fg_gate *gate;

	hash_for_each_possible_rcu(fg_gate_table.hash, gate, hash,
				   (unsigned long)mm)
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
 * fg_gates_for_each - visit every mapped gate
 * @fn: called under RCU; must not sleep
 * @arg: passed on
 */
void fg_gates_for_each(void (*fn)(struct fg_gate *gate, void *arg), void *arg)
{
	struct fg_gate *gate;
	int bucket;

	rcu_read_lock();
	hash_for_each_rcu(fg_gate_table.hash, bucket, gate, hash)
		fn(gate, arg);
	rcu_read_unlock();
}

static void fg_gate_free(struct work_struct *work)
{
	struct fg_gate *gate = container_of(to_rcu_work(work), struct fg_gate,
					    free_work);
	int i;

	timer_shutdown_sync(&gate->timer);
	for (i = 0; i < FG_SLOT_PAGES; i++) {
		if (!gate->pages[i])
			continue;
		put_page(gate->pages[i]->page);
		kfree(gate->pages[i]);
	}
	free_page((unsigned long)gate->pages);
	put_page(gate->header_page);
	if (gate->mm)
		mmdrop(gate->mm);
	kfree(gate);
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
		queue_rcu_work(fg_wq, &gate->free_work);
}

static struct fg_gate *fg_gate_alloc(gfp_t gfp)
{
	static struct lock_class_key lock_key;
	struct fg_gate *gate = kzalloc(sizeof(*gate), gfp);

	if (!gate)
		return NULL;
	gate->pages = (void *)get_zeroed_page(gfp);
	if (!gate->pages)
		goto free_gate;
	gate->header_page = alloc_page(gfp | __GFP_ZERO);
	if (!gate->header_page)
		goto free_pages;

	gate->header = page_address(gate->header_page);
	gate->header->abi = FORKGATE_ABI;
	gate->header->slots = FORKGATE_SLOTS;
	refcount_set(&gate->ref, 1);
	INIT_RCU_WORK(&gate->free_work, fg_gate_free);
	raw_spin_lock_init(&gate->lock);
	lockdep_set_class(&gate->lock, &lock_key);
	INIT_LIST_HEAD(&gate->threads);
	INIT_LIST_HEAD(&gate->phase);
	INIT_LIST_HEAD(&gate->queue);
	INIT_LIST_HEAD(&gate->blocked[0]);
	INIT_LIST_HEAD(&gate->blocked[1]);
	INIT_LIST_HEAD(&gate->released);
	timer_setup(&gate->timer, fg_gate_timer, 0);
	mutex_init(&gate->fence_mutex);
	INIT_WORK(&gate->advance, fg_advance);
	gate->policy.patience = 100 * NSEC_PER_MSEC;
	gate->policy.ticket_hold = 100 * NSEC_PER_MSEC;
	gate->policy.timeout = FORKGATE_FOREVER;
	gate->policy.backstop = 10ULL * NSEC_PER_SEC;
	gate->policy.on_timeout = FORKGATE_FAIL;
	return gate;

free_pages:
	free_page((unsigned long)gate->pages);
free_gate:
	kfree(gate);
	return NULL;
}

static struct fg_slot_page *fg_slot_page_alloc(gfp_t gfp)
{
	struct fg_slot_page *page = kzalloc(sizeof(*page), gfp);

	if (!page)
		return NULL;
	page->page = alloc_page(gfp | __GFP_ZERO);
	if (!page->page) {
		kfree(page);
		return NULL;
	}
	page->slots = page_address(page->page);
	return page;
}

/**
 * fg_slot_page - a page of slots, allocated on demand
 * @gate: its gate, referenced or mapped
 * @index: which, below FG_SLOT_PAGES
 *
 * Context: may sleep; charged to the caller's memory cgroup.
 * Return: it, or NULL when there is no memory.
 */
struct fg_slot_page *fg_slot_page(struct fg_gate *gate, u32 index)
{
	struct fg_slot_page *page = READ_ONCE(gate->pages[index]), *old;
	unsigned long irq;

	if (page)
		return page;
	page = fg_slot_page_alloc(GFP_KERNEL_ACCOUNT);
	if (!page)
		return NULL;
	raw_spin_lock_irqsave(&gate->lock, irq);
	old = gate->pages[index];
	if (!old)	/* pairs with the data dependency of readers */
		smp_store_release(&gate->pages[index], page);
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	if (old) {
		put_page(page->page);
		kfree(page);
		page = old;
	}
	return page;
}

/**
 * fg_gate_copy - F1: the gate of a child to be
 * @thr: the forking thread
 * @gfp: how to allocate
 *
 * It is open, has the policy, no forkers, and the forker's slot at the same
 * place, if the forker has one.
 *
 * Return: it, with one reference and no address space yet, or NULL.
 */
struct fg_gate *fg_gate_copy(struct fg_thread *thr, gfp_t gfp)
{
	struct fg_gate *parent = thr->gate, *gate = fg_gate_alloc(gfp);
	struct fg_slot_page *page;
	unsigned long irq;
	u32 index, bit;
	int number;

	if (!gate)
		return NULL;
	raw_spin_lock_irqsave(&parent->lock, irq);
	gate->policy = parent->policy;
	number = parent->dead ? FG_NO_SLOT : thr->slot;
	raw_spin_unlock_irqrestore(&parent->lock, irq);
	if (number == FG_NO_SLOT)
		return gate;

	index = number / FG_SLOTS_PER_PAGE;
	bit = number % FG_SLOTS_PER_PAGE;
	page = fg_slot_page_alloc(gfp);
	if (!page)
		goto fail;
	gate->pages[index] = page;
	gate->heir = fg_thread_alloc(gate, gfp);
	if (!gate->heir)
		goto fail;
	gate->heir->slot = number;
	page->slots[bit] = parent->pages[index]->slots[bit];
	page->slots[bit].outcome = FORKGATE_OUTCOME_NONE;
	page->owner[bit] = gate->heir;
	page->used = BIT_ULL(bit);
	gate->top = number + 1;
	gate->nr_threads = 1;
	return gate;

fail:
	fg_gate_discard(gate);
	return NULL;
}

/* An address space has its first mapping of @gate, whose reference it takes. */
static void fg_gate_attach(struct fg_gate *gate, struct mm_struct *mm)
{
	unsigned long irq;

	mmgrab(mm);
	gate->mm = mm;
	gate->vmas = 1;
	raw_spin_lock_irqsave(&fg_gate_table.lock, irq);
	hash_add_rcu(fg_gate_table.hash, &gate->hash, (unsigned long)mm);
	raw_spin_unlock_irqrestore(&fg_gate_table.lock, irq);
}

/**
 * fg_gate_heir - take the heir of a copied gate
 * @gate: the gate
 *
 * Return: it, with gate->heir's reference, or NULL.
 */
struct fg_thread *fg_gate_heir(struct fg_gate *gate)
{
	struct fg_thread *thr = xchg(&gate->heir, NULL);

	if (thr && gate->bypassed)
		atomic_dec(&fg_copies);
	return thr;
}

/**
 * fg_gate_discard - the end of a gate that has no mapping (any more)
 * @gate: the gate; the reference for being alive is dropped
 */
void fg_gate_discard(struct fg_gate *gate)
{
	struct fg_thread *thr;
	unsigned long irq;

	fg_gate_end(gate);
	thr = fg_gate_heir(gate);
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
	}
	fg_gate_put(gate);
}

static void fg_gate_detach(struct fg_gate *gate)
{
	unsigned long irq;

	raw_spin_lock_irqsave(&fg_gate_table.lock, irq);
	hash_del_rcu(&gate->hash);
	raw_spin_unlock_irqrestore(&fg_gate_table.lock, irq);
	fg_gate_discard(gate);
}

/*
 * A copy reached the mapping although no clone of this thread was let through:
 * the hook was switched off or came too late (rule 14). Nothing can be refused
 * here, so nothing may fail.
 */
static struct fg_gate *fg_gate_bypassed(struct fg_gate *parent)
{
	struct fg_thread *thr = fg_thread_find(current);
	struct fg_thread nobody = { .gate = parent, .slot = FG_NO_SLOT };
	struct fg_gate *gate;
	unsigned long irq;

	gate = fg_gate_copy(thr && thr->gate == parent ? thr : &nobody,
			    GFP_KERNEL | __GFP_NOFAIL);
	gate->header->copy = FORKGATE_COPY_BYPASSED;
	gate->bypassed = true;
	if (gate->heir)
		atomic_inc(&fg_copies);
	raw_spin_lock_irqsave(&parent->lock, irq);
	fg_count(parent, FG_EVENT_BYPASS);
	trace_bypass(parent);
	raw_spin_unlock_irqrestore(&parent->lock, irq);
	fg_hook_bypassed();
	if (thr)
		fg_thread_put(thr);
	return gate;
}

/*
 * Called for the child's mapping while the kernel copies an address space, in
 * the forking thread, and for a mapping that mremap() is about to move.
 */
static void fg_vm_open(struct vm_area_struct *vma)
{
	struct fg_gate *gate = vma->vm_private_data, *child;
	struct fg_thread *thr;
	unsigned long irq;

	if (vma->vm_mm != current->mm) {
		child = fg_gate_get(vma->vm_mm);
		if (!child) {
			thr = fg_thread_find(current);
			if (thr && thr->copying && thr->child) {
				child = thr->child;
				thr->child = NULL;
			} else {
				child = fg_gate_bypassed(gate);
			}
			if (thr)
				fg_thread_put(thr);
			fg_gate_attach(child, vma->vm_mm);
			vma->vm_private_data = child;
			return;
		}
		/* Mapped twice */
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
	struct fg_slot_page *slots;
	struct page *page;

	if (vmf->pgoff == 0) {
		page = gate->header_page;
	} else if (vmf->pgoff <= FG_SLOT_PAGES) {
		slots = fg_slot_page(gate, vmf->pgoff - 1);
		if (!slots)
			return VM_FAULT_OOM;
		page = slots->page;
	} else {
		return VM_FAULT_SIGBUS;
	}
	get_page(page);
	vmf->page = page;
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
 * fg_gate_mmap - maps the gate of the calling process, made if need be
 * @file: the device
 * @vma: the mapping
 *
 * Return: 0, -EINVAL (not shared, an offset, too long), -EPERM (executable),
 * -ENOMEM.
 */
int fg_gate_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct fg_gate *gate;
	unsigned long irq;

	if (!(vma->vm_flags & VM_SHARED) || vma->vm_pgoff ||
	    vma->vm_end - vma->vm_start > FORKGATE_MAP_SIZE)
		return -EINVAL;
	if (vma->vm_flags & VM_EXEC)
		return -EPERM;

	/* mmap_lock is held for writing: no other mapping comes or goes. */
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
