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
#include <linux/kprobes.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/rcupdate.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/workqueue.h>

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

/* Trials for HEALTH: how many have begun and how many are done, what the last one said */
#define FG_TRIAL_POLL	(HZ / 50)	/* jiffies, between two looks at that */

static struct workqueue_struct *fg_trials;
static unsigned int fg_trials_begun, fg_trials_done;
static bool fg_trial_works;

/* Does the kernel itself clone? It has no gate, and no system call to make again. */
static __always_inline bool fg_of_kernel(void)
{
	return !current->mm || (current->flags & PF_KTHREAD);
}

static pid_t fg_resume_user(struct kernel_clone_args *args)
{
	struct fg_clone clone;
	pid_t ret;

	ret = fg_fork_begin(args->flags, &clone);
	if (ret)
		return ret;
	ret = fg_resume_clone(args);
	fg_fork_end(&clone, ret);
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

	if (fg_of_kernel()) {
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
	if (fg_of_kernel())
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
 * kthreadd's, which makes a kernel thread for us, and no second one before the
 * first clone has returned. One at a time: in fg_trial_run(), or before the hook
 * is armed.
 *
 * Return: 0, -EOPNOTSUPP (it does not), or another error (no thread).
 */
static int fg_hook_try(void)
{
	int before = atomic_read(&fg_tried);
	struct task_struct *first, *second;

	WRITE_ONCE(fg_trying, true);
	first = kthread_create(fg_nothing, NULL, "forkgate_trial");
	WRITE_ONCE(fg_trying, false);
	if (IS_ERR(first))
		return PTR_ERR(first);
	second = kthread_create(fg_nothing, NULL, "forkgate_trial");
	kthread_stop(first);	/* It has not run anything of this module. */
	if (IS_ERR(second))
		return PTR_ERR(second);
	kthread_stop(second);
	return atomic_read(&fg_tried) == before ? -EOPNOTSUPP : 0;
}

/* Does the hook still work? The work of fg_trials, one a second at most. */
static void fg_trial_run(struct work_struct *unused)
{
	static unsigned long next = INITIAL_JIFFIES;
	long left = next - jiffies;
	int ret;

	if (left > 0)
		schedule_timeout_idle(left);
	WRITE_ONCE(fg_trials_begun, fg_trials_begun + 1);
	ret = fg_hook_try();
	next = jiffies + HZ;
	fg_step(FG_STEP_TRIAL);
	WRITE_ONCE(fg_trial_works, !ret);
	/* Pairs with the acquire of fg_hook_works(). */
	smp_store_release(&fg_trials_done, fg_trials_begun);
}

static DECLARE_WORK(fg_trial_work, fg_trial_run);

/*
 * Does the hook still work, though a copy bypassed it? A process can make that
 * happen, by mapping the device while it forks. So have a clone sent through it,
 * after this call began, for all who ask meanwhile: they wait for the present one
 * and the next at most. No user does it himself, nor is woken in a queue of
 * users: one whose threads are kept from running would hold up all others.
 */
static bool fg_hook_works(void)
{
	unsigned int before = READ_ONCE(fg_trials_begun);

	if (!READ_ONCE(fg_suspect))
		return true;
	queue_work(fg_trials, &fg_trial_work);
	fg_step(FG_STEP_ASKED);
	/* Pairs with the release of fg_trial_run(). */
	while ((int)(smp_load_acquire(&fg_trials_done) - before) <= 0) {
		schedule_timeout_killable(FG_TRIAL_POLL);
		if (fatal_signal_pending(current))
			return false;
	}
	return READ_ONCE(fg_trial_works);
}

/**
 * fg_trials_init - allow fg_hook_health() to try the hook, once that is armed
 *
 * Return: 0 or -ENOMEM.
 */
int fg_trials_init(void)
{
	fg_trials = alloc_workqueue("forkgate_trials", WQ_UNBOUND, 1);
	return fg_trials ? 0 : -ENOMEM;
}

/**
 * fg_trials_exit - end that; nothing calls fg_hook_health() any more
 */
void fg_trials_exit(void)
{
	destroy_workqueue(fg_trials);
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
		if (ret == -EOPNOTSUPP)
			pr_err("kernel_clone is not redirected: is a BPF program or a livepatch attached to it?\n");
		else
			pr_err("cannot make a thread to try the redirection: %d\n",
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
	/* On their way out: those whose child may take its time hold the module. */
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
