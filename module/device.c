// SPDX-License-Identifier: GPL-2.0-only
/*
 * device.c - /dev/forkgate: checks what user space says and passes it on
 *
 * The gate is always that of the calling process's address space, never that of
 * the file, whose only state is who polls it. Must not decide anything except
 * whether arguments are valid.
 */

#include <linux/compat.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/nospec.h>
#include <linux/poll.h>
#include <linux/uaccess.h>
#include <asm/syscall.h>

#include "gate.h"

/* The calls by number; each says how long its argument was in ABI 1. */
static const unsigned int fg_calls[] = {
	[_IOC_NR(FORKGATE_IOC_QUERY)] = FORKGATE_IOC_QUERY,
	[_IOC_NR(FORKGATE_IOC_REGISTER)] = FORKGATE_IOC_REGISTER,
	[_IOC_NR(FORKGATE_IOC_UNREGISTER)] = FORKGATE_IOC_UNREGISTER,
	[_IOC_NR(FORKGATE_IOC_ENTER)] = FORKGATE_IOC_ENTER,
	[_IOC_NR(FORKGATE_IOC_LEAVE)] = FORKGATE_IOC_LEAVE,
	[_IOC_NR(FORKGATE_IOC_PREPARE)] = FORKGATE_IOC_PREPARE,
	[_IOC_NR(FORKGATE_IOC_RELEASE)] = FORKGATE_IOC_RELEASE,
	[_IOC_NR(FORKGATE_IOC_POLICY_GET)] = FORKGATE_IOC_POLICY_GET,
	[_IOC_NR(FORKGATE_IOC_POLICY_SET)] = FORKGATE_IOC_POLICY_SET,
	[_IOC_NR(FORKGATE_IOC_STATE)] = FORKGATE_IOC_STATE,
	[_IOC_NR(FORKGATE_IOC_HEALTH)] = FORKGATE_IOC_HEALTH,
};

union fg_arg {
	struct forkgate_query query;
	struct forkgate_register reg;
	struct forkgate_enter enter;
	struct forkgate_leave leave;
	struct forkgate_prepare prepare;
	struct forkgate_policy policy;
	struct forkgate_state state;
	struct forkgate_health health;
};

static bool fg_domains_valid(u32 domains)
{
	return domains && !(domains & ~FORKGATE_DOMAINS);
}

static int fg_do_enter(struct fg_gate *gate, struct forkgate_enter *enter,
		       void __user *uarg)
{
	if (!fg_domains_valid(enter->domains) ||
	    (enter->flags & ~(FORKGATE_COUNTED | FORKGATE_NONBLOCK)))
		return -EINVAL;
	if (enter->flags & FORKGATE_COUNTED) {
		if (enter->levels[0] || enter->levels[1])
			return -EINVAL;
	} else if (!(enter->levels[0] || enter->levels[1])) {
		return -EINVAL;
	}
	return fg_enter(gate, enter, uarg);
}

static int fg_do_leave(struct fg_gate *gate, const struct forkgate_leave *leave)
{
	if (!fg_domains_valid(leave->domains) ||
	    (leave->flags & ~FORKGATE_COUNTED))
		return -EINVAL;
	return fg_leave(gate, leave);
}

/*
 * What a file has from its first poll() or polled prepare on. open() would
 * allocate it under a lock that all misc devices share, and for as long as its
 * caller's memory cgroup reclaims (rule 13). Return: it, or NULL.
 */
static struct fg_file *fg_file_of(struct file *file)
{
	struct fg_file *fgf = READ_ONCE(file->private_data), *other;

	if (fgf)
		return fgf;
	fgf = fg_file_alloc();
	if (!fgf)
		return NULL;
	other = cmpxchg(&file->private_data, NULL, fgf);
	if (!other)
		return fgf;
	fg_file_put(fgf);
	return other;
}

static int fg_do_prepare(struct fg_gate *gate, struct file *file,
			 struct forkgate_prepare *prepare,
			 struct forkgate_prepare __user *uarg)
{
	struct fg_file *fgf = NULL;
	int ret;

	if (!fg_domains_valid(prepare->domains) ||
	    (prepare->flags & ~(FORKGATE_NONBLOCK | FORKGATE_TIMED)) ||
	    prepare->attempt > 32 ||
	    (!(prepare->flags & FORKGATE_TIMED) && prepare->timeout))
		return -EINVAL;
	if (prepare->flags & FORKGATE_NONBLOCK) {
		fgf = fg_file_of(file);
		if (!fgf)
			return -ENOMEM;
	}
	prepare->outcome = FORKGATE_OUTCOME_NONE;
	ret = fg_prepare(gate, fgf, prepare);
	if (ret == -ERESTARTNOINTR || !put_user(prepare->outcome, &uarg->outcome))
		return ret;
	/* Drop a ticket, or a place, whose outcome cannot be reported. */
	if (!ret || ret == -EAGAIN)
		fg_ticket_release(gate);
	return -EFAULT;
}

