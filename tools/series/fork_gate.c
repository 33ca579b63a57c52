// SPDX-License-Identifier: GPL-2.0-only
/*
 * A place in kernel_clone() where one driver may hold clones back. While there
 * is no driver, a clone executes one jump that is patched out, and a call.
 *
 * ops->wants() runs in an RCU read-side critical section; ops->clone() sleeps, so
 * it runs outside of one and needs no reference: a task between the two has not
 * switched voluntarily, which is what synchronize_rcu_tasks() waits for.
 */

#include <linux/errno.h>
#include <linux/export.h>
#include <linux/fork_gate.h>
#include <linux/jump_label.h>
#include <linux/mutex.h>
#include <linux/rcupdate.h>
#include <linux/sched/task.h>

static DEFINE_STATIC_KEY_FALSE(fork_gate_key);

/* Written under fork_gate_mutex, read under RCU */
static const struct fork_gate_ops __rcu *fork_gate_ops;
static DEFINE_MUTEX(fork_gate_mutex);

static pid_t fork_gate_clone(struct kernel_clone_args *args)
{
	pid_t (*clone)(struct kernel_clone_args *args) = NULL;
	const struct fork_gate_ops *ops;

	rcu_read_lock();
	ops = rcu_dereference(fork_gate_ops);
	if (ops && ops->wants(args))
		clone = ops->clone;
	rcu_read_unlock();
	return clone ? clone(args) : kernel_clone_ungated(args);
}

/* The main fork routine, which is in fork.c, unless a gate holds it back */
pid_t kernel_clone(struct kernel_clone_args *args)
{
	if (static_branch_unlikely(&fork_gate_key))
		return fork_gate_clone(args);
	return kernel_clone_ungated(args);
}

/**
 * fork_gate_go_on - make the clone that the gate was called for
 * @args: its arguments
 *
 * For ops->clone() alone.
 *
 * Return: as kernel_clone().
 */
pid_t fork_gate_go_on(struct kernel_clone_args *args)
{
	return kernel_clone_ungated(args);
}
EXPORT_SYMBOL_GPL(fork_gate_go_on);

/**
 * fork_gate_register - let clones go through a gate
 * @ops: what it does with them
 *
 * Context: may sleep.
 * Return: 0, or -EBUSY when there is a gate already.
 */
int fork_gate_register(const struct fork_gate_ops *ops)
{
	int ret = -EBUSY;

	mutex_lock(&fork_gate_mutex);
	if (!rcu_access_pointer(fork_gate_ops)) {
		rcu_assign_pointer(fork_gate_ops, ops);
		static_branch_enable(&fork_gate_key);
		ret = 0;
	}
	mutex_unlock(&fork_gate_mutex);
	return ret;
}
EXPORT_SYMBOL_GPL(fork_gate_register);

/**
 * fork_gate_unregister - end what fork_gate_register() began
 * @ops: what was registered
 *
 * ops->wants() is not called any more. A task may still be on its way to
 * ops->clone(), or in it: a module calls synchronize_rcu_tasks(), waits for those
 * that it has counted, and calls synchronize_rcu_tasks() again for their last
 * instructions.
 *
 * Context: may sleep.
 */
void fork_gate_unregister(const struct fork_gate_ops *ops)
{
	mutex_lock(&fork_gate_mutex);
	if (WARN_ON_ONCE(rcu_access_pointer(fork_gate_ops) != ops)) {
		mutex_unlock(&fork_gate_mutex);
		return;
	}
	static_branch_disable(&fork_gate_key);
	RCU_INIT_POINTER(fork_gate_ops, NULL);
	mutex_unlock(&fork_gate_mutex);
	synchronize_rcu();
}
EXPORT_SYMBOL_GPL(fork_gate_unregister);
