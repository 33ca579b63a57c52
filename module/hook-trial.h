/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hook-trial.h - between hook-trial.c and what sets the instruction pointer:
 * hook-kprobe.c on x86, hook-ftrace.c on arm64. No other file may include it.
 */
#ifndef FG_HOOK_TRIAL_H
#define FG_HOOK_TRIAL_H

#if !defined(CONFIG_X86_64) && !defined(CONFIG_ARM64)
#error "forkgate has no hook for this machine: it needs x86-64 or arm64"
#endif

/* hook-trial.c */
int fg_trial(int n);
int fg_trial_target(int n);
void fg_stay_unless(bool ended);

/* After fg_restore_*() tasks may still be on their way to a target. */
int fg_redirect_trial(void);
void fg_restore_trial(void);
int fg_resume_trial(int n);
int fg_redirect_clone(void);
void fg_restore_clone(void);

#endif /* FG_HOOK_TRIAL_H */
