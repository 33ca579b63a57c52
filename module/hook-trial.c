// SPDX-License-Identifier: GPL-2.0-only
/*
 * hook-trial.c - the proof, on a function of the module's own, that calls can be
 * redirected here
 *
 * For backends that redirect by setting the instruction pointer, as hook-kprobe.c
 * and hook-ftrace.c do, which somebody can switch off. At the entry of a function
 * the stack is as its caller left it, who therefore calls the target instead.
 * What it resumes goes on behind the place of the hook, which is not hit again.
 * Must not know which clones are redirected.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/compiler.h>
#include <linux/delay.h>
#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/printk.h>

#include "hook.h"
#include "hook-trial.h"

/**
 * fg_trial - what the proof redirects, before the hook is armed
 * @n: a number
 *
 * Return: @n + 1; redirected to fg_trial_target(), 2 * @n + 101.
 */
noinline int fg_trial(int n)
{
	barrier();
	return n + 1;
}

/**
 * fg_trial_target - where fg_trial() is redirected to
 * @n: its argument
 *
 * Return: see fg_trial().
 */
noinline int fg_trial_target(int n)
{
	might_sleep();
	return fg_resume_trial(2 * n) + 100;
}

/**
 * fg_stay_unless - what a backend calls after it has ended a redirection
 * @ended: whether the kernel could do that
 *
 * If not, calls are still redirected, and the text of this module has to stay
 * (rule 15): does not return.
 */
void fg_stay_unless(bool ended)
{
	if (!ended)
		pr_crit("cannot end a redirection; the module stays until the next boot\n");
	while (!ended)
		ssleep(1);
}

/* Is the trial function redirected at this moment? */
static bool fg_trial_redirects(void)
{
	/* Through a pointer, so that the compiler knows nothing of the callee */
	int (*trial)(int) = fg_trial;

	OPTIMIZER_HIDE_VAR(trial);
	return trial(20) == 141;
}

/*
 * Rule 14: the proof before arming. The trial function stays redirected: what it does
 * says later whether the hook is switched on.
 */
static int fg_trial_prove(void)
{
	int ret;

	ret = fg_redirect_trial();
	if (ret)
		return ret;
	if (fg_trial_redirects())
		return 0;
	pr_err("redirecting does not work here: are kprobes or ftrace switched off?\n");
	fg_restore_trial();
	return -EOPNOTSUPP;
}

/**
 * fg_hook_on - prove that redirecting works, then redirect kernel_clone()
 *
 * Return: 0, or a negative error with the reason in the kernel log.
 */
int fg_hook_on(void)
{
	int ret;

	ret = fg_trial_prove();
	if (ret)
		return ret;
	ret = fg_redirect_clone();
	if (ret)
		fg_restore_trial();
	return ret;
}

/**
 * fg_hook_off - end what fg_hook_on() began
 */
void fg_hook_off(void)
{
	fg_restore_clone();
	fg_restore_trial();
}

/**
 * fg_hook_is_on - is redirecting switched on at this moment? (rule 14)
 *
 * Return: whether the trial function, and so kernel_clone(), is redirected.
 */
bool fg_hook_is_on(void)
{
	return fg_trial_redirects();
}
