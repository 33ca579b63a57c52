/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * compat.h - what older or newer kernels name differently. Nothing else may
 * know about kernel versions; the rest reads like the newest kernel.
 */
#ifndef FG_COMPAT_H
#define FG_COMPAT_H

#include <linux/ctype.h>
#include <linux/mm.h>
#include <linux/percpu.h>
#include <linux/seq_file.h>
#include <linux/stddef.h>
#include <linux/string.h>
#include <linux/timer.h>

#ifndef FG_HAVE_VM_FLAGS_SET
static inline void vm_flags_set(struct vm_area_struct *vma, unsigned long flags)
{
	vma->vm_flags |= flags;
}

static inline void vm_flags_clear(struct vm_area_struct *vma,
				  unsigned long flags)
{
	vma->vm_flags &= ~flags;
}
#endif

#ifndef FG_HAVE_TIMER_CONTAINER_OF
#define timer_container_of	from_timer
#endif

#ifndef FG_HAVE_TIMER_DELETE
#define timer_delete	del_timer
#endif

#ifndef FG_HAVE_MAY_SPLIT
#define may_split	split
#endif

#ifndef FG_HAVE_GROUP_EXEC_TASK
#define group_exec_task	group_exit_task
#endif

#ifndef FG_HAVE_MEMSET_AFTER
#define memset_after(obj, v, member)					\
({									\
	typeof(obj) __obj = (obj);					\
	u8 *__from = (u8 *)__obj + offsetofend(typeof(*__obj), member);	\
									\
	memset(__from, v, (u8 *)(__obj + 1) - __from);			\
})
#endif

/* With the flags of its one caller alone */
#ifndef FG_HAVE_SEQ_ESCAPE_STR
#define ESCAPE_NAP	0
#define ESCAPE_APPEND	0

static inline void seq_escape_str(struct seq_file *m, const char *src,
				  unsigned int flags, const char *esc)
{
	for (; *src; src++) {
		if (isascii(*src) && isprint(*src) && !strchr(esc, *src))
			seq_putc(m, *src);
		else
			seq_printf(m, "\\%03o", (unsigned char)*src);
	}
}
#endif

/*
 * Linux 5.10 marks a charged page where a page counts its mappings: one that user
 * space maps must not be charged. Its size is charged with what describes it.
 */
#ifdef FG_HAVE_PG_KMEMCG
#define FG_MAPPED_PAGE_GFP(gfp)		((gfp) & ~__GFP_ACCOUNT)
#define FG_MAPPED_PAGE_OWNER(size)	((size) + PAGE_SIZE)
#else
#define FG_MAPPED_PAGE_GFP(gfp)		(gfp)
#define FG_MAPPED_PAGE_OWNER(size)	(size)
#endif

/* What the handler of sched_process_exit is called with: 6.16 says more. */
#ifdef FG_HAVE_GROUP_DEAD
#define FG_ON_EXIT_ARGS	void *unused, struct task_struct *task, bool group_dead
#else
#define FG_ON_EXIT_ARGS	void *unused, struct task_struct *task
#endif

/*
 * Does a CPU of mm_cpumask run no thread of it? The kernel exports the word, but
 * declares it for itself alone. Those without it are taken to run one.
 */
#ifdef FG_HAVE_TLBSTATE_SHARED
#ifdef MODULE
struct tlb_state_shared {
	bool is_lazy;
};

DECLARE_PER_CPU_SHARED_ALIGNED(struct tlb_state_shared, cpu_tlbstate_shared);
#endif

static inline bool fg_cpu_lazy(int cpu)
{
	return READ_ONCE(per_cpu(cpu_tlbstate_shared, cpu).is_lazy);
}
#else
static inline bool fg_cpu_lazy(int cpu)
{
	return false;
}
#endif

#endif /* FG_COMPAT_H */
