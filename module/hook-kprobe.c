// SPDX-License-Identifier: GPL-2.0-only
/*
 * hook-kprobe.c - redirects calls by kprobes on ftrace sites (x86)
 *
 * The only file that knows about kprobes. Must not know which clones are
 * redirected, or what happens to them.
 *
 * A redirected function is resumed behind its ftrace site by a static call: a
 * patched direct call, because the target has no ENDBR for an indirect one and
 * the function's own is sealed on kernels with IBT.
 *
 * There is no post_handler, though books ask for an empty one next to a
 * handler that redirects: ftrace-based probes are never optimised into jumps,
 * and with one in an aggregate the kernel takes the wrong ftrace_ops at disarm.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/ftrace.h>
#include <linux/kprobes.h>
#include <linux/static_call.h>

#include "hook.h"
#include "hook-trial.h"

#if !defined(CONFIG_KPROBES_ON_FTRACE) || !defined(CONFIG_DYNAMIC_FTRACE_WITH_REGS)
#error "forkgate needs a kernel with KPROBES_ON_FTRACE and DYNAMIC_FTRACE_WITH_REGS"
#endif

/*
 * The kernel can end a probe only with memory for the list of sites that
 * are left, and while ftrace has not switched itself off. If not, it clears the
 * address; the handler is called on, and the text of this module has to stay.
 */
static void fg_unregister(struct kprobe *probe)
{
	unregister_kprobe(probe);
	fg_stay_unless(probe->addr);
}

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

static int fg_no_trial(int n)
{
	return -EOPNOTSUPP;
}

DEFINE_STATIC_CALL(fg_behind_trial, fg_no_trial);

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

/**
 * fg_redirect_trial - redirect fg_trial() to fg_trial_target()
 *
 * Return: 0, or a negative error with the reason in the kernel log.
 */
int fg_redirect_trial(void)
{
	unsigned long behind;
	int ret;

	ret = register_kprobe(&fg_trial_probe);
	if (ret) {
		pr_err("cannot probe a function of this module: %d\n", ret);
		return ret;
	}
	behind = fg_behind(&fg_trial_probe);
	if (!behind) {
		fg_restore_trial();
		return -EOPNOTSUPP;
	}
	static_call_update(fg_behind_trial, (int (*)(int))behind);
	return 0;
}

/**
 * fg_restore_trial - end what fg_redirect_trial() began
 */
void fg_restore_trial(void)
{
	fg_unregister(&fg_trial_probe);
}

/**
 * fg_resume_trial - fg_trial() itself, while it is redirected
 * @n: its argument
 *
 * A function of its own, so that the call is a jump: patching a call to an
 * address that is not the begin of a function warns on machines that count the
 * depth of calls (retbleed=stuff).
 *
 * Return: as fg_trial().
 */
noinline int fg_resume_trial(int n)
{
	return static_call(fg_behind_trial)(n);
}

static pid_t fg_no_clone(struct kernel_clone_args *args)
{
	return -EOPNOTSUPP;
}

DEFINE_STATIC_CALL(fg_behind_clone, fg_no_clone);

static int fg_on_clone(struct kprobe *probe, struct pt_regs *regs)
{
	if (!fg_hook_wants((void *)regs_get_kernel_argument(regs, 0)))
		return 0;
	instruction_pointer_set(regs, (unsigned long)fg_clone);
	return 1;
}

NOKPROBE_SYMBOL(fg_on_clone);

static struct kprobe fg_probe = {
	.symbol_name = "kernel_clone",
	.pre_handler = fg_on_clone,
};

/**
 * fg_redirect_clone - redirect kernel_clone() to fg_clone() where hook.c wants it
 *
 * Return: 0, or a negative error with the reason in the kernel log.
 */
int fg_redirect_clone(void)
{
	unsigned long behind;
	int ret;

	ret = register_kprobe(&fg_probe);
	if (ret) {
		pr_err("cannot probe kernel_clone: %d\n", ret);
		return ret;
	}
	behind = fg_behind(&fg_probe);
	if (!behind) {
		fg_restore_clone();
		return -EOPNOTSUPP;
	}
	/* No gate can exist yet, so nothing was redirected before this. */
	static_call_update(fg_behind_clone,
			   (pid_t (*)(struct kernel_clone_args *))behind);
	return 0;
}

/**
 * fg_restore_clone - end what fg_redirect_clone() began
 */
void fg_restore_clone(void)
{
	fg_unregister(&fg_probe);
}

/**
 * fg_resume_clone - kernel_clone() itself, while it is redirected
 * @args: its argument
 *
 * A function of its own for the reason given at fg_resume_trial().
 *
 * Return: as kernel_clone().
 */
noinline pid_t fg_resume_clone(struct kernel_clone_args *args)
{
	return static_call(fg_behind_clone)(args);
}
