// SPDX-License-Identifier: GPL-2.0-only
/*
 * A stranger on kernel_clone, for the tests: a kprobe, a kretprobe, an
 * ftrace_ops, or one that sets the instruction pointer as a live patch does
 * (to where it points anyway). It only counts the calls of one thread.
 */
#include <linux/atomic.h>
#include <linux/ftrace.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/string.h>

/* Before Linux 5.11, which does not export ftrace_free_filter() either */
#ifndef HAVE_FTRACE_REGS
#define ftrace_regs		pt_regs
#define ftrace_get_regs(regs)	(regs)
#define ftrace_free_filter(ops)	ftrace_set_filter(ops, NULL, 0, 1)
#endif

static char *how = "kprobe";
module_param(how, charp, 0444);
MODULE_PARM_DESC(how, "kprobe, kretprobe, ops or patch");

static int tid;
module_param(tid, int, 0644);
MODULE_PARM_DESC(tid, "thread whose calls are counted");

static atomic_t hits;

static int hits_set(const char *value, const struct kernel_param *param)
{
	atomic_set(&hits, 0);
	return 0;
}

static int hits_get(char *buffer, const struct kernel_param *param)
{
	return sysfs_emit(buffer, "%d\n", atomic_read(&hits));
}

static const struct kernel_param_ops hits_ops = {
	.set = hits_set,
	.get = hits_get,
};

module_param_cb(hits, &hits_ops, NULL, 0644);
MODULE_PARM_DESC(hits, "calls counted; writing resets");

static void note(void)
{
	if (current->pid == READ_ONCE(tid))
		atomic_inc(&hits);
}

NOKPROBE_SYMBOL(note);

static int on_kprobe(struct kprobe *p, struct pt_regs *regs)
{
	note();
	return 0;
}

NOKPROBE_SYMBOL(on_kprobe);

static int on_kretprobe(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	note();
	return 0;
}

NOKPROBE_SYMBOL(on_kretprobe);

static struct kprobe kprobe = {
	.symbol_name = "kernel_clone",
	.pre_handler = on_kprobe,
};

static struct kretprobe kretprobe = {
	.kp.symbol_name = "kernel_clone",
	.handler = on_kretprobe,
	.maxactive = 64,
};

#if defined(CONFIG_DYNAMIC_FTRACE_WITH_REGS) || defined(CONFIG_DYNAMIC_FTRACE_WITH_ARGS)
static void on_ftrace(unsigned long ip, unsigned long parent, struct ftrace_ops *ops,
		      struct ftrace_regs *fregs)
{
	note();
}

NOKPROBE_SYMBOL(on_ftrace);

static void on_patch(unsigned long ip, unsigned long parent, struct ftrace_ops *ops,
		     struct ftrace_regs *fregs)
{
	note();
#ifdef CONFIG_DYNAMIC_FTRACE_WITH_REGS
	instruction_pointer_set(ftrace_get_regs(fregs), ip + MCOUNT_INSN_SIZE);
#else
	ftrace_regs_set_instruction_pointer(fregs, ip + MCOUNT_INSN_SIZE);
#endif
}

NOKPROBE_SYMBOL(on_patch);

static struct ftrace_ops ops;

static int ops_start(bool patch)
{
	int ret;

	ops.func = patch ? on_patch : on_ftrace;
	/* Both: all registers where there is a way to have them, and no refusal elsewhere. */
	ops.flags = patch ? FTRACE_OPS_FL_SAVE_REGS | FTRACE_OPS_FL_SAVE_REGS_IF_SUPPORTED |
		    FTRACE_OPS_FL_IPMODIFY : 0;
	ret = ftrace_set_filter(&ops, "kernel_clone", strlen("kernel_clone"), 1);
	if (ret)
		return ret;
	return register_ftrace_function(&ops);
}

static void ops_stop(void)
{
	unregister_ftrace_function(&ops);
	ftrace_free_filter(&ops);
}
#else
static int ops_start(bool patch)
{
	return -EOPNOTSUPP;
}

static void ops_stop(void)
{
}
#endif

static int __init coexist_probe_init(void)
{
	if (!strcmp(how, "kprobe"))
		return register_kprobe(&kprobe);
	if (!strcmp(how, "kretprobe"))
		return register_kretprobe(&kretprobe);
	if (!strcmp(how, "ops"))
		return ops_start(false);
	if (!strcmp(how, "patch"))
		return ops_start(true);
	return -EINVAL;
}
module_init(coexist_probe_init);

static void __exit coexist_probe_exit(void)
{
	if (!strcmp(how, "kprobe"))
		unregister_kprobe(&kprobe);
	else if (!strcmp(how, "kretprobe"))
		unregister_kretprobe(&kretprobe);
	else
		ops_stop();
}
module_exit(coexist_probe_exit);

MODULE_DESCRIPTION("A second probe on kernel_clone, for the tests of forkgate");
MODULE_LICENSE("GPL");
