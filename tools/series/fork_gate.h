/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A place in kernel_clone() where one driver may hold clones back.
 */
#ifndef _LINUX_FORK_GATE_H
#define _LINUX_FORK_GATE_H

#include <linux/types.h>

struct kernel_clone_args;

/**
 * struct fork_gate_ops - what a gate does with clones
 * @wants: does this clone go through the gate? It must not sleep, and is called
 *	for every clone, those of kernel threads included.
 * @clone: called instead of kernel_clone() for those that @wants picked; it may
 *	sleep, fail, or go on with fork_gate_go_on().
 */
struct fork_gate_ops {
	bool (*wants)(struct kernel_clone_args *args);
	pid_t (*clone)(struct kernel_clone_args *args);
};

int fork_gate_register(const struct fork_gate_ops *ops);
void fork_gate_unregister(const struct fork_gate_ops *ops);
pid_t fork_gate_go_on(struct kernel_clone_args *args);

/* What fork.c calls its kernel_clone(): with a gate, fork_gate.c has that one. */
#ifdef CONFIG_FORK_GATE
pid_t kernel_clone_ungated(struct kernel_clone_args *args);
#else
#define kernel_clone_ungated	kernel_clone
#endif

#endif /* _LINUX_FORK_GATE_H */
