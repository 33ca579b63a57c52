// SPDX-License-Identifier: GPL-2.0-only
/*
 * fence.c - F3: the heavy half of an asymmetric fence, as in membarrier(2)
 *
 * The fast paths have a compiler barrier where Dekker's algorithm wants a full
 * one; here every CPU that runs the address space is made to execute it.
 * Must not know about phases beyond which domains are fenced.
 *
 *   closed |= need (F2)			thread: E1 (or L1)
 *   (a) smp_mb()
 *   read mm_cpumask, is_lazy
 *   (b) interrupt: smp_mb() on those CPUs		(b) between two of
 *   scan (F4)					its instructions
 *						E3 (or L3)
 *
 * (b) falls before E1, after E3 or between them. Before: E3 sees `closed`.
 * After or between: E1 is visible to the scan.
 *
 * (a) pairs with the full barrier between the store to mm_cpumask and the
 * return to user mode in switch_mm_irqs_off(), and, for a CPU that leaves the
 * mask, with the atomic operation that clears its bit: a thread of this
 * address space on a CPU that is not in the mask as read here either comes
 * there later and sees `closed`, or has left and its E1 is visible.
 *
 * The same holds for a CPU that is in the mask but lazy, that is, runs a kernel
 * thread or idles on this address space: (a) pairs with smp_mb() after is_lazy
 * is cleared in switch_mm_irqs_off(), or, as that returns earlier for a global
 * ASID, with the drop of the lazy reference in finish_task_switch(). Before
 * is_lazy is set there is the full barrier of the scheduler's lock. The kernel's
 * own shootdowns leave these CPUs alone for the same reason. No other CPU is
 * interrupted before Linux 6.13; since then a bit outlives the thread's run on
 * that CPU. The interrupt clears it, as the kernel's shootdowns do
 * (flush_tlb_func()), so a loop of tickets interrupts a CPU that runs another
 * process once, not each time. What counts is the page table that is loaded: up
 * to 6.12 exec changes active_mm earlier, with interrupts on. Coming back sets
 * the bit again, see (a).
 *
 * A process with one thread has no other CPU to tell: mm_users is one.
 *
 * On x86 the mask is a superset of the CPUs that run the address space. arm64
 * does not keep it. There the CPUs are read from the tasks that have a slot, since
 * no other can be inside: (a) pairs with the barrier in __switch_to(), between the
 * store to on_cpu and the return to user mode. A task that does not run has done E1
 * before its on_cpu was cleared; one that runs and moves before the interrupt comes
 * passes that barrier. Which tasks count in a slot with survivors is not known: for
 * them a grace period of RCU stands in for (b), as each CPU switches or is in the
 * kernel once in it, and interrupts no one. A CPU without a tick (nohz_full) need
 * not: what a survivor there does at that moment can be missed, as it can be when
 * it writes to the slot at the same time as the thread that went on with it. Nor is
 * the child known that vforks ended up with in a nest deeper than FG_NEST_MAX.
 *
 * One fence of a gate at a time, so that many forking threads do not multiply
 * the interrupts; and never a lock that gates share, so that one process
 * cannot slow another (rule 13).
 */

#include <linux/mm_types.h>
#include <linux/rcupdate.h>
#include <linux/smp.h>
#ifdef CONFIG_X86
#include <asm/tlbflush.h>
#endif

#include "compat.h"
#include "gate.h"

/*
 * Take this CPU out of the mask of those that may run an address space if it
 * runs another; interrupts are off.
 */
static void fg_mm_trim(struct mm_struct *mm)
{
#ifdef CONFIG_X86
	if (read_cr3_pa() != __pa(mm->pgd))
		cpumask_clear_cpu(smp_processor_id(), mm_cpumask(mm));
#endif
}

static void fg_fence_cpu(void *mm)
{
	smp_mb();	/* (b) */
	fg_mm_trim(mm);
}

#ifdef CONFIG_X86
static bool fg_fence_needed(int cpu, void *unused)
{
	return !fg_cpu_lazy(cpu);
}

/*
 * May another CPU run the calling process? A thread of it that comes to this CPU,
 * should the caller leave it, has passed the barrier of the switch. Any value that
 * the mask has had since (a) will do, and for each bit another one.
 */
