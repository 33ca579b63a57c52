/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * compat.h - what older or newer kernels name differently. Nothing else may
 * know about kernel versions; the rest reads like the newest kernel.
 */
#ifndef FG_COMPAT_H
#define FG_COMPAT_H

#include <linux/mm.h>
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
#define timer_container_of(var, callback_timer, timer_fieldname) \
	from_timer(var, callback_timer, timer_fieldname)
#endif

#endif /* FG_COMPAT_H */
