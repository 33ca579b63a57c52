// SPDX-License-Identifier: GPL-2.0-only
/*
 * main.c - loading and unloading, in order
 *
 * Loaded means: proved to work (hook.c), then armed, then reachable. Unloading
 * is the reverse (rule 15); it is refused by the module's reference count while
 * a file is open or mapped, or a redirected clone is under way.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/module.h>
#include <linux/rcupdate.h>

#include "gate.h"
#include "version.h"

static int __init fg_init(void)
{
	int ret;

	ret = fg_gates_init();
	if (ret)
		return ret;
	ret = fg_threads_init();
	if (ret)
		goto exit_gates;
	ret = fg_units_init();
	if (ret)
		goto exit_threads;
	ret = fg_trials_init();
	if (ret)
		goto exit_units;
	ret = fg_lifecycle_init();
	if (ret)
		goto exit_trials;
	ret = fg_hook_init();
	if (ret)
		goto exit_lifecycle;
	ret = fg_device_init();
	if (ret)
		goto exit_hook;
	/* From here on files are opened, so the module must not fail to load. */
	fg_debugfs_init();
	return 0;

exit_hook:
	fg_hook_exit();
exit_lifecycle:
	fg_lifecycle_exit();
exit_trials:
	fg_trials_exit();
exit_units:
	rcu_barrier();
	fg_units_exit();
exit_threads:
	fg_threads_exit();
exit_gates:
	fg_gates_exit();
	return ret;
}

static void __exit fg_exit(void)
{
	fg_step_exit();
	fg_device_exit();
	fg_hook_exit();
	fg_lifecycle_exit();
	fg_debugfs_exit();
	fg_trials_exit();
	/* A timer that still runs, then threads whose grace period is not over */
	synchronize_rcu();
	rcu_barrier();
	/* Those free the gates. */
	rcu_barrier();
	fg_units_exit();
	fg_threads_exit();
	fg_gates_exit();
}

module_init(fg_init);
module_exit(fg_exit);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Fork gate: fork() waits for fork-safe sections");
MODULE_AUTHOR("The forkgate developers");
MODULE_VERSION(FG_VERSION);
