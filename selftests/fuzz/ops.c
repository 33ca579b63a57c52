// SPDX-License-Identifier: GPL-2.0-only
/*
 * ops.c - the operations of the fuzzer, and the tasks that run them
 *
 * A victim is a process with a pid namespace and a control group of its own: killing the
 * namespace's first process, which only waits, ends all of it. All tasks run on stacks out of one
 * pool, with what they know of themselves at the stack's lower end, for signal handlers to find it.
 *
 * Nothing here, from victim_start() on, may use the C library: tasks share its thread-local memory,
 * or have none. Nothing may trust the mapping, which other operations unmap and overwrite.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/forkgate.h>

#include "prog.h"

#define DEVICE		"/dev/forkgate"
#define STACK_SIZE	0x10000ul
#define SHARED_AT	0x300000000ul
#define STACKS_AT	0x400000000ul
#define MAP_AT(where)	(0x200000000ul + (where) % 2 * 0x10000000ul)
#define READ_ONLY	((void *)0x210fff000ul)
#define UNMAPPED	((void *)0x5000)
#define MSEC		1000000ul
#define VICTIM_MS	200	/* what a victim may take, before it is killed */
#define NEST		3	/* of signal handlers */

/* What a task knows of itself */
struct ctx {
	uint32_t start;		/* the script that it begins with */
	uint32_t task;
	uint32_t slot;		/* where it is in the mapping; 0 without one */
	uint32_t nest;
	uint32_t fail;		/* the next operation: its n-th allocation or copy */
	char arg[512];		/* of calls of the device */
	struct forkgate_holder holders[8];
};

struct shared *shared;

/*
 * System calls without the C library
 */

static long sys(long nr, long a, long b, long c, long d, long e, long f)
{
	register long r10 asm("r10") = d;
	register long r8 asm("r8") = e;
	register long r9 asm("r9") = f;
	long ret;

	asm volatile("syscall" : "=a" (ret)
		     : "a" (nr), "D" (a), "S" (b), "d" (c), "r" (r10), "r" (r8), "r" (r9)
		     : "rcx", "r11", "memory");
	return ret;
}

#define SYS6(nr, a, b, c, d, e, f, ...)	sys(__NR_##nr, (long)(a), (long)(b), (long)(c), (long)(d), \
					    (long)(e), (long)(f))
#define SYS(nr, ...)			SYS6(nr, ##__VA_ARGS__, 0, 0, 0, 0, 0, 0)

/* Loads and stores that may fault: the handler of SIGSEGV goes on at the end, which says so. */
uint32_t fault_load(const volatile uint32_t *at, uint32_t *value);
uint32_t fault_store(volatile uint32_t *at, uint32_t value);
uint32_t fault_add(volatile uint32_t *at, uint32_t value);
extern const char fault_begin[], fault_end[];
void signal_return(void);
long clone_to(long nr, long a, long b, long c, long d, long e, void (*fn)(void));

asm(".text\n"
"fault_begin:\n"
"fault_load:	mov (%rdi), %eax; mov %eax, (%rsi); xor %eax, %eax; ret\n"
"fault_store:	mov %esi, (%rdi); xor %eax, %eax; ret\n"
"fault_add:	add %esi, (%rdi); xor %eax, %eax; ret\n"
"fault_end:	mov $1, %eax; ret\n"
"signal_return:	mov $15, %eax; syscall; hlt\n"
/* The child calls fn, which is the caller's last word on the stack, on its own. */
"clone_to:	push %r12; mov 16(%rsp), %r12; mov %rdi, %rax; mov %rsi, %rdi; mov %rdx, %rsi\n"
"		mov %rcx, %rdx; mov %r8, %r10; mov %r9, %r8; syscall\n"
"		test %rax, %rax; jnz 1f; and $-16, %rsp; call *%r12; hlt\n"
"1:		pop %r12; ret\n");

static struct ctx *cur(void)
{
	unsigned long sp;

	asm volatile("mov %%rsp, %0" : "=r" (sp));
	return (void *)(sp & -STACK_SIZE);
}

static uint32_t add(uint32_t *word, uint32_t n)
{
	return __atomic_fetch_add(word, n, __ATOMIC_SEQ_CST);
}

static void sleep_us(unsigned long us)
{
	struct timespec time = { us / 1000000, us % 1000000 * 1000 };

	SYS(nanosleep, &time, NULL);
}

static void *stack_top(unsigned int n)
{
	return (void *)(STACKS_AT + (n + 1) * STACK_SIZE - 64);
}