static bool fg_fence_others(void)
{
	unsigned int other;

	if (atomic_read(&current->mm->mm_users) == 1)
		return false;
	/* Set and cleared by other CPUs at any time, see above. */
	other = data_race(cpumask_any_but(mm_cpumask(current->mm),
					  raw_smp_processor_id()));
	return other < nr_cpu_ids;
}

static void fg_fence_cpus(struct fg_gate *gate)
{
	if (!fg_fence_others())
		return;
	on_each_cpu_cond_mask(fg_fence_needed, fg_fence_cpu, current->mm, true,
			      mm_cpumask(current->mm));
	smp_mb();	/* (b), for this CPU and for those left alone */
}
#else
/*
 * The CPUs that run a thread that acts in a unit; gate->lock is held.
 * Return: may others be inside there, too?
 */
static bool fg_unit_cpus(struct fg_unit *unit, struct cpumask *cpus)
{
	struct task_struct *task;
	bool survivors = false;
	struct fg_slot *slot;
	u64 used;

	for (used = unit->used; used; used &= used - 1) {
		slot = unit->slots[__ffs64(used)];
		task = slot->actor ? slot->actor->task : NULL;
		survivors |= slot->survivors;
		/* acquire: its CPU then or, if it has moved, later */
		if (task && smp_load_acquire(&task->on_cpu))
			cpumask_set_cpu(task_cpu(task), cpus);
	}
	return survivors;
}

static bool fg_gate_cpus(struct fg_gate *gate, struct cpumask *cpus)
{
	bool survivors = false;
	u32 index = 0, end, nr;
	unsigned long irq;

	cpumask_clear(cpus);
	do {
		raw_spin_lock_irqsave(&gate->lock, irq);
		/* The slots of a dead gate may be gone. */
		nr = gate->dead ? 0 : gate->nr_units;
		end = min(index + FG_SCAN_BATCH, nr);
		for (; index < end; index++)
			if (gate->units[index])
				survivors |= fg_unit_cpus(gate->units[index],
							  cpus);
		raw_spin_unlock_irqrestore(&gate->lock, irq);
	} while (index < nr);
	return survivors;
}

static void fg_fence_cpus(struct fg_gate *gate)
{
	cpumask_var_t cpus;

	if (atomic_read(&current->mm->mm_users) == 1)
		return;
	/* Some bytes that are free again at once */
	alloc_cpumask_var(&cpus, GFP_KERNEL | __GFP_NOFAIL);
	if (fg_gate_cpus(gate, cpus))
		synchronize_rcu();	/* (b), for survivors */
	on_each_cpu_mask(cpus, fg_fence_cpu, current->mm, true);
	smp_mb();	/* (b), for this CPU and for tasks that did not run */
	free_cpumask_var(cpus);
}
#endif

/*
 * F3: domains that were closed before a fence are to be scanned, unless the gate
 * has opened, and perhaps closed again, meanwhile.
 */
static void fg_fenced(struct fg_gate *gate, u32 domains, u64 opening)
{
	unsigned long irq;
	int d;

	raw_spin_lock_irqsave(&gate->lock, irq);
	for (d = 0; d < FG_NR_DOMAINS; d++) {
		if (opening != gate->openings || !(domains & BIT(d)) ||
		    gate->domains[d].state != FG_DOMAIN_FENCING)
			continue;
		gate->domains[d].state = FG_DOMAIN_SCANNING;
		gate->domains[d].cursor = 0;
	}
	raw_spin_unlock_irqrestore(&gate->lock, irq);
}

/**
 * fg_fence - F3: from here on a scan misses no thread (rule 2)
 * @gate: the gate of the calling process
 * @domains: what fg_phase_unfenced() has said
 * @opening: gate->openings then
 *
 * Context: may sleep, while another thread fences or until a signal comes; the
 * caller looks again afterwards.
 */
void fg_fence(struct fg_gate *gate, u32 domains, u64 opening)
{
	if (!mutex_trylock(&gate->fence_mutex)) {
		if (!mutex_lock_interruptible(&gate->fence_mutex))
			mutex_unlock(&gate->fence_mutex);
		return;
	}
	smp_mb();	/* (a) */
	fg_fence_cpus(gate);
	fg_fenced(gate, domains, opening);
	mutex_unlock(&gate->fence_mutex);
}
