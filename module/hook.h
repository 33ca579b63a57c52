/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hook.h - between hook.c and its backend, which redirects calls: hook-kprobe.c
 * on x86, hook-ftrace.c on arm64. No other file may include it.
 */
#ifndef FG_HOOK_H
#define FG_HOOK_H

#include <linux/types.h>

#if !defined(CONFIG_X86_64) && !defined(CONFIG_ARM64)
#error "forkgate has no hook for this machine: it needs x86-64 or arm64"
#endif

struct kernel_clone_args;

/* hook.c */
bool fg_hook_wants(struct kernel_clone_args *args);
pid_t fg_clone(struct kernel_clone_args *args);
int fg_trial(int n);
int fg_trial_target(int n);

/* The backend. After fg_restore_*() tasks may still be on their way to a target. */
int fg_redirect_trial(void);
void fg_restore_trial(void);
int fg_resume_trial(int n);
int fg_redirect_clone(void);
void fg_restore_clone(void);
pid_t fg_resume_clone(struct kernel_clone_args *args);

#endif /* FG_HOOK_H */