static bool fg_time_valid(u64 ns)
{
	return ns <= FORKGATE_TIME_MAX || ns == FORKGATE_FOREVER;
}

/* Rule 8 */
static int fg_policy_set(struct fg_gate *gate,
			 const struct forkgate_policy *policy)
{
	unsigned long irq;

	/* Rule 11: a ticket that never expires could hang an order of locks. */
	if (!fg_time_valid(policy->patience) ||
	    policy->ticket_hold > FORKGATE_TIME_MAX ||
	    !fg_time_valid(policy->timeout) ||
	    !fg_time_valid(policy->backstop) ||
	    policy->on_timeout > FORKGATE_PROCEED || policy->pad)
		return -EINVAL;
	raw_spin_lock_irqsave(&gate->lock, irq);
	gate->policy = *policy;
	raw_spin_unlock_irqrestore(&gate->lock, irq);
	return 0;
}

static void fg_policy_get(struct fg_gate *gate, struct forkgate_policy *policy)
{
	unsigned long irq;

	raw_spin_lock_irqsave(&gate->lock, irq);
	*policy = gate->policy;
	raw_spin_unlock_irqrestore(&gate->lock, irq);
}

static void fg_query(struct forkgate_query *query)
{
	*query = (struct forkgate_query) {
		.abi = FORKGATE_ABI,
		.features = FORKGATE_FEATURE_MSYNC,
		.slots = FORKGATE_SLOTS,
		.slot_size = FORKGATE_SLOT_SIZE,
		.map_size = FORKGATE_MAP_SIZE,
	};
	if (IS_ENABLED(CONFIG_FORKGATE_DEBUG))
		query->features |= FORKGATE_FEATURE_DEBUG;
}

static int fg_gate_do(struct fg_gate *gate, struct file *file, unsigned int nr,
		      union fg_arg *arg, void __user *uarg)
{
	switch (nr) {
	case _IOC_NR(FORKGATE_IOC_REGISTER):
		return arg->reg.flags ? -EINVAL :
					fg_thread_register(gate, &arg->reg);
	case _IOC_NR(FORKGATE_IOC_UNREGISTER):
		return fg_thread_unregister(gate);
	case _IOC_NR(FORKGATE_IOC_ENTER):
		return fg_do_enter(gate, &arg->enter, uarg);
	case _IOC_NR(FORKGATE_IOC_LEAVE):
		return fg_do_leave(gate, &arg->leave);
	case _IOC_NR(FORKGATE_IOC_PREPARE):
		return fg_do_prepare(gate, file, &arg->prepare, uarg);
	case _IOC_NR(FORKGATE_IOC_RELEASE):
		return fg_ticket_release(gate);
	case _IOC_NR(FORKGATE_IOC_POLICY_GET):
		fg_policy_get(gate, &arg->policy);
		return 0;
	case _IOC_NR(FORKGATE_IOC_POLICY_SET):
		return fg_policy_set(gate, &arg->policy);
	case _IOC_NR(FORKGATE_IOC_STATE):
		return fg_state(gate, &arg->state);
	}
	return -ENOIOCTLCMD;
}

static int fg_gate_call(struct file *file, unsigned int nr, union fg_arg *arg,
			void __user *uarg)
{
	struct fg_gate *gate = fg_gate_get(current->mm);
	int ret;

	if (!gate)
		return -ENXIO;
	ret = fg_unit_inherit(gate, GFP_KERNEL_ACCOUNT);
	if (!ret)
		ret = fg_gate_do(gate, file, nr, arg, uarg);
	fg_gate_put(gate);
	return ret;
}

