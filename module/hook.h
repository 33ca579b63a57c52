/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hook.h - between hook.c and its backend, hook-*.c, which redirects calls of
 * kernel_clone(). No other file may include it.
 */
#ifndef FG_HOOK_H
#define FG_HOOK_H

#include <linux/types.h>

struct kernel_clone_args;

/* hook.c */
bool fg_hook_wants(struct kernel_clone_args *args);
pid_t fg_clone(struct kernel_clone_args *args);

/* The backend. After fg_hook_off() tasks may still be on their way to fg_clone(). */
int fg_hook_on(void);
void fg_hook_off(void);
bool fg_hook_is_on(void);
pid_t fg_resume_clone(struct kernel_clone_args *args);

#endif /* FG_HOOK_H */
