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
 *   read mm_cpumask
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
 * On x86 the mask is a superset of the CPUs that run the address space. Not
 * every architecture keeps it; there, all CPUs are interrupted.
 *
 * One fence of a gate at a time, so that many forking threads do not multiply
 * the interrupts; and never a lock that gates share, so that one process
 * cannot slow another.
 */

#include <linux/mm_types.h>
#include <linux/smp.h>

#include "gate.h"

static void fg_fence_cpu(void *unused)
{
	smp_mb();	/* (b) */
}

/**
 * fg_fence - F3: from here on a scan of @need misses nobody
 * @gate: a gate, referenced
 * @need: domains that the caller's phase has closed
 *
 * gate->fenced says afterwards whether the fence still means something: it
 * does not when the gate opened and closed meanwhile.
 *
 * Context: may sleep.
 * Return: 0, or -EINTR when a signal came first.
 */
int fg_fence(struct fg_gate *gate, u32 need)
{
	unsigned long irq;
	u64 phase;

	if (mutex_lock_interruptible(&gate->fence_mutex))
		return -EINTR;

	raw_spin_lock_irqsave(&gate->lock, irq);
	phase = gate->events[FG_EVENT_PHASE];
	need &= gate->closed & ~gate->fenced;
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	if (!need)
		goto out;

	smp_mb();	/* (a) */
	preempt_disable();
	smp_call_function_many(IS_ENABLED(CONFIG_X86) ? mm_cpumask(gate->mm) :
			       cpu_online_mask, fg_fence_cpu, NULL, true);
	preempt_enable();
	smp_mb();	/* (b), for this CPU */

	raw_spin_lock_irqsave(&gate->lock, irq);
	if (phase == gate->events[FG_EVENT_PHASE])
		gate->fenced |= need & gate->closed;
	raw_spin_unlock_irqrestore(&gate->lock, irq);
out:
	mutex_unlock(&gate->fence_mutex);
	return 0;
}