static struct ctx *stack_ctx(unsigned int n)
{
	return (void *)(STACKS_AT + n * STACK_SIZE);
}

/*
 * Running scripts
 */

static void disarm(int fd)
{
	/* What is to fail may be this very write. */
	for (int i = 0; i < 100 && SYS(pwrite64, fd, "0", 1, 0) != 1; i++)
		;
	SYS(close, fd);
}

static int arm(uint32_t n)
{
	char text[12];
	int fd = SYS(open, "/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC, 0), i = sizeof(text);

	if (fd < 0)
		return fd;
	do {
		text[--i] = '0' + n % 10;
		n /= 10;
	} while (n);
	SYS(pwrite64, fd, text + i, sizeof(text) - i, 0);
	return fd;
}

static void run_op(struct ctx *ctx, const struct op *op)
{
	uint32_t fail = ctx->fail, n;
	int fd = -1;
	long ret;

	if (fail) {
		ctx->fail = 0;
		fd = arm(fail);
	}
	ret = op_types[op->code].run(ctx, op->arg);
	if (fd >= 0)
		disarm(fd);
	n = add(&shared->logged, 1) % LOGGED;
	shared->log[n].task = ctx->task;
	shared->log[n].code = op->code;
	memcpy(shared->log[n].arg, op->arg, sizeof(op->arg));
	shared->log[n].ret = ret;
}

static void run_script(struct ctx *ctx, uint32_t number)
{
	const struct script *script = &shared->prog.script[number % SCRIPTS];

	for (uint32_t i = 0; i < script->n; i++) {
		if (add(&shared->ops, 1) >= MAX_OPS)
			SYS(exit_group, 0);
		run_op(ctx, &script->op[i]);
	}
}

static void task_start(struct ctx *ctx)
{
	uint32_t task = add(&shared->tasks, 1);

	ctx->task = task;
	if (task < TASKS)
		shared->tid[task] = SYS(gettid);
}

/* What threads and children begin with; does not return */
static void task_main(void)
{
	struct ctx *ctx = cur();

	task_start(ctx);
	run_script(ctx, ctx->start);
	SYS(exit, 0);
}

static void on_signal(int signal, siginfo_t *info, void *context)
{
	greg_t *rip = &((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
	struct ctx *ctx = cur();

	if (signal == SIGSEGV || signal == SIGBUS) {
		if (*rip < (greg_t)fault_begin || *rip >= (greg_t)fault_end)
			SYS(exit_group, 1);
		*rip = (greg_t)fault_end;
		return;
	}
	if (ctx->nest >= NEST)
		return;
	ctx->nest++;
	run_script(ctx, shared->handler[signal]);
	ctx->nest--;
}

/* As the kernel has it, which is not what libc says */
struct kernel_sigaction {
	void *handler;
	unsigned long flags;
	void *restorer;
	unsigned long mask;
};

static long set_handler(int signal, void *handler, unsigned long flags)
{
	struct kernel_sigaction action = {
		.handler = handler,
		.flags = flags | 0x04000000 | SA_SIGINFO,	/* SA_RESTORER */
		.restorer = signal_return,
	};

	return SYS(rt_sigaction, signal, &action, NULL, 8);
}

/*
 * Calls of the device
 */

static const uint64_t times[] = {
	0, 1, 1000, MSEC, 2 * MSEC, 5 * MSEC, 20 * MSEC, 100 * MSEC,
	FORKGATE_TIME_MAX, FORKGATE_TIME_MAX + 1, FORKGATE_FOREVER,
};

static uint64_t time_of(uint32_t n)
{
	return times[n % ARRAY_SIZE(times)];
}

/*
 * How: bit 0, by msync; bits 1 to 3, where the argument is; bit 4, longer than it is known, bit 5,
 * and not zero there; bit 6, shorter
 */
static long call(struct ctx *ctx, uint32_t how, uint32_t cmd, const void *arg)
{
	uint32_t size = _IOC_SIZE(cmd), longer = size;
	void *at = ctx->arg;

	if (how & 16)
		longer += 24;
	if (how & 64)
		longer -= 4;
	memset(ctx->arg, 0, size + 24);
	memcpy(ctx->arg, arg, size);
	if (how & 32)
		ctx->arg[size + 9] = 1;
	cmd = _IOC(_IOC_DIR(cmd), _IOC_TYPE(cmd), _IOC_NR(cmd), longer);
	switch (how >> 1 & 7) {
	case 4:
		at = NULL;
		break;
	case 5:
		at = UNMAPPED;
		break;
	case 6:
		at = READ_ONLY;
		break;
	case 7:
		at = (char *)MAP_AT(0) + ctx->slot;
		break;
	}
	if (how & 1)
		return SYS(msync, MAP_AT(how >> 7), FORKGATE_UNIT_SIZE, MS_SYNC, cmd, at);
	return SYS(ioctl, DEVICE_FD, cmd, at);
}

static long op_register(struct ctx *ctx, const uint32_t *arg)
{
	struct forkgate_register reg = { .flags = arg[1] };
	long ret = call(ctx, arg[0], FORKGATE_IOC_REGISTER, &reg);

	if (ret || (arg[0] >> 1 & 7) > 3)
		return ret;
	ctx->slot = ((struct forkgate_register *)ctx->arg)->offset;
	if (ctx->task < TASKS)
		shared->slot[ctx->task] = ctx->slot;
	return 0;
}

static long op_unregister(struct ctx *ctx, const uint32_t *arg)
{
	return call(ctx, arg[0], FORKGATE_IOC_UNREGISTER, NULL);
}

static long op_enter_call(struct ctx *ctx, const uint32_t *arg)
{
	struct forkgate_enter enter = { arg[1], arg[2], { arg[3] & 0xffff, arg[3] >> 16 } };

	return call(ctx, arg[0], FORKGATE_IOC_ENTER, &enter);
}

static long op_leave_call(struct ctx *ctx, const uint32_t *arg)
{
	struct forkgate_leave leave = { arg[1], arg[2] };

	return call(ctx, arg[0], FORKGATE_IOC_LEAVE, &leave);
}

static long op_prepare(struct ctx *ctx, const uint32_t *arg)
{
	struct forkgate_prepare prepare = {
		.domains = arg[1],
		.flags = arg[2] & 0xff,
		.timeout = arg[2] & FORKGATE_TIMED ? time_of(arg[3]) : arg[2] >> 8,
		.attempt = arg[2] & FORKGATE_TIMED ? 0 : arg[3],
	};

	return call(ctx, arg[0], FORKGATE_IOC_PREPARE, &prepare);
}

static long op_release(struct ctx *ctx, const uint32_t *arg)
{
	return call(ctx, arg[0], FORKGATE_IOC_RELEASE, NULL);
}

/* The four times are digits of the second argument. */
static long op_policy_set(struct ctx *ctx, const uint32_t *arg)
{
	struct forkgate_policy policy = {
		.patience = time_of(arg[1] & 15),
		.ticket_hold = time_of(arg[1] >> 4 & 15),
		.timeout = time_of(arg[1] >> 8 & 15),
		.backstop = time_of(arg[1] >> 12 & 15),
		.on_timeout = arg[2],
		.pad = arg[3],
	};

	return call(ctx, arg[0], FORKGATE_IOC_POLICY_SET, &policy);
}

static long op_policy_get(struct ctx *ctx, const uint32_t *arg)
{
	struct forkgate_policy policy = {};

	return call(ctx, arg[0], FORKGATE_IOC_POLICY_GET, &policy);
}

static long op_state(struct ctx *ctx, const uint32_t *arg)
{
	struct forkgate_state state = {
		.holders = arg[2] ? (uintptr_t)UNMAPPED : (uintptr_t)ctx->holders,
		.holders_max = arg[1] % (ARRAY_SIZE(ctx->holders) + 1),
	};

	return call(ctx, arg[0], FORKGATE_IOC_STATE, &state);
}

/* HEALTH waits up to a second once a copy has bypassed the hook: seldom asked for */
static long op_query(struct ctx *ctx, const uint32_t *arg)
{
	union {
		struct forkgate_query query;
		struct forkgate_health health;
	} any = {};

	return call(ctx, arg[0], arg[1] == 7 ? FORKGATE_IOC_HEALTH : FORKGATE_IOC_QUERY, &any);
}

/* Any request with any argument; those that it may name wait as others do */
static long op_raw(struct ctx *ctx, const uint32_t *arg)
{
	for (unsigned int i = 0; i < sizeof(ctx->arg) / 4; i++)
		((uint32_t *)ctx->arg)[i] = i == arg[3] % 16 ? arg[2] : 0;
	if (arg[0] & 1)
		return SYS(msync, MAP_AT(0), FORKGATE_UNIT_SIZE + (arg[0] & 2) * 2048,
			   arg[0] & 4 ? MS_ASYNC : MS_SYNC, arg[1], ctx->arg);
	return SYS(ioctl, DEVICE_FD, arg[1], ctx->arg);
}

/* Sections as the library does them: E1 to E3 of module/gate.c */
static volatile uint32_t *depth_of(struct ctx *ctx, int domain)
{
	return (void *)(MAP_AT(0) + ctx->slot + domain * 4);
}

static long add_depths(struct ctx *ctx, uint32_t domains, int by)
{
	for (int i = 0; i < 2; i++) {
		if ((domains & 1u << i) && fault_add(depth_of(ctx, i), by))
			return -EFAULT;
	}
	return 0;
}

static uint32_t closed(struct ctx *ctx)
{
	uint32_t value = 0;

	fault_load((void *)(MAP_AT(0) + (ctx->slot & -FORKGATE_UNIT_SIZE) +
			    offsetof(struct forkgate_header, closed)), &value);
	return value;
}

static long op_enter(struct ctx *ctx, const uint32_t *arg)
{
	struct forkgate_enter enter = {
		.domains = arg[0],
		.flags = FORKGATE_COUNTED | (arg[1] & FORKGATE_NONBLOCK),
	};

	if (!ctx->slot)
		return -ENXIO;
	if (add_depths(ctx, arg[0], 1))
		return -EFAULT;
	if (!(closed(ctx) & arg[0]))
		return 0;
	return call(ctx, arg[2], FORKGATE_IOC_ENTER, &enter);
}

static long op_leave(struct ctx *ctx, const uint32_t *arg)
{
	struct forkgate_leave leave = { arg[0], FORKGATE_COUNTED };

	if (!ctx->slot)
		return -ENXIO;
	if (add_depths(ctx, arg[0], -1))
		return -EFAULT;
	if (!(closed(ctx) & arg[0]))
		return 0;
	return call(ctx, arg[2], FORKGATE_IOC_LEAVE, &leave);
}

/* Overwrite a word, again and again: of one's own slot, another's, the header, or anywhere */
static long op_poke(struct ctx *ctx, const uint32_t *arg)
{
	unsigned long at;

	if (arg[0] < TASKS)
		at = shared->slot[arg[0]] + arg[1] % 16 * 4;
	else if (arg[0] == TASKS)
		at = ctx->slot + arg[1] % 16 * 4;
	else
		at = arg[1] % (3 * FORKGATE_UNIT_SIZE) & -4ul;
	for (uint32_t i = 0; i <= arg[3] % 500; i++) {
		if (fault_store((void *)(MAP_AT(0) + at), i & 1 ? 0 : arg[2]))
			return -EFAULT;
	}
	return 0;
}

static long op_poll(struct ctx *ctx, const uint32_t *arg)
{
	struct pollfd poll = { .fd = DEVICE_FD, .events = POLLIN };

	return SYS(poll, &poll, 1, arg[0] % 20);
}

static long op_open(struct ctx *ctx, const uint32_t *arg)
{
	int fd = SYS(open, DEVICE, O_RDWR | (arg[0] & 1 ? O_CLOEXEC : 0), 0);

	if (fd >= 0 && fd != DEVICE_FD) {
		SYS(dup3, fd, DEVICE_FD, 0);
		SYS(close, fd);
	}
	return fd;
}

static long op_close(struct ctx *ctx, const uint32_t *arg)
{
	return SYS(close, DEVICE_FD);
}

static long op_seek(struct ctx *ctx, const uint32_t *arg)
{
	return SYS(lseek, DEVICE_FD, arg[0], arg[1]);
}

/*
 * The mapping
 */

static const uint32_t sizes[] = {
	FORKGATE_MAP_SIZE, FORKGATE_UNIT_SIZE, 3 * FORKGATE_UNIT_SIZE, FORKGATE_MAP_SIZE / 2,
	FORKGATE_MAP_SIZE + FORKGATE_UNIT_SIZE,
};

static uint32_t size_of(uint32_t n)
{
	return sizes[n % ARRAY_SIZE(sizes)];
}

/* A piece: 8 bits for its size, 8 for its first page */
static void *piece(uint32_t where, uint32_t n)
{
	return (void *)(MAP_AT(where) + (n >> 8 & 3) * FORKGATE_UNIT_SIZE);
}

static long op_map(struct ctx *ctx, const uint32_t *arg)
{
	int prot = arg[2] ? arg[2] & 7 : PROT_READ | PROT_WRITE;
	int flags = (arg[3] & 1 ? MAP_PRIVATE : MAP_SHARED) | (arg[3] & 2 ? MAP_LOCKED : 0) |
		    (arg[3] & 4 ? MAP_POPULATE : 0) | MAP_FIXED;
	long ret = SYS(mmap, MAP_AT(arg[0]), size_of(arg[1]), prot, flags, DEVICE_FD,
		       (arg[3] >> 3 & 1) * FORKGATE_UNIT_SIZE);

	return ret < 0 ? ret : 0;
}

static long op_unmap(struct ctx *ctx, const uint32_t *arg)
{
	return SYS(munmap, piece(arg[0], arg[1]), size_of(arg[1] & 255));
}

static long op_remap(struct ctx *ctx, const uint32_t *arg)
{
	long ret = SYS(mremap, MAP_AT(arg[0]), size_of(arg[1]), size_of(arg[2]),
		       arg[3] & 7, MAP_AT(arg[0] + 1));

	return ret < 0 ? ret : 0;
}

static long op_protect(struct ctx *ctx, const uint32_t *arg)
{
	return SYS(mprotect, piece(arg[0], arg[1]), size_of(arg[1] & 255), arg[2] & 7);
}

static long op_advise(struct ctx *ctx, const uint32_t *arg)
{
	static const int advice[] = {
		MADV_DONTNEED, MADV_DONTFORK, MADV_DOFORK, MADV_WIPEONFORK, MADV_KEEPONFORK,
		MADV_FREE, MADV_COLD, MADV_PAGEOUT, MADV_POPULATE_WRITE, MADV_POPULATE_READ,
		MADV_MERGEABLE, MADV_HUGEPAGE, MADV_DONTDUMP, MADV_REMOVE, MADV_WILLNEED,
	};

	return SYS(madvise, piece(arg[0], arg[1]), size_of(arg[1] & 255),
		   advice[arg[2] % ARRAY_SIZE(advice)]);
}

/* Another way to the pages than by the page table of who asks */
static long op_gup(struct ctx *ctx, const uint32_t *arg)
{
	struct iovec local = { ctx->arg, 128 }, remote = { piece(arg[0], arg[1]), 128 };
	pid_t pid = SYS(getpid);

	if (arg[2] & 1)
		return SYS(process_vm_writev, pid, &local, 1, &remote, 1, 0);
	return SYS(process_vm_readv, pid, &local, 1, &remote, 1, 0);
}

/*
 * Clones
 */

/* A stack for a task that shares memory, with what that begins with; NULL if all are taken */
static void *new_stack(struct ctx *ctx, uint32_t script)
{
	uint32_t n = 1 + add(&shared->stacks, 1);
	struct ctx *child;

	if (n >= STACKS)
		return NULL;
	child = stack_ctx(n);
	child->start = script;
	child->task = TASKS;
	child->slot = ctx->slot;
	child->nest = 0;
	child->fail = 0;
	return stack_top(n);
}

static long clone_by(struct ctx *ctx, uint64_t flags, uint32_t script, uint32_t signal,
		     uint32_t how)
{
	void *stack = NULL;
	struct clone_args args = {
		.flags = flags & ~0xfful,
		.exit_signal = signal & 63,
		.pidfd = (uintptr_t)&shared->event[6],
		.child_tid = (uintptr_t)&shared->event[7],
		.parent_tid = (uintptr_t)&shared->event[7],
	};

	/* Without one a child that shares memory overwrites its parent's, unless that waits. */
	if ((flags & CLONE_VM) && !(how & 2)) {
		stack = new_stack(ctx, script);
		if (!stack)
			return -ENOMEM;
		args.stack = ((uintptr_t)stack & -STACK_SIZE) + sizeof(struct ctx);
		args.stack_size = (uintptr_t)stack - args.stack;
	}
	if (how & 1) {
		if (flags & CLONE_THREAD)
			args.exit_signal = 0;
		if (how & 4)
			args.flags |= CLONE_CLEAR_SIGHAND;
		return clone_to(__NR_clone3, (long)&args, sizeof(args), 0, 0, 0, task_main);
	}
	return clone_to(__NR_clone, (flags & 0xffffff00ul) | args.exit_signal, (long)stack,
			(long)&shared->event[6], (long)&shared->event[7], 0, task_main);
}

/*
 * How: bit 0, clone3; bit 1, on the same stack, as vfork and fork do; bit 2, CLEAR_SIGHAND. The
 * child of a vfork on the same stack has its parent's context until that goes on.
 */
static long op_clone(struct ctx *ctx, const uint32_t *arg)
{
	uint64_t flags = arg[0] & ~(uint32_t)(CLONE_SETTLS | CLONE_NEWNET);
	uint32_t task = ctx->task, slot = ctx->slot, start = ctx->start, nest = ctx->nest;
	uint32_t how = arg[3];
	long ret;

	if ((flags & CLONE_VM) && !(flags & CLONE_VFORK))
		how &= ~2u;
	ctx->start = arg[1];
	ret = clone_by(ctx, flags, arg[1], arg[2], how);
	ctx->start = start;
	ctx->task = task;
	ctx->slot = slot;
	ctx->nest = nest;
	return ret;
}

static long op_fork(struct ctx *ctx, const uint32_t *arg)
{
	const uint32_t clone[ARGS] = { 0, arg[0], SIGCHLD, 2 };

	return op_clone(ctx, clone);
}

static long op_vfork(struct ctx *ctx, const uint32_t *arg)
{
	const uint32_t clone[ARGS] = { CLONE_VM | CLONE_VFORK, arg[0], SIGCHLD, arg[1] & 3 };

	return op_clone(ctx, clone);
}

#define THREAD_FLAGS	(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | \
			 CLONE_SYSVSEM)

static long op_thread(struct ctx *ctx, const uint32_t *arg)
{
	long ret = 0;

	for (uint32_t i = 0; i <= arg[1] % 100 && ret >= 0; i++)
		ret = clone_by(ctx, THREAD_FLAGS, arg[0], 0, 0);
	return ret;
}

static long op_exec(struct ctx *ctx, const uint32_t *arg)
{
	static const char *const argv[] = { "fuzz", "after-exec", NULL }, *const envp[] = { NULL };

	return SYS(execve, arg[0] & 1 ? "/proc/self/exe" : "/", argv, envp);
}

static long op_exit(struct ctx *ctx, const uint32_t *arg)
{
	return arg[0] & 1 ? SYS(exit_group, 0) : SYS(exit, 0);
}

/*
 * Signals, tracing, waiting
 */

static const int signals[] = {
	SIGUSR1, SIGUSR2, SIGALRM, SIGTERM, SIGCHLD, SIGKILL, SIGSTOP, SIGCONT, SIGABRT, SIGHUP,
};

static int signal_of(uint32_t n)
{
	return signals[n % ARRAY_SIZE(signals)];
}

static pid_t target(uint32_t n)
{
	pid_t tid = shared->tid[n % TASKS];

	return tid > 1 ? tid : 0x3fffff;
}

static long op_kill(struct ctx *ctx, const uint32_t *arg)
{
	if (arg[2] & 1)
		return SYS(kill, target(arg[0]), signal_of(arg[1]));
	return SYS(tkill, target(arg[0]), signal_of(arg[1]));
}

static long op_handle(struct ctx *ctx, const uint32_t *arg)
{
	int signal = signal_of(arg[0]);

	shared->handler[signal] = arg[1];
	return set_handler(signal, on_signal,
			   (arg[2] & 1 ? SA_RESTART : 0) | (arg[2] & 2 ? SA_NODEFER : 0));
}

static long op_mask(struct ctx *ctx, const uint32_t *arg)
{
	unsigned long mask = 0;

	for (unsigned int i = 0; i < ARRAY_SIZE(signals); i++)
		mask |= arg[1] >> i & 1 ? 1ul << (signals[i] - 1) : 0;
	return SYS(rt_sigprocmask, arg[0] % 3, &mask, NULL, 8);
}

static long op_timer(struct ctx *ctx, const uint32_t *arg)
{
	struct itimerval timer = { .it_value.tv_usec = 300 + arg[0] % 20000 };

	if (arg[1] & 1)
		timer.it_interval = timer.it_value;
	return SYS(setitimer, ITIMER_REAL, &timer, NULL);
}

static long op_trace(struct ctx *ctx, const uint32_t *arg)
{
	static const int requests[] = {
		PTRACE_SEIZE, PTRACE_ATTACH, PTRACE_CONT, PTRACE_SYSCALL, PTRACE_INTERRUPT,
		PTRACE_LISTEN, PTRACE_DETACH, PTRACE_KILL, PTRACE_SINGLESTEP, PTRACE_TRACEME,
	};
	int request = requests[arg[0] % ARRAY_SIZE(requests)];
	long data = request == PTRACE_SEIZE ? (long)(arg[2] & 0x7f) : 0;

	return SYS(ptrace, request, target(arg[1]), 0, data);
}

static long op_wait(struct ctx *ctx, const uint32_t *arg)
{
	int status;

	return SYS(wait4, -1, &status,
		   __WALL | (arg[0] & 1 ? 0 : WNOHANG) | (arg[0] & 2 ? WUNTRACED : 0), NULL);
}

static long op_unshare(struct ctx *ctx, const uint32_t *arg)
{
	static const int what[] = {
		CLONE_FILES, CLONE_NEWUSER, CLONE_NEWPID, 0x80 /* CLONE_NEWTIME */, CLONE_NEWNS,
		CLONE_NEWUTS, CLONE_FS, CLONE_VM, CLONE_THREAD,
	};
	int flags = 0;

	for (unsigned int i = 0; i < ARRAY_SIZE(what); i++)
		flags |= arg[0] >> i & 1 ? what[i] : 0;
	return SYS(unshare, flags);
}

static long op_freeze(struct ctx *ctx, const uint32_t *arg)
{
	shared->freeze = 1 + arg[0] % 20;
	return 0;
}

/*
 * When, and on which processor
 */

static long op_post(struct ctx *ctx, const uint32_t *arg)
{
	uint32_t *event = &shared->event[arg[0] % 6];

	add(event, 1);
	return SYS(futex, event, FUTEX_WAKE, 100);
}

static long op_await(struct ctx *ctx, const uint32_t *arg)
{
	const struct timespec limit = { 0, 30 * MSEC };
	uint32_t *event = &shared->event[arg[0] % 6];

	return SYS(futex, event, FUTEX_WAIT, arg[1] % 4, &limit);
}

static long op_sleep(struct ctx *ctx, const uint32_t *arg)
{
	sleep_us(arg[0] % 10000);
	return 0;
}

static long op_yield(struct ctx *ctx, const uint32_t *arg)
{
	for (volatile uint32_t i = 0; i < arg[0] % 5000; i++)
		;
	return SYS(sched_yield);
}

static long op_cpu(struct ctx *ctx, const uint32_t *arg)
{
	unsigned long mask = arg[0] % 3 + 1;

	return SYS(sched_setaffinity, 0, sizeof(mask), &mask);
}

static long op_membarrier(struct ctx *ctx, const uint32_t *arg)
{
	return SYS(membarrier, 1 << arg[0] % 8, 0, 0);
}

static long op_rename(struct ctx *ctx, const uint32_t *arg)
{
	return SYS(prctl, PR_SET_NAME, arg[0] & 1 ? "a \\\n\"" : "fuzz");
}

static long op_look(struct ctx *ctx, const uint32_t *arg)
{
	static const char *const files[] = {
		"/sys/kernel/debug/forkgate/gates", "/sys/kernel/debug/forkgate/stats",
		"/proc/self/smaps", "/proc/self/maps", "/proc/self/pagemap",
	};
	int fd = SYS(open, files[arg[0] % ARRAY_SIZE(files)], O_RDONLY, 0);

	if (fd < 0)
		return fd;
	while (SYS(read, fd, ctx->arg, sizeof(ctx->arg)) > 0 && !(arg[1] & 1))
		;
	return SYS(close, fd);
}

static long op_fail(struct ctx *ctx, const uint32_t *arg)
{
	ctx->fail = 1 + arg[0] % 60;
	return 0;
}

static long op_again(struct ctx *ctx, const uint32_t *arg)
{
	if (ctx->nest >= NEST)
		return 0;
	ctx->nest++;
	run_script(ctx, arg[0]);
	ctx->nest--;
	return 0;
}

const struct op_type op_types[] = {
	{ "register", "hz", op_register },
	{ "enter", "dfh", op_enter },
	{ "leave", "dfh", op_leave },
	{ "fork", "s", op_fork },
	{ "vfork", "sn", op_vfork },
	{ "clone", "csgn", op_clone },
	{ "prepare", "hdft", op_prepare },
	{ "poll", "n", op_poll },
	{ "release", "h", op_release },
	{ "policy", "hpnz", op_policy_set },
	{ "post", "e", op_post },
	{ "await", "en", op_await },
	{ "poke", "konx", op_poke },
	{ "kill", "knn", op_kill },
	{ "handle", "nsn", op_handle },
	{ "unmap", "wo", op_unmap },
	{ "map", "wnnn", op_map },
	{ "thread", "sq", op_thread },
	{ "exec", "n", op_exec },
	{ "exit", "n", op_exit },
	{ "sleep", "u", op_sleep },
	{ "fail", "m", op_fail },
	{ "enter_call", "hdfl", op_enter_call },
	{ "leave_call", "hdf", op_leave_call },
	{ "unregister", "h", op_unregister },
	{ "policy_get", "h", op_policy_get },
	{ "state", "hnz", op_state },
	{ "query", "hn", op_query },
	{ "raw", "nixn", op_raw },
	{ "open", "n", op_open },
	{ "close", "", op_close },
	{ "seek", "nn", op_seek },
	{ "remap", "wnnn", op_remap },
	{ "protect", "won", op_protect },
	{ "advise", "won", op_advise },
	{ "gup", "won", op_gup },
	{ "mask", "nm", op_mask },
	{ "timer", "un", op_timer },
	{ "trace", "nkx", op_trace },
	{ "wait", "n", op_wait },
	{ "unshare", "m", op_unshare },
	{ "freeze", "n", op_freeze },
	{ "yield", "u", op_yield },
	{ "cpu", "n", op_cpu },
	{ "membarrier", "n", op_membarrier },
	{ "rename", "n", op_rename },
	{ "look", "nn", op_look },
	{ "again", "s", op_again },
};

const unsigned int nr_op_types = ARRAY_SIZE(op_types);

/*
 * Victims
 */

static const struct forkgate_policy default_policy = {
	.patience = 2 * MSEC,
	.ticket_hold = 5 * MSEC,
	.timeout = 20 * MSEC,
	.backstop = 20 * MSEC,
};

/* The victim's first thread makes the others, and runs the first script itself. */
static void victim_main(void)
{
	const uint32_t map[ARGS] = {}, open[ARGS] = {};
	struct ctx *ctx = cur();

	task_start(ctx);
	set_handler(SIGSEGV, on_signal, SA_NODEFER);
	set_handler(SIGBUS, on_signal, SA_NODEFER);
	op_open(ctx, open);
	op_map(ctx, map);
	call(ctx, 0, FORKGATE_IOC_POLICY_SET, &default_policy);
	for (uint32_t i = 1; i < shared->prog.threads; i++)
		clone_by(ctx, THREAD_FLAGS, i, 0, 0);
	run_script(ctx, 0);
	SYS(exit, 0);
}

/* The first process of the namespace: shares the fuzzer's memory, makes the victim, and reaps */
static void init_main(void)
{
	struct timespec begin, now;
	long ret, ms;
	int status;

	clone_to(__NR_clone, SIGCHLD, (long)stack_top(0), 0, 0, 0, victim_main);
	SYS(clock_gettime, CLOCK_MONOTONIC, &begin);
	do {
		ret = SYS(wait4, -1, &status, WNOHANG | __WALL, NULL);
		if (!ret)
			sleep_us(500);
		SYS(clock_gettime, CLOCK_MONOTONIC, &now);
		ms = (now.tv_sec - begin.tv_sec) * 1000 + (now.tv_nsec - begin.tv_nsec) / 1000000;
	} while (ret >= 0 && ms < VICTIM_MS);
	SYS(exit_group, 0);
}

/* victim_start - run shared->prog; the pid of what ends with it, or a negative errno */
int victim_start(int cgroup)
{
	struct clone_args args = {
		.flags = CLONE_VM | CLONE_NEWPID | CLONE_INTO_CGROUP,
		.exit_signal = SIGCHLD,
		.stack = (uintptr_t)stack_ctx(STACKS),
		.stack_size = STACK_SIZE,
		.cgroup = cgroup,
	};

	memset(stack_ctx(0), 0, sizeof(struct ctx));
	return clone_to(__NR_clone3, (long)&args, sizeof(args), 0, 0, 0, init_main);
}

static void *memory(unsigned long at, size_t size, int prot, int flags)
{
	void *map = mmap((void *)at, size, prot, MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | flags,
			 -1, 0);

	if (map != (void *)at) {
		perror("fuzz: mmap");
		exit(1);
	}
	return map;
}

/* ops_init - memory at fixed addresses, which is what makes programs repeatable */
void ops_init(void)
{
	shared = memory(SHARED_AT, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED);
	memory(STACKS_AT, (STACKS + 1) * STACK_SIZE, PROT_READ | PROT_WRITE,
	       MAP_PRIVATE | MAP_NORESERVE);
	memory((uintptr_t)READ_ONLY, FORKGATE_UNIT_SIZE, PROT_READ, MAP_PRIVATE);
}

/* after_exec - what a victim is after an exec: a process that makes a gate of its own, and forks */
int after_exec(void)
{
	int fd = open(DEVICE, O_RDWR | O_CLOEXEC);
	struct forkgate_register reg = {};
	void *map;
	pid_t pid;

	if (fd < 0)
		return 1;
	map = mmap(NULL, FORKGATE_MAP_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED || ioctl(fd, FORKGATE_IOC_REGISTER, &reg))
		return 1;
	pid = fork();
	if (!pid)
		_exit(0);
	return pid < 0 || waitpid(pid, NULL, 0) != pid;
}
