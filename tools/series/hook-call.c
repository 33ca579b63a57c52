// SPDX-License-Identifier: GPL-2.0-only
/*
 * hook-call.c - has kernel_clone() call hook.c, see <linux/fork_gate.h>
 *
 * Must not know which clones are redirected, or what happens to them.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/fork_gate.h>
#include <linux/printk.h>

#include "hook.h"

static const struct fork_gate_ops fg_ops = {
	.wants = fg_hook_wants,
	.clone = fg_clone,
};

/**
 * fg_hook_on - have kernel_clone() call fg_clone() where hook.c wants it
 *
 * Return: 0, or a negative error with the reason in the kernel log.
 */
int fg_hook_on(void)
{
	int ret = fork_gate_register(&fg_ops);

	if (ret)
		pr_err("kernel_clone() has another gate: %d\n", ret);
	return ret;
}

/**
 * fg_hook_off - end what fg_hook_on() began
 */
void fg_hook_off(void)
{
	fork_gate_unregister(&fg_ops);
}

/**
 * fg_hook_is_on - are clones redirected at this moment?
 *
 * Return: true, since nothing switches the call off.
 */
bool fg_hook_is_on(void)
{
	return true;
}

/**
 * fg_resume_clone - kernel_clone() without the gate
 * @args: its argument
 *
 * Return: as kernel_clone().
 */
pid_t fg_resume_clone(struct kernel_clone_args *args)
{
	return fork_gate_go_on(args);
}
