// SPDX-License-Identifier: GPL-2.0-only
/*
 * hook-ftrace.c - redirects calls by ftrace_ops (arm64)
 *
 * The only file that knows about ftrace_ops. Must not know which clones are
 * redirected, or what happens to them.
 *
 * arm64 has no kprobes on ftrace sites, and a breakpoint in front of the site
 * would hide redirected clones from function tracers. An ftrace_ops that may
 * set the instruction pointer (IPMODIFY) is what livepatches use; there can be
 * only one of these for a function, so no livepatch overrules the hook. PERMANENT
 * means that kernel.ftrace_enabled=0 fails while the hook is armed.
 *
 * A redirected function is resumed behind its site, which the callback has the
 * address of. There the caller's return address is in its register still, not
 * signed yet where the kernel signs them (PAC). The call is an indirect one to an
 * address that is not the begin of a function: hence __nocfi, and no support for
 * kernels that want a landing pad there (BTI), which only Clang can build.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/ftrace.h>

#include "hook.h"
#include "hook-trial.h"

#ifndef CONFIG_DYNAMIC_FTRACE_WITH_ARGS
#error "forkgate needs a kernel with DYNAMIC_FTRACE_WITH_ARGS, on arm64 6.2 or later"
#endif
#ifdef CONFIG_ARM64_BTI_KERNEL
#error "forkgate does not support kernels with ARM64_BTI_KERNEL"
#endif

#define FG_OPS_FLAGS	(FTRACE_OPS_FL_IPMODIFY | FTRACE_OPS_FL_PERMANENT)

/* Where the functions go on behind their sites; set before a redirection. */
static unsigned long fg_behind_trial;
static unsigned long fg_behind_clone;

static void notrace fg_redirect(unsigned long *behind, unsigned long ip,
				struct ftrace_regs *fregs, void *target)
{
	ip += MCOUNT_INSN_SIZE;
	if (READ_ONCE(*behind) != ip)
		WRITE_ONCE(*behind, ip);
	ftrace_regs_set_instruction_pointer(fregs, (unsigned long)target);
}

static int fg_ops_register(struct ftrace_ops *ops, const char *name)
{
	int ret = register_ftrace_function(ops);

	if (!ret)
		return 0;
	pr_err("cannot redirect %s: %d%s\n", name, ret, ret != -EBUSY ? "" :
	       "; is ftrace switched off, or does a livepatch redirect it?");
	ftrace_free_filter(ops);
	return ret;
}

/*
 * Fails only when ftrace has found its sites damaged and switched itself
 * off. They call on then, and the text of this module has to stay.
 */
static void fg_ops_unregister(struct ftrace_ops *ops)
{
	fg_stay_unless(!unregister_ftrace_function(ops));
	ftrace_free_filter(ops);
}

static void notrace fg_on_trial(unsigned long ip, unsigned long parent_ip,
				struct ftrace_ops *ops,
				struct ftrace_regs *fregs)
{
	fg_redirect(&fg_behind_trial, ip, fregs, fg_trial_target);
}

static struct ftrace_ops fg_trial_ops = {
	.func = fg_on_trial,
	.flags = FG_OPS_FLAGS,
};

/**
 * fg_redirect_trial - redirect fg_trial() to fg_trial_target()
 *
 * Return: 0, or a negative error with the reason in the kernel log.
 */
int fg_redirect_trial(void)
{
	int ret;

	ret = ftrace_set_filter_ip(&fg_trial_ops, (unsigned long)fg_trial, 0, 1);
	if (ret) {
		pr_err("no ftrace site at the entry of the trial function: %d\n",
		       ret);
		return ret;
	}
	return fg_ops_register(&fg_trial_ops, "the trial function");
}

/**
 * fg_restore_trial - end what fg_redirect_trial() began
 */
void fg_restore_trial(void)
{
	fg_ops_unregister(&fg_trial_ops);
}

/**
 * fg_resume_trial - fg_trial() itself, while it is redirected
 * @n: its argument
 *
 * Return: as fg_trial().
 */
int __nocfi fg_resume_trial(int n)
{
	return ((int (*)(int))READ_ONCE(fg_behind_trial))(n);
}

static void notrace fg_on_clone(unsigned long ip, unsigned long parent_ip,
				struct ftrace_ops *ops,
				struct ftrace_regs *fregs)
{
	if (fg_hook_wants((void *)ftrace_regs_get_argument(fregs, 0)))
		fg_redirect(&fg_behind_clone, ip, fregs, fg_clone);
}

static struct ftrace_ops fg_clone_ops = {
	.func = fg_on_clone,
	.flags = FG_OPS_FLAGS,
};

/**
 * fg_redirect_clone - redirect kernel_clone() to fg_clone() where hook.c wants it
 *
 * Return: 0, or a negative error with the reason in the kernel log.
 */
int fg_redirect_clone(void)
{
	unsigned char name[] = "kernel_clone";
	int ret;

	ret = ftrace_set_filter(&fg_clone_ops, name, sizeof(name) - 1, 1);
	if (ret) {
		pr_err("no ftrace site at the entry of kernel_clone: %d\n", ret);
		return ret;
	}
	return fg_ops_register(&fg_clone_ops, "kernel_clone");
}

/**
 * fg_restore_clone - end what fg_redirect_clone() began
 */
void fg_restore_clone(void)
{
	fg_ops_unregister(&fg_clone_ops);
}

/**
 * fg_resume_clone - kernel_clone() itself, while it is redirected
 * @args: its argument
 *
 * Return: as kernel_clone().
 */
pid_t __nocfi fg_resume_clone(struct kernel_clone_args *args)
{
	return ((pid_t (*)(struct kernel_clone_args *))
		READ_ONCE(fg_behind_clone))(args);
}
