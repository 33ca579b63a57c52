// SPDX-License-Identifier: GPL-2.0-only
/*
 * hook.c - the way into the clone path: which clones are redirected, and where to
 *
 * Towards the rest it is fg_hook_init(), fg_hook_exit(), and calls of
 * fg_fork_begin() and fg_fork_end() around the kernel's clone. How a call is
 * redirected depends on the machine and is up to the backend, see hook.h: this
 * file must not know about kprobes or ftrace.
 *
 * What is called at the entry of kernel_clone() may not sleep, so the backend
 * sends the clones of gated processes to fg_clone(), which takes the place of
 * kernel_clone(); fg_resume_clone() is the kernel's own, past the hook.
 *
 * A redirection can be lost: a BPF trampoline or a livepatch may overrule the
 * instruction pointer. So the backend takes nothing; fg_clone() counts itself
 * in flight, and its gate's mapping holds the module, or what fg_gate_end() took
 * for it. No word that processes share is written on the way. At unload,
 * synchronize_rcu_tasks() covers the instructions between the redirection and the
 * count, and those after it: a task there has not switched voluntarily.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/iopoll.h>
#include <linux/kprobes.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/rcupdate.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>

#include "gate.h"
#include "hook.h"

static DEFINE_PER_CPU(u64, fg_clones);
static DEFINE_PER_CPU(u64, fg_redirects);
/* Redirected clones under way; the sum counts, a clone may end on another CPU. */
static DEFINE_PER_CPU(u64, fg_in_flight);
static atomic64_t fg_bypasses;
static bool fg_armed;

/* A copy has bypassed the hook since a clone last came through it. */
static bool fg_suspect;

/* During a trial clones by kthreadd are redirected; how many came back */
static bool fg_trying;
static atomic_t fg_tried;
static DEFINE_MUTEX(fg_trial_mutex);

/*
 * A clone that comes back has to find the module. Its gate sees to that; one
 * without a gate any more holds the module itself.
 */
static pid_t fg_resume_user(struct kernel_clone_args *args)
{
	struct fg_clone clone;
	pid_t ret;

	ret = fg_fork_begin(args->flags, &clone);
	if (!ret && clone.thr) {
		ret = fg_resume_clone(args);
		fg_fork_end(&clone, ret);
	} else if (!ret) {
		if (!clone.pinned)
			clone.pinned = try_module_get(THIS_MODULE);
		ret = fg_resume_clone(args);
	}
	if (clone.pinned)
		module_put(THIS_MODULE);
	return ret;
}

/**
 * fg_clone - what the redirected caller of kernel_clone() calls
 * @args: its argument
 *
 * Return: as kernel_clone().
 */
noinline pid_t fg_clone(struct kernel_clone_args *args)
{
	pid_t ret;

	this_cpu_inc(fg_in_flight);
	this_cpu_inc(fg_redirects);
	if (READ_ONCE(fg_suspect))
		WRITE_ONCE(fg_suspect, false);

	if (current->flags & PF_KTHREAD) {
		ret = fg_resume_clone(args);
		atomic_inc(&fg_tried);
	} else {
		ret = fg_resume_user(args);
	}

	/* Rule 15: the last access; synchronize_rcu_tasks() covers the rest. */
	this_cpu_dec(fg_in_flight);
	return ret;
}

static bool fg_is_gated(u64 flags)
{
	bool gated;

	/* Without an open file of the device clones look no further. */
	if (!atomic_read(&fg_nr_files) && !READ_ONCE(fg_trying))
		return false;
	/* The kernel's own */
	if (!current->mm || (current->flags & PF_KTHREAD))
		return READ_ONCE(fg_trying);
	/* Rule 1: thread creation copies nothing and suspends no thread. */
	if ((flags & CLONE_VM) && (flags & CLONE_FILES) &&
	    !(flags & CLONE_VFORK))
		return false;
	rcu_read_lock();
	gated = fg_gate_find_rcu(current->mm);
	rcu_read_unlock();
	return gated;
}

NOKPROBE_SYMBOL(fg_is_gated);

/**
 * fg_hook_wants - is this clone to be redirected?
 * @args: the argument of kernel_clone()
 *
 * Context: at the entry of kernel_clone(); must not sleep.
 * Return: whether the backend sends its caller to fg_clone().
 */
bool fg_hook_wants(struct kernel_clone_args *args)
{
	this_cpu_inc(fg_clones);
	return fg_is_gated(args->flags);
}

