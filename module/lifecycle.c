// SPDX-License-Identifier: GPL-2.0-only
/*
 * lifecycle.c - what happens to tasks: fork, exec and exit
 *
 * Tracepoints of the scheduler, which neither kprobes nor ftrace switches can
 * silence. Their handlers must not sleep: most kernels call them with preemption
 * off. Must not decide who waits.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/sched.h>
#include <linux/tracepoint.h>
#include <trace/events/sched.h>
#include <trace/events/task.h>

#include "compat.h"
#include "gate.h"
#include "trace.h"

/*
 * Rule 14: descriptors of a gated process were copied, by a clone that shares
 * memory, without the hook. Copied memory is noticed by the mapping (map.c).
 */
static void fg_files_bypassed(struct fg_gate *gate, struct fg_thread *thr)
{
	const struct fg_blame blame = {};
	unsigned long irq;

	raw_spin_lock_irqsave(&gate->lock, irq);
	fg_count(gate, FG_EVENT_BYPASS);
	trace_bypass(gate);
	if (thr && fg_thread_gate(thr) != gate)
		thr = NULL;
	if (thr && !gate->dead)
		fg_report_later(gate, thr, &blame, true);
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	if (thr)
		fg_outcome(gate, thr, FORKGATE_OUTCOME_BYPASSED);
	fg_hook_bypassed();
}

/*
 * Rule 10: the copied gate of a child, if it has one, learns which task its
 * thread is; whatever became of the parent's gate meanwhile.
 */
static void fg_child_born(struct task_struct *child)
{
	struct fg_gate *gate = child->mm ? fg_gate_get(child->mm) : NULL;
	struct fg_thread *heir;

	if (!gate)
		return;
	heir = xchg(&gate->heir, NULL);
	if (heir)
		fg_thread_adopt(heir, child);
	fg_gate_put(gate);
}

/* A clone that shares memory did not come through the hook. */
static void fg_unhooked_fork(struct fg_thread *thr, struct task_struct *parent,
			     struct task_struct *child)
{
	struct fg_gate *gate;

	if (!child->files || child->files == parent->files)
		return;
	gate = fg_gate_get(parent->mm);
	if (!gate)
		return;
	fg_files_bypassed(gate, thr);
	fg_gate_put(gate);
}

/* A clone while a file of the device is open */
static noinline void fg_forked(struct task_struct *parent,
			       struct task_struct *child)
{
	struct fg_clone *clone;
	struct fg_thread *thr;

	if (!parent->mm || (parent->flags & PF_KTHREAD))
		return;
	if (child->mm != parent->mm)
		fg_child_born(child);
	thr = fg_thread_find(parent);
	clone = thr ? thr->clone : NULL;
	/* Rule 2: it opens with the copy, not when a vfork child execs. */
	if (clone && ((clone->flags & CLONE_VFORK) || parent->ptrace))
		fg_fork_copied(clone, child);
	else if (!clone && child->mm == parent->mm)
		fg_unhooked_fork(thr, parent, child);
	if (thr)
		fg_thread_put(thr);
}

/*
 * A clone succeeded and its child is about to run for the first time: the copy
 * is complete. While no file of the device is open this costs one test.
 */
static void fg_on_fork(void *unused, struct task_struct *parent,
		       struct task_struct *child)
{
	if (atomic_read(&fg_nr_files))
		fg_forked(parent, child);
}

/*
 * Rule 9: the task has a new address space, others may still use the old one.
 * An exec names the task right after it has changed the address space, long
 * before sched_process_exec. A rename by prctl() changes nothing.
 */
static void fg_on_rename(void *unused, struct task_struct *task,
			 const char *comm)
{
	struct fg_thread *thr;

	if (!atomic_read(&fg_nr_files) || task != current)
		return;
	thr = fg_thread_find(task);
	if (!thr)
		return;
	if (task->mm != fg_thread_gate(thr)->mm)
		fg_thread_unlink(thr, true);
	fg_thread_put(thr);
}

/* Rule 9 */
static void fg_on_exit(FG_ON_EXIT_ARGS)
{
	struct fg_thread *thr;

	if (!atomic_read(&fg_nr_files))
		return;
	thr = fg_thread_find(task);
	if (!thr)
		return;
	fg_step(FG_STEP_EXIT);
	fg_thread_unlink(thr, true);
	fg_thread_put(thr);
}

static struct {
	const char *name;
	void *handler;
	struct tracepoint *tp;
} fg_hooks[] = {
	{ "sched_process_fork", fg_on_fork },
	{ "task_rename", fg_on_rename },
	{ "sched_process_exit", fg_on_exit },
};

static void fg_find_tracepoint(struct tracepoint *tp, void *unused)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(fg_hooks); i++)
		if (!strcmp(tp->name, fg_hooks[i].name))
			fg_hooks[i].tp = tp;
}

static void fg_detach(int n)
{
	while (n--)
		tracepoint_probe_unregister(fg_hooks[n].tp, fg_hooks[n].handler,
					    NULL);
	tracepoint_synchronize_unregister();
}

/**
 * fg_lifecycle_init - attach to forks, execs and exits
 *
 * Return: 0, or -ENOENT when this kernel lacks a tracepoint.
 */
int fg_lifecycle_init(void)
{
	int i, ret;

	/* A handler of another type is a trap where the compiler checks calls (kCFI). */
	check_trace_callback_type_sched_process_fork(fg_on_fork);
	check_trace_callback_type_task_rename(fg_on_rename);
	check_trace_callback_type_sched_process_exit(fg_on_exit);

	for_each_kernel_tracepoint(fg_find_tracepoint, NULL);
	for (i = 0; i < ARRAY_SIZE(fg_hooks); i++) {
		ret = fg_hooks[i].tp ?
		      tracepoint_probe_register(fg_hooks[i].tp,
						fg_hooks[i].handler, NULL) :
		      -ENOENT;
		if (ret) {
			pr_err("cannot attach to tracepoint %s: %d\n",
			       fg_hooks[i].name, ret);
			fg_detach(i);
			return ret;
		}
	}
	return 0;
}

/**
 * fg_lifecycle_exit - detach, and wait for handlers that run
 */
void fg_lifecycle_exit(void)
{
	fg_detach(ARRAY_SIZE(fg_hooks));
}
