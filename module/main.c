// SPDX-License-Identifier: GPL-2.0-only
/*
 * main.c - loading and unloading, in order
 *
 * Loaded means: proved to work (hook.c), then armed, then reachable. Unloading
 * is the reverse; it is refused by the module's reference count while a file
 * is open or mapped, or a redirected clone is under way.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/module.h>

#include "gate.h"

struct workqueue_struct *fg_wq;

static int __init fg_init(void)
{
	int ret;

	fg_wq = alloc_workqueue("forkgate", WQ_UNBOUND, 0);
	if (!fg_wq)
		return -ENOMEM;
	fg_blame_init();
	ret = fg_lifecycle_init();
	if (ret)
		goto destroy_wq;
	ret = fg_hook_init();
	if (ret)
		goto exit_lifecycle;
	ret = fg_device_init();
	if (ret)
		goto exit_hook;
	return 0;

exit_hook:
	fg_hook_exit();
exit_lifecycle:
	fg_lifecycle_exit();
destroy_wq:
	fg_blame_exit();
	rcu_barrier();
	destroy_workqueue(fg_wq);
	return ret;
}

static void __exit fg_exit(void)
{
	fg_device_exit();
	fg_hook_exit();
	fg_lifecycle_exit();
	fg_blame_exit();
	/* Gates on their way: tickets brought on, a grace period, then work */
	flush_workqueue(fg_wq);
	rcu_barrier();
	destroy_workqueue(fg_wq);
}

module_init(fg_init);
module_exit(fg_exit);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Fork gate: fork() waits for fork-safe sections");
MODULE_AUTHOR("The forkgate developers");