NOKPROBE_SYMBOL(fg_hook_wants);

static int fg_nothing(void *unused)
{
	return 0;
}

static u64 fg_sum(u64 __percpu *counter)
{
	u64 sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += READ_ONCE(*per_cpu_ptr(counter, cpu));
	return sum;
}

/*
 * Rule 14: one real clone passes through the redirection and comes back. It is
 * kthreadd's, which creates a kernel thread for us. fg_trial_mutex is held, or
 * the module is not loaded yet.
 *
 * Return: 0, -EOPNOTSUPP (it does not), or another error (no thread).
 */
static int fg_hook_try(void)
{
	int before = atomic_read(&fg_tried), tried;
	struct task_struct *task;

	WRITE_ONCE(fg_trying, true);
	task = kthread_create(fg_nothing, NULL, "forkgate_trial");
	/* The thread may be there before the clone has returned. */
	if (!IS_ERR(task))
		read_poll_timeout(atomic_read, tried, tried != before, 100,
				  USEC_PER_SEC, false, &fg_tried);
	WRITE_ONCE(fg_trying, false);
	if (IS_ERR(task))
		return PTR_ERR(task);
	kthread_stop(task);	/* It has not run anything of this module. */
	return atomic_read(&fg_tried) == before ? -EOPNOTSUPP : 0;
}

/*
 * Does the hook still work, though a copy bypassed it? A process can make that
 * happen, by mapping the device while it forks. So send a clone through it; if
 * it arrives, that settles it. One a second at most, for all who have asked
 * before it began: no one waits for more than the present one and the next.
 */
static bool fg_hook_works(void)
{
	static unsigned long next = INITIAL_JIFFIES;
	static unsigned int begun, done;
	static bool works;
	unsigned int before = READ_ONCE(begun);
	bool answered;
	long left;
	int ret;

	if (!READ_ONCE(fg_suspect))
		return true;
	if (mutex_lock_killable(&fg_trial_mutex))
		return false;
	left = next - jiffies;
	if ((int)(done - before) <= 0 && left > 0)
		schedule_timeout_killable(left);
	if ((int)(done - before) <= 0 && !fatal_signal_pending(current)) {
		WRITE_ONCE(begun, begun + 1);
		ret = fg_hook_try();
		/* That no thread could be made says nothing to others. */
		if (!ret || ret == -EOPNOTSUPP) {
			works = !ret;
			done = begun;
			next = jiffies + HZ;
		}
		fg_step(FG_STEP_TRIAL);
	}
	answered = (int)(done - before) > 0 && works;
	mutex_unlock(&fg_trial_mutex);
	return answered;
}

/**
 * fg_hook_init - redirect, see that a clone comes through, then arm
 *
 * Return: 0, or a negative error with the reason in the kernel log.
 */
int fg_hook_init(void)
{
	int ret;

	ret = fg_hook_on();
	if (ret)
		return ret;
	ret = fg_hook_try();
	if (ret) {
		pr_err("kernel_clone is not redirected (%d): is a BPF program or a livepatch attached to it?\n",
		       ret);
		fg_hook_exit();
		return ret;
	}
	WRITE_ONCE(fg_armed, true);
	return 0;
}

/**
 * fg_hook_exit - disarm, and wait for tasks in what was redirected (rule 15)
 */
void fg_hook_exit(void)
{
	WRITE_ONCE(fg_armed, false);
	fg_hook_off();
	synchronize_rcu_tasks();
	/* A vfork that came too late for a reference may take its time. */
	while (fg_sum(&fg_in_flight))
		msleep(20);
	synchronize_rcu_tasks();
}

/**
 * fg_hook_bypassed - a copy was seen that had not passed the hook (rule 14)
 *
 * Context: any.
 */
void fg_hook_bypassed(void)
{
	atomic64_inc(&fg_bypasses);
	WRITE_ONCE(fg_suspect, true);
}

/**
 * fg_hook_health - HEALTH: what is true at this moment (rule 14)
 * @health: filled in
 *
 * Context: may sleep.
 */
void fg_hook_health(struct forkgate_health *health)
{
	health->armed = READ_ONCE(fg_armed) && fg_hook_is_on() &&
			fg_hook_works();
	health->clones = fg_sum(&fg_clones);
	health->redirects = fg_sum(&fg_redirects);
	health->bypasses = atomic64_read(&fg_bypasses);
}
