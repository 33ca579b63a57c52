// SPDX-License-Identifier: GPL-2.0-only
/*
 * hook.c - the way into the clone path: a kprobe that redirects
 *
 * The only file that knows about kprobes. Towards the rest it is
 * fg_hook_init(), fg_hook_exit(), and calls of fg_fork_begin() and
 * fg_fork_end() around the kernel's clone.
 *
 * A probe handler may not sleep, so it sends the clones of gated processes to
 * fg_clone() by setting the instruction pointer: the stack is as at the entry
 * of kernel_clone(), whose caller therefore calls fg_clone() instead. That
 * resumes kernel_clone() behind its ftrace site by a static call: a patched
 * direct call, because the target has no ENDBR for an indirect one and the
 * function's own is sealed on kernels with IBT. Resuming behind the site also
 * means that the probe is not hit again.
 *
 * There is no post_handler, though books ask for an empty one next to a
 * handler that redirects: ftrace-based probes are never optimised into jumps,
 * and with one in an aggregate the kernel takes the wrong ftrace_ops at disarm.
 *
 * A redirection can be lost: a BPF trampoline or a livepatch may overrule the
 * instruction pointer. So the handler takes nothing; fg_clone() counts itself
 * in flight and refuses unloading by a reference to the module. At unload,
 * synchronize_rcu_tasks() covers the instructions between the handler and the
 * count, and those after it: a task there has not switched voluntarily.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/ftrace.h>
#include <linux/kprobes.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/rcupdate.h>
#include <linux/sched/task.h>
#include <linux/static_call.h>
#include <linux/wait_bit.h>

#include "gate.h"

static DEFINE_PER_CPU(u64, fg_clones);
static DEFINE_PER_CPU(u64, fg_redirects);
static atomic64_t fg_bypasses;
static atomic_t fg_in_flight;
static bool fg_armed;

static pid_t fg_no_clone(struct kernel_clone_args *args)
{
	return -EOPNOTSUPP;
}

DEFINE_STATIC_CALL(fg_resume, fg_no_clone);

/* What the redirected caller of kernel_clone() calls. */
static noinline pid_t fg_clone(struct kernel_clone_args *args)
{
	struct fg_thread *thr;
	bool pinned;
	pid_t ret;

	atomic_inc(&fg_in_flight);
	pinned = try_module_get(THIS_MODULE);
	this_cpu_inc(fg_redirects);

	ret = fg_fork_begin(args->flags, &thr);
	if (!ret) {
		ret = static_call(fg_resume)(args);
		if (thr)
			fg_fork_end(thr, ret);
	}

	if (pinned)
		module_put(THIS_MODULE);
	if (atomic_dec_and_test(&fg_in_flight))
		wake_up_var(&fg_in_flight);
	return ret;
}

static bool fg_is_gated(u64 flags)
{
	bool gated;

	/* Clones that copy nothing and suspend nobody, and the kernel's own */
	if ((flags & CLONE_VM) && (flags & CLONE_FILES) &&
	    !(flags & CLONE_VFORK))
		return false;
	if (!current->mm || (current->flags & PF_KTHREAD))
		return false;
	rcu_read_lock();
	gated = fg_gate_find_rcu(current->mm);
	rcu_read_unlock();
	return gated;
}

NOKPROBE_SYMBOL(fg_is_gated);

static int fg_on_clone(struct kprobe *probe, struct pt_regs *regs)
{
	struct kernel_clone_args *args =
		(void *)regs_get_kernel_argument(regs, 0);

	this_cpu_inc(fg_clones);
	if (!fg_is_gated(args->flags))
		return 0;
	instruction_pointer_set(regs, (unsigned long)fg_clone);
	return 1;
}

NOKPROBE_SYMBOL(fg_on_clone);

static struct kprobe fg_probe = {
	.symbol_name = "kernel_clone",
	.pre_handler = fg_on_clone,
};

/*
 * The proof before arming: the same redirection and resumption on a function
 * of our own. fg_trial(n) is n + 1; redirected, it is fg_trial(2 n) + 100.
 */
static noinline int fg_trial(int n)
{
	barrier();
	return n + 1;
}

static int fg_no_trial(int n)
{
	return -EOPNOTSUPP;
}

DEFINE_STATIC_CALL(fg_trial_resume, fg_no_trial);

static noinline int fg_trial_target(int n)
{
	might_sleep();
	return static_call(fg_trial_resume)(2 * n) + 100;
}

