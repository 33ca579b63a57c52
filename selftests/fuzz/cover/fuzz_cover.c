// SPDX-License-Identifier: GPL-2.0-only
/*
 * Which code of a module runs, for the fuzzer: what the compiler calls at every basic block of
 * code built with -fsanitize-coverage=trace-pc. A kernel with KCOV has that, too; this is for one
 * module, on any kernel, and sees interrupts as well as tasks.
 *
 * All of it is one piece of memory that the fuzzer maps, reads and clears. It must not sleep, lock
 * or be traced, for it is called from probe handlers, too.
 */
#include <linux/fs.h>
#include <linux/hash.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/preempt.h>
#include <linux/sched.h>
#include <linux/vmalloc.h>

#include "cover.h"

static struct cover *cover;

void __sanitizer_cov_trace_pc(void);

/* The block before is known by task; collisions only blur which edges are new. */
void notrace __sanitizer_cov_trace_pc(void)
{
	unsigned long pc = _RET_IP_;
	u32 from = 0, *before;

	WRITE_ONCE(cover->blocks[pc % COVER_TEXT], 1);
	if (in_task()) {
		before = &cover->before[hash_ptr(current, COVER_TASK_BITS)];
		from = READ_ONCE(*before);
		WRITE_ONCE(*before, pc);
	}
	WRITE_ONCE(cover->edges[hash_32(from ^ ((u32)pc << 1), COVER_EDGE_BITS)], 1);
}
EXPORT_SYMBOL(__sanitizer_cov_trace_pc);

static int cover_mmap(struct file *file, struct vm_area_struct *vma)
{
	return remap_vmalloc_range(vma, cover, 0);
}

static const struct file_operations cover_fops = {
	.owner = THIS_MODULE,
	.mmap = cover_mmap,
};

static struct miscdevice cover_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "fuzz_cover",
	.fops = &cover_fops,
};

static int __init cover_init(void)
{
	int ret;

	cover = vmalloc_user(sizeof(*cover));
	if (!cover)
		return -ENOMEM;
	ret = misc_register(&cover_device);
	if (ret)
		vfree(cover);
	return ret;
}
module_init(cover_init);

static void __exit cover_exit(void)
{
	misc_deregister(&cover_device);
	vfree(cover);
}
module_exit(cover_exit);

MODULE_DESCRIPTION("Coverage of one module, for the fuzzer of forkgate");
MODULE_LICENSE("GPL");