static long fg_call(struct file *file, unsigned int cmd, void __user *uarg)
{
	unsigned int nr = _IOC_NR(cmd), size = _IOC_SIZE(cmd), known;
	union fg_arg arg;
	int ret;

	memset(&arg, 0, sizeof(arg));	/* all of it, whatever is copied out */

	if (_IOC_TYPE(cmd) != FORKGATE_IOC_TYPE ||
	    nr >= ARRAY_SIZE(fg_calls))
		return -ENOIOCTLCMD;
	nr = array_index_nospec(nr, ARRAY_SIZE(fg_calls));
	if (_IOC_DIR(cmd) != _IOC_DIR(fg_calls[nr]))
		return -ENOIOCTLCMD;
	known = _IOC_SIZE(fg_calls[nr]);
	if (size < known)
		return -EINVAL;
	if (_IOC_DIR(cmd) & _IOC_WRITE) {
		ret = copy_struct_from_user(&arg, known, uarg, size);
		if (ret)
			return ret;
		/* A result that cannot be written must not cost anything. */
		if ((_IOC_DIR(cmd) & _IOC_READ) &&
		    copy_to_user(uarg, &arg, known))
			return -EFAULT;
	}

	switch (nr) {
	case _IOC_NR(FORKGATE_IOC_QUERY):
		fg_query(&arg.query);
		ret = 0;
		break;
	case _IOC_NR(FORKGATE_IOC_HEALTH):
		fg_hook_health(&arg.health);
		ret = 0;
		break;
	default:
		ret = fg_gate_call(file, nr, &arg, uarg);
	}

	/* Those that wait told user space themselves what it may know. */
	if (ret || nr == _IOC_NR(FORKGATE_IOC_ENTER) ||
	    nr == _IOC_NR(FORKGATE_IOC_PREPARE) || !(_IOC_DIR(cmd) & _IOC_READ))
		return ret;
	if (copy_to_user(uarg, &arg, known) ||
	    clear_user(uarg + known, size - known))
		return -EFAULT;
	return ret;
}

static long fg_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	return fg_call(file, cmd, (void __user *)arg);
}

/*
 * msync(mapping, FORKGATE_UNIT_SIZE, MS_SYNC, request, argument): an ioctl without a
 * descriptor. msync(2) takes three arguments; the other two are in the
 * registers that a system call of five would use.
 */
static int fg_fsync(struct file *file, loff_t start, loff_t end, int datasync)
{
	unsigned long args[6];
	void __user *uarg;
	int ret;

	if (start != 0 || end != PAGE_ALIGN(FORKGATE_UNIT_SIZE) - 1 ||
	    (current->flags & (PF_KTHREAD | PF_IO_WORKER)))
		return -EINVAL;
	syscall_get_arguments(current, task_pt_regs(current), args);
	uarg = in_compat_syscall() ? compat_ptr(args[4]) :
				     (void __user *)args[4];
	ret = fg_call(file, args[3], uarg);
	return ret == -ENOIOCTLCMD ? -ENOTTY : ret;
}

static __poll_t fg_poll(struct file *file, poll_table *wait)
{
	struct fg_file *fgf = fg_file_of(file);
	struct fg_gate *gate;
	__poll_t events;

	if (!fgf)
		return EPOLLERR;
	poll_wait(file, &fgf->wait, wait);
	gate = current->mm ? fg_gate_get(current->mm) : NULL;
	if (!gate)
		return EPOLLERR;
	events = fg_ticket_poll(gate, fgf);
	fg_gate_put(gate);
	return events;
}

static loff_t fg_llseek(struct file *file, loff_t offset, int whence)
{
	return FORKGATE_POSITION;
}

/*
 * How many files are open. A mapping holds its file, so without one there is no
 * gate, and hooks look no further. Forks do not write it (rule 13).
 */
atomic_t fg_nr_files = ATOMIC_INIT(0);

static int fg_open(struct inode *inode, struct file *file)
{
	file->private_data = NULL;	/* the misc device; see fg_file_of() */
	atomic_inc(&fg_nr_files);
	return 0;
}

static int fg_release(struct inode *inode, struct file *file)
{
	atomic_dec(&fg_nr_files);
	if (file->private_data)
		fg_file_put(file->private_data);
	return 0;
}

static int fg_mmap(struct file *file, struct vm_area_struct *vma)
{
	return fg_map(vma);
}

static const struct file_operations fg_fops = {
	.owner = THIS_MODULE,	/* rule 15: files and mappings hold it */
	.open = fg_open,
	.release = fg_release,
	.unlocked_ioctl = fg_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.mmap = fg_mmap,
	.poll = fg_poll,
	.fsync = fg_fsync,
	.llseek = fg_llseek,
};

static struct miscdevice fg_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "forkgate",
	.mode = 0666,
	.fops = &fg_fops,
};

/**
 * fg_device_init - make the device
 *
 * Return: 0 or a negative error.
 */
int fg_device_init(void)
{
	return misc_register(&fg_device);
}

/**
 * fg_device_exit - remove the device; no file is open, files hold the module
 */
void fg_device_exit(void)
{
	misc_deregister(&fg_device);
}