static int fg_on_trial(struct kprobe *probe, struct pt_regs *regs)
{
	instruction_pointer_set(regs, (unsigned long)fg_trial_target);
	return 1;
}

NOKPROBE_SYMBOL(fg_on_trial);

static struct kprobe fg_trial_probe = {
	.addr = (kprobe_opcode_t *)fg_trial,
	.pre_handler = fg_on_trial,
};

/* Where a probed function goes on behind the probe; 0 if it cannot be told. */
static unsigned long fg_behind(struct kprobe *probe)
{
	if (!(probe->flags & KPROBE_FLAG_FTRACE)) {
		pr_err("no ftrace site at the entry of %s\n",
		       probe->symbol_name ?: "the trial function");
		return 0;
	}
	return (unsigned long)probe->addr + MCOUNT_INSN_SIZE;
}

static int fg_hook_prove(void)
{
	/* Through a pointer, so that the compiler knows nothing of the callee */
	int (*trial)(int) = fg_trial;
	unsigned long behind;
	int ret, redirected, plain;

	OPTIMIZER_HIDE_VAR(trial);

	ret = register_kprobe(&fg_trial_probe);
	if (ret) {
		pr_err("cannot probe a function of this module: %d\n", ret);
		return ret;
	}
	behind = fg_behind(&fg_trial_probe);
	if (!behind) {
		unregister_kprobe(&fg_trial_probe);
		return -EOPNOTSUPP;
	}
	static_call_update(fg_trial_resume, (int (*)(int))behind);
	redirected = trial(20);
	unregister_kprobe(&fg_trial_probe);
	plain = trial(20);
	if (redirected != 141 || plain != 21) {
		pr_err("redirecting does not work here (%d, %d): are kprobes or ftrace switched off?\n",
		       redirected, plain);
		return -EOPNOTSUPP;
	}
	return 0;
}

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

/* Does the armed probe fire? Creating a kernel thread is a clone as well. */
static int fg_hook_fires(void)
{
	u64 before = fg_sum(&fg_clones);
	struct task_struct *task = kthread_run(fg_nothing, NULL, "forkgate_trial");

	if (IS_ERR(task))
		return PTR_ERR(task);
	if (fg_sum(&fg_clones) == before) {
		pr_err("the probe on kernel_clone does not fire\n");
		return -EOPNOTSUPP;
	}
	return 0;
}

/**
 * fg_hook_init - prove that redirecting works, then arm
 *
 * Return: 0, or a negative error with the reason in the kernel log.
 */
int fg_hook_init(void)
{
	unsigned long behind;
	int ret;

	ret = fg_hook_prove();
	if (ret)
		return ret;

	ret = register_kprobe(&fg_probe);
	if (ret) {
		pr_err("cannot probe kernel_clone: %d\n", ret);
		return ret;
	}
	behind = fg_behind(&fg_probe);
	ret = -EOPNOTSUPP;
	if (!behind)
		goto unregister;
	/* No gate can exist yet, so nothing was redirected before this. */
	static_call_update(fg_resume,
			   (pid_t (*)(struct kernel_clone_args *))behind);
	ret = fg_hook_fires();
	if (ret)
		goto unregister;
	WRITE_ONCE(fg_armed, true);
	return 0;

unregister:
	fg_hook_exit();
	return ret;
}

/**
 * fg_hook_exit - disarm, and wait until no task runs what was redirected
 */
void fg_hook_exit(void)
{
	WRITE_ONCE(fg_armed, false);
	unregister_kprobe(&fg_probe);
	synchronize_rcu_tasks();
	wait_var_event(&fg_in_flight, !atomic_read(&fg_in_flight));
	synchronize_rcu_tasks();
}

/**
 * fg_hook_bypassed - a copy was seen that had not passed the hook
 */
void fg_hook_bypassed(void)
{
	atomic64_inc(&fg_bypasses);
	pr_warn_ratelimited("%s[%d]: its memory was copied without passing the gate; are kprobes or ftrace switched off?\n",
			    current->comm, task_pid_nr(current));
}

/**
 * fg_hook_health - HEALTH
 * @health: filled in
 */
void fg_hook_health(struct forkgate_health *health)
{
	health->armed = READ_ONCE(fg_armed);
	health->clones = fg_sum(&fg_clones);
	health->redirects = fg_sum(&fg_redirects);
	health->bypasses = atomic64_read(&fg_bypasses);
}
