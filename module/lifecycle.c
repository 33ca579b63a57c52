// SPDX-License-Identifier: GPL-2.0-only
/*
 * lifecycle.c - what happens to tasks: fork, exec and exit
 *
 * Tracepoints of the scheduler, which neither kprobes nor ftrace switches can
 * silence. Their handlers run with preemption off and must not sleep. Must not
 * decide who waits.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/sched.h>
#include <linux/tracepoint.h>

#include "gate.h"

/*
 * A clone succeeded and its child is about to run for the first time: the copy
 * is complete. Most clones of the machine leave at the first test.
 */
static void fg_on_fork(void *unused, struct task_struct *parent,
		       struct task_struct *child)
{
	struct fg_thread *thr, *heir = NULL;
	struct fg_gate *gate;

	if (!atomic_read(&fg_copies))
		return;

	thr = fg_thread_find(parent);
	if (child->mm && child->mm != parent->mm) {
		rcu_read_lock();
		gate = fg_gate_find_rcu(child->mm);
		if (gate)
			heir = fg_gate_heir(gate);
		rcu_read_unlock();
		if (heir)
			fg_thread_adopt(heir, child);
	} else if (thr && thr->copying && thr->alias) {
		fg_thread_stand_in(thr, thr->alias, child);
	}
	if (thr) {
		if (thr->copying && (thr->vfork || parent->ptrace))
			fg_fork_copied(thr);
		fg_thread_put(thr);
	}
}

static void fg_task_gone(struct task_struct *task)
{
	struct fg_thread *thr = fg_thread_find(task);

	if (thr) {
		fg_step(FG_STEP_EXIT);
		fg_thread_unlink(thr, true);
		fg_thread_put(thr);
	}
}

/* The task has a new address space, others may still use the old one. */
static void fg_on_exec(void *unused, struct task_struct *task, pid_t old_pid,
		       struct linux_binprm *bprm)
{
	fg_task_gone(task);
}

static void fg_on_exit(void *unused, struct task_struct *task)
{
	fg_task_gone(task);
}

static struct {
	const char *name;
	void *handler;
	struct tracepoint *tp;
} fg_hooks[] = {
	{ "sched_process_fork", fg_on_fork },
	{ "sched_process_exec", fg_on_exec },
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
 * fg_lifecycle_init - hear of forks, execs and exits
 *
 * Return: 0, or -ENOENT when this kernel lacks a tracepoint.
 */
int fg_lifecycle_init(void)
{
	int i, ret;

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
 * fg_lifecycle_exit - hear no more
 */
void fg_lifecycle_exit(void)
{
	fg_detach(ARRAY_SIZE(fg_hooks));
}
