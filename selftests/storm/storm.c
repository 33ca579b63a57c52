// SPDX-License-Identifier: GPL-2.0-only
/*
 * Threads that enter, leave, nest, fork, prepare, exit and are
 * interrupted at random, and children that look for what must not be there:
 * another thread's open section.
 *
 * The detector knows nothing of the gate's counters. A thread inside a memory
 * section has begun more levels than it has ended; a thread inside a files
 * section has one descriptor of a pair but not the other. A child whose copy
 * shows either for another thread was copied at the wrong moment. The first
 * part runs the same storm without a gate and must find such children.
 *
 * What a thread does is drawn from the seed, its number and its incarnation;
 * when signals arrive is not.
 *
 * It must not allocate memory or take a lock of the C library inside a
 * section: fork() of the C library holds such locks while it waits.
 */
#include "../test/fork.h"

#include <getopt.h>
#include <kselftest.h>
#include <spawn.h>
#include <sys/resource.h>

#define MAX_THREADS	64
#define FD_BASE		256	/* of the pairs; other descriptors stay below */
#define MAX_NESTING	4
#define STACK_SIZE	(64 * 1024)
#define MS		NSEC_PER_MSEC

/* A child's exit status */
#define SAW_MEMORY	1	/* another thread inside a memory section */
#define SAW_FILES	2	/* another thread inside a files section */
#define BAD_GATE	4	/* its own gate is not as new, or does not work */
#define WAS_UNSAFE	8
#define WAS_BYPASSED	16
#define DESCENDANT	32	/* its own child found something */

/* Exit status of a part: what was wrong */
#define FAIL_VIOLATION	1
#define FAIL_GATE	2
#define FAIL_COPY	4
#define FAIL_CALL	8
#define FAIL_END	16
#define FAIL_HANG	32

enum { NORMAL, HANDLER, CONTEXTS };

/**
 * struct shadow - what children look at; written by one thread alone
 * @begun: levels of memory sections, by context
 * @ended: likewise
 */
struct shadow {
	__u64 begun[CONTEXTS];
	__u64 ended[CONTEXTS];
};

struct actor {
	unsigned int index;
	unsigned int incarnation;
	pthread_t thread;
	bool running;
	int exited;
	pid_t tid;
	__u64 random[CONTEXTS];
	struct forkgate_slot *slot;
	unsigned int files[CONTEXTS];	/* nesting of files sections */
	bool paired[CONTEXTS];		/* both descriptors are open */
	timer_t timer;
	__u64 interval;			/* ns from one handler to the next, 0: no next */
	char *stack;
	const char *doing;
	__u64 progress;
};

enum count {
	SECTIONS, HANDLERS, BUSY, FORKS, VFORKS, SPAWNS, AGAIN, DEADLOCKS,
	PREPARED, NOT_PREPARED, RELEASED, EXITS, ABANDONED, TICKETS_LOST, POLICIES, KILLED,
	VIOLATIONS, UNSAFE, BYPASSED, BAD_GATES, BAD_CALLS, NR_COUNTS,
};

static const char *const count_names[NR_COUNTS] = {
	"sections", "handlers", "busy", "forks", "vforks", "spawns", "EAGAIN",
	"EDEADLK", "prepared", "not prepared", "released", "exits", "abandoned",
	"lost tickets", "policies", "killed children", "violations", "unsafe", "bypassed",
	"bad gates", "bad calls",
};

/* Options */
static unsigned int option_seconds = 60;
static unsigned int option_threads = 10;
static unsigned int option_limit = 120;
static unsigned int option_kills = 5;
static unsigned int option_forks = 15;
static __u64 option_seed;

/* The running part */
static bool gated;
static bool delays;
static int stop;
static int may_proceed;	/* policies may say FORKGATE_PROCEED */
static int null_fd;
static struct shadow shadows[MAX_THREADS];
static struct actor actors[MAX_THREADS + 1];	/* the last: the main thread */
static __u64 counts[NR_COUNTS];
static __thread struct actor *self;

static void count(enum count what)
{
	__atomic_add_fetch(&counts[what], 1, __ATOMIC_RELAXED);
}

/* In the children of raw clones too, hence without stdio's locks. */
static void say(const char *format, ...)
{
	char line[400] = "# ";
	va_list args;
	int length;

	va_start(args, format);
	length = vsnprintf(line + 2, sizeof(line) - 3, format, args);
	va_end(args);
	if (length > (int)sizeof(line) - 4)
		length = sizeof(line) - 4;
	line[length + 2] = '\n';
	if (write(STDOUT_FILENO, line, length + 3) < 0)
		_exit(FAIL_CALL);
}

static void bad_call(const char *what, int error)
{
	if (__atomic_add_fetch(&counts[BAD_CALLS], 1, __ATOMIC_RELAXED) <= 20)
		say("thread %u: %s: %s", self->index, what, strerror(error));
}

static __u64 next_random(struct actor *w, int context)
{
	__u64 x = w->random[context];

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	w->random[context] = x;
	return x * 0x2545f4914f6cdd1dULL >> 24;
}

static unsigned int below(struct actor *w, int context, unsigned int limit)
{
	return next_random(w, context) % limit;
}

static bool chance(struct actor *w, int context, unsigned int percent)
{
	return below(w, context, 100) < percent;
}

static __u64 now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000 * MS + ts.tv_nsec;
}

static void nap(__u64 ns)
{
	struct timespec ts = { ns / (1000 * MS), ns % (1000 * MS) };

	nanosleep(&ts, NULL);
}

/* Some time: mostly none, at times enough for others to pile up */
static void dawdle(struct actor *w, int context)
{
	unsigned int kind = below(w, context, 20);

	if (kind < 12) {
		for (unsigned int i = below(w, context, 3000); i; i--)
			barrier();
	} else if (kind < 17) {
		sched_yield();
	} else {
		nap(below(w, context, kind == 19 ? 5000000 : 500000));
	}
}

static int pair_fd(unsigned int index, int context, int which)
{
	return FD_BASE + (index * CONTEXTS + context) * 2 + which;
}

/* The first or the second half of opening or closing a pair */
static void pair_step(struct actor *w, int context, int which)
{
	int fd = pair_fd(w->index, context, which);

	if (w->paired[context])
		close(fd);
	else if (dup2(null_fd, fd) < 0)
		bad_call("dup2", errno);
	if (which)
		w->paired[context] = !w->paired[context];
}

static void section_begin(struct actor *w, int context, unsigned int domains)
{
	struct shadow *shadow = &shadows[w->index];

	if (domains & MEMORY)
		WRITE_ONCE(shadow->begun[context], shadow->begun[context] + 1);
	if (domains & FILES && !w->files[context]++)
		pair_step(w, context, 0);
}

static void section_end(struct actor *w, int context, unsigned int domains)
{
	struct shadow *shadow = &shadows[w->index];

	if (domains & FILES && !--w->files[context])
		pair_step(w, context, 1);
	if (domains & MEMORY)
		WRITE_ONCE(shadow->ended[context], shadow->ended[context] + 1);
}

/* Enter by the inline path, at times by the kernel alone */
static int enter(struct actor *w, int context, unsigned int domains)
{
	bool try = chance(w, context, 10);
	bool call = gated && chance(w, context, 5);
	unsigned int flags = try ? FORKGATE_NONBLOCK : 0;
	__u32 before[2] = { slot->depth[0], slot->depth[1] };
	int ret;

	if (call)
		ret = gate_enter_by_call(domains, flags);
	else
		ret = gate_enter_flags(domains, flags);
	if (try && ret == -EBUSY) {
		count(BUSY);
		if (slot->depth[0] != before[0] || slot->depth[1] != before[1])
			bad_call("tryenter changed the depth", 0);
	} else if (ret) {
		bad_call("enter", -ret);
	}
	return ret;
}

static void leave(struct actor *w, int context, unsigned int domains)
{
	int ret;

	if (gated && chance(w, context, 5))
		ret = gate_leave_by_call(domains);
	else
		ret = gate_leave(domains);
	if (ret)
		bad_call("leave", -ret);
	count(SECTIONS);
}

/* Is one of @index's pairs half open in this descriptor table? */
static bool half_open(unsigned int index, int context)
{
	bool open[2];

	for (int which = 0; which < 2; which++)
		open[which] = fcntl(pair_fd(index, context, which), F_GETFD) >= 0;
	return open[0] != open[1];
}

/* In a child: what does @index, another thread, show in these domains? */
static unsigned int look_at(unsigned int index, unsigned int domains)
{
	const struct shadow *shadow = &shadows[index];
	unsigned int saw = 0;

	for (int context = 0; context < CONTEXTS; context++) {
		if (domains & MEMORY &&
		    READ_ONCE(shadow->begun[context]) != READ_ONCE(shadow->ended[context]))
			saw |= SAW_MEMORY;
		if (domains & FILES && half_open(index, context))
			saw |= SAW_FILES;
	}
	return saw;
}

/* In a child: which domains show any other thread's open section? */
static unsigned int look(const struct actor *w, unsigned int domains)
{
	unsigned int all = 0, saw;

	for (unsigned int i = 0; i < option_threads; i++) {
		saw = i == w->index ? 0 : look_at(i, domains);
		/* That of a vfork child may have been unsafe: its parent knows. */
		if (saw && gated && !READ_ONCE(may_proceed))
			say("child of thread %u: thread %u is inside, saw %u", w->index, i, saw);
		all |= saw;
	}
	return all;
}

/* own_header - of the caller's unit; a thread without a slot goes by the first one */
static const struct forkgate_header *own_header(void)
{
	return slot ? slot_header(slot) : gate.head;
}

/* In a child with its own memory: is its gate as new, and does it work? */
static bool gate_works(const struct actor *w, const __u32 *depth)
{
	struct forkgate_state state = gate_state();
	bool inside = depth[0] || depth[1];
	int ret;

	if (READ_ONCE(own_header()->closed) || state.closed || state.forkers || state.blocked ||
	    state.threads != !!slot || state.holders_count != inside) {
		say("child of thread %u: closed %x %x, %u %u wait, %u threads, %u inside (%d)",
		    w->index, own_header()->closed, state.closed, state.forkers, state.blocked,
		    state.threads, state.holders_count, inside);
		return false;
	}
	for (unsigned int i = 0; i < option_threads + 2; i++) {
		const struct forkgate_slot *other = gate_slot(i);
		bool own = other == slot;

		if (other->tid != (own ? (__u32)sys_gettid() : 0) ||
		    other->depth[0] != (own ? depth[0] : 0) ||
		    other->depth[1] != (own ? depth[1] : 0)) {
			say("child of thread %u: slot %u (own %d): tid %u, depth %u %u, was %u %u",
			    w->index, i, own, other->tid, other->depth[0], other->depth[1],
			    depth[0], depth[1]);
			return false;
		}
	}
	if (!slot) {
		ret = gate_register();
		if (ret < 0) {
			say("child of thread %u: register %d", w->index, ret);
			return false;
		}
	}
	ret = gate_enter(MEMORY);
	if (!ret)
		ret = gate_enter_by_call(BOTH, 0);
	if (!ret)
		ret = gate_leave(MEMORY);
	if (!ret)
		ret = gate_leave_by_call(BOTH);
	if (ret || slot->depth[0] != depth[0] || slot->depth[1] != depth[1]) {
		say("child of thread %u: enter and leave %d, depth %u %u, was %u %u", w->index,
		    ret, slot->depth[0], slot->depth[1], depth[0], depth[1]);
		return false;
	}
	return true;
}

/**
 * struct copy - one clone and what its child is to do
 * @w: the forking thread
 * @flags: of the clone
 * @depth: of the forker's slot before
 * @descend: how many generations of children to fork
 * @blind: domains not to look at: the forker is a child whose own copy was unsafe, or
 *	whose descriptor table is that of another process, with sections of its own
 * @stay: wait for SIGKILL
 * @parent: the forking process
 */
struct copy {
	struct actor *w;
	__u64 flags;
	__u32 depth[2];
	unsigned int descend;
	unsigned int blind;
	bool stay;
	pid_t parent;
};

static unsigned int copied_domains(__u64 flags)
{
	return (flags & CLONE_VM ? 0 : MEMORY) |
	       (flags & CLONE_FILES ? 0 : FILES);
}

static int child(const struct copy *copy);

/* In a child: fork another, which must find everything in order except in the domains @blind. */
static bool descend(const struct copy *copy, unsigned int blind)
{
	struct copy again = {
		.w = copy->w,
		.depth = { copy->depth[0], copy->depth[1] },
		.descend = copy->descend - 1,
		.blind = blind,
	};
	int status = 0;
	pid_t pid;

	pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	if (!pid)
		_exit(child(&again));
	if (pid > 0 && waitpid(pid, &status, __WALL) == pid && !status)
		return true;
	say("grandchild of thread %u: pid %d, status %x", copy->w->index, pid, status);
	return false;
}

/* Runs in the child, returns its exit status. */
static int child(const struct copy *copy)
{
	unsigned int domains = copied_domains(copy->flags), how = 0, result = 0;
	unsigned int blind = copy->blind;
	struct actor *w = copy->w;

	/* A vfork child's header is its parent's. */
	if (gated && domains & MEMORY) {
		how = own_header()->copy;
		if (how & FORKGATE_COPY_BYPASSED)
			result |= WAS_BYPASSED;
		else if (how)
			result |= WAS_UNSAFE;
		if (how & FORKGATE_COPY_UNSAFE_MEMORY)
			domains &= ~MEMORY;
		if (how & FORKGATE_COPY_UNSAFE_FILES)
			domains &= ~FILES;
	}
	domains &= ~copy->blind;
	if (!(how & FORKGATE_COPY_BYPASSED))
		result |= look(w, domains);
	if (how)
		blind |= BOTH;
	if (copy->flags & CLONE_FILES)
		blind |= FILES;
	if (copy->flags & CLONE_VM) {
		/* It stands for the slot of its parent, which sleeps. */
		if (gated && copy->descend) {
			if (gate_enter(FILES) || gate_leave(FILES))
				result |= BAD_GATE;
		}
		return result;
	}
	if (gated && !gate_works(w, copy->depth))
		result |= BAD_GATE;
	if (copy->descend && !descend(copy, blind))
		result |= DESCENDANT;
	if (copy->stay) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		while (getppid() == copy->parent)
			pause();
	}
	return result;
}

static int child_function(void *copy)
{
	_exit(child(copy));
}

static void reap(struct actor *w, pid_t pid, const struct copy *copy,
		 bool unsafe)
{
	unsigned int result;
	int status;

	if (copy->stay) {
		kill(pid, SIGKILL);
		count(KILLED);
	}
	while (waitpid(pid, &status, __WALL) < 0) {
		if (errno != EINTR) {
			bad_call("waitpid", errno);
			return;
		}
	}
	if (copy->stay)
		return;
	if (!WIFEXITED(status)) {
		bad_call("the child did not exit by itself", 0);
		return;
	}
	result = WEXITSTATUS(status);
	if (unsafe)
		result = (result & ~SAW_FILES) | WAS_UNSAFE;
	if (result & (SAW_MEMORY | SAW_FILES)) {
		count(VIOLATIONS);
		if (gated)
			say("VIOLATION: child %d of thread %u, flags %llx, status %x",
			    pid, w->index, copy->flags,
			    result);
	}
	if (result & WAS_UNSAFE) {
		count(UNSAFE);
		if (!READ_ONCE(may_proceed)) {
			bad_call("the copy was unsafe against the policy", 0);
			count(BAD_GATES);
		}
	}
	if (result & WAS_BYPASSED)
		count(BYPASSED);
	if (result & (BAD_GATE | DESCENDANT))
		count(BAD_GATES);
}

static void clone_failed(const char *what, int error)
{
	if (error == EAGAIN)
		count(AGAIN);
	else if (gated && error == EDEADLK)
		count(DEADLOCKS);
	else
		bad_call(what, error);
}

static void spawn(void)
{
	char *const argv[] = { "storm", "--nothing", NULL };
	int ret, status;
	pid_t pid;

	ret = posix_spawn(&pid, "/proc/self/exe", NULL, NULL, argv, environ);
	if (ret) {
		clone_failed("posix_spawn", ret);
		return;
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (status)
		bad_call("the spawned program failed", 0);
	count(SPAWNS);
}

static void block_signals(sigset_t *before)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	sigaddset(&set, SIGRTMIN + 1);
	sigprocmask(SIG_BLOCK, &set, before);
}

/* Fork in one of the ways that share no memory; those a handler may use */
static void fork_copy(struct actor *w, int context, bool libc)
{
	struct clone_args args = { .exit_signal = SIGCHLD };
	struct copy copy = { .w = w };
	const char *what;
	pid_t pid;

	if (gated && chance(w, context, 10))
		copy.descend = 1 + below(w, context, 2);
	copy.stay = chance(w, context, 5);
	copy.parent = getpid();
	if (slot)
		memcpy(copy.depth, slot->depth, sizeof(copy.depth));
	if (chance(w, context, 25))
		copy.flags = CLONE_FILES;
	if (libc) {
		copy.flags = 0;
		what = "fork";
		pid = fork();
	} else if (chance(w, context, 50)) {
		what = "clone";
		pid = syscall(SYS_clone, copy.flags | SIGCHLD, 0, 0, 0, 0);
	} else {
		what = "clone3";
		args.flags = copy.flags;
		pid = syscall(SYS_clone3, &args, sizeof(args));
	}
	if (!pid)
		_exit(child(&copy));
	if (pid < 0) {
		clone_failed(what, errno);
		return;
	}
	count(FORKS);
	reap(w, pid, &copy, false);
}

/* Fork in one of the ways that share memory */
static void fork_shared(struct actor *w, int context)
{
	struct copy copy = { .w = w, .flags = CLONE_VM | CLONE_VFORK };
	bool unsafe = false, blocked;
	sigset_t before;
	pid_t pid;

	copy.descend = slot && chance(w, context, 30);
	/* A handler's fork must not change the outcome before it is read. */
	blocked = gated && READ_ONCE(may_proceed);
	if (blocked)
		block_signals(&before);
	if (chance(w, context, 20))
		copy.flags |= CLONE_FILES;
	pid = clone(child_function, w->stack + STACK_SIZE, copy.flags | SIGCHLD, &copy);
	if (pid > 0 && gated && slot && copied_domains(copy.flags)) {
		if (blocked)
			unsafe = slot->outcome == FORKGATE_OUTCOME_UNSAFE;
		else	/* allowed while it waited: the outcome may be a handler's */
			unsafe = READ_ONCE(may_proceed);
	}
	if (pid < 0)
		clone_failed("vfork", errno);
	if (blocked)
		sigprocmask(SIG_SETMASK, &before, NULL);
	if (pid < 0)
		return;
	count(VFORKS);
	reap(w, pid, &copy, unsafe);
}

static void fork_somehow(struct actor *w)
{
	unsigned int kind = below(w, NORMAL, 100);

	if (kind < 20) {
		w->doing = "fork";
		fork_copy(w, NORMAL, true);
	} else if (kind < 70) {
		w->doing = "clone";
		fork_copy(w, NORMAL, false);
	} else if (kind < 97) {
		w->doing = "vfork";
		fork_shared(w, NORMAL);
	} else {
		w->doing = "posix_spawn";
		spawn();
	}
}

/*
 * Exit without leaving: the kernel must forget this thread's sections. The
 * shadow is completed first, because no other thread will do it.
 */
static void abandon(struct actor *w, enum count what)
{
	struct shadow *shadow = &shadows[w->index];

	if (w->files[NORMAL])
		pair_step(w, NORMAL, 1);
	WRITE_ONCE(shadow->ended[NORMAL], shadow->begun[NORMAL]);
	w->interval = 0;
	timer_delete(w->timer);
	count(what);
	WRITE_ONCE(w->exited, 1);
	/* Not through the C library, whose exit of a thread takes locks. */
	syscall(SYS_exit, 0);
}

static void sections(struct actor *w, int context, unsigned int nesting)
{
	unsigned int domains = 1 + below(w, context, BOTH);

	if (enter(w, context, domains))
		return;
	section_begin(w, context, domains);
	dawdle(w, context);
	while (nesting < MAX_NESTING && chance(w, context, 35))
		sections(w, context, nesting + 1);
	if (context == NORMAL) {
		if (chance(w, context, 3)) {
			fork_somehow(w);
			w->doing = "section";
		}
		if (!READ_ONCE(stop) && chance(w, context, 1) && chance(w, context, 30))
			abandon(w, ABANDONED);
	}
	dawdle(w, context);
	section_end(w, context, domains);
	leave(w, context, domains);
}

/*
 * A signal comes a while after the last one was handled, not a while after it
 * came: a thread that is kept out in its handler for longer than that would do
 * nothing but handle signals, perhaps with a lock that a section waits for.
 */
static void arm(struct actor *w, __u64 ns)
{
	struct itimerspec when = { .it_value.tv_nsec = ns };

	timer_settime(w->timer, 0, &when, NULL);
}

static void handler(int signal)
{
	int saved = errno;
	struct actor *w = self;

	(void)signal;
	count(HANDLERS);
	if (chance(w, HANDLER, 75))
		sections(w, HANDLER, MAX_NESTING - 1);
	if (chance(w, HANDLER, 3))
		fork_copy(w, HANDLER, false);
	if (w->interval)
		arm(w, w->interval);
	errno = saved;
}

static void set_timer(struct actor *w)
{
	w->interval = 0;
	if (chance(w, NORMAL, 10))
		w->interval = (10 + below(w, NORMAL, 30)) * MS;
	arm(w, 1 + below(w, NORMAL, 5 * MS));
}

/*
 * No wait may be endless, nor long: a thread in libc's fork(), which holds a
 * lock, may be kept out in its signal handler again and again while a section
 * waits for that lock. It sleeps 10 ms or more from one handler to the next, so
 * that its time is up after 50 of them.
 */
static void set_policy(struct actor *w)
{
	static const __u64 patience[] = { 0, MS, 10 * MS, 100 * MS };
	static const __u64 hold[] = { 0, MS, 20 * MS, 100 * MS };
	static const __u64 timeout[] = { 5 * MS, 100 * MS, 500 * MS };
	static const __u64 backstop[] = { 2 * MS, 100 * MS, 500 * MS };
	struct forkgate_policy policy;
	int ret;

	policy = (struct forkgate_policy){
		.patience = patience[below(w, NORMAL, 4)],
		.ticket_hold = hold[below(w, NORMAL, 4)],
		.timeout = timeout[below(w, NORMAL, 3)],
		.backstop = backstop[below(w, NORMAL, 3)],
	};
	if (READ_ONCE(may_proceed) && chance(w, NORMAL, 30))
		policy.on_timeout = FORKGATE_PROCEED;
	ret = gate_set_policy(&policy);
	if (!ret)
		ret = gate_call(FORKGATE_IOC_POLICY_GET, &policy);
	if (ret)
		bad_call("policy", -ret);
	count(POLICIES);
}

static void prepare(struct actor *w)
{
	unsigned int tries = 1 + below(w, NORMAL, 4), domains, flags;
	__u64 timeout;
	int ret = -EAGAIN;

	w->doing = "prepare";
	for (unsigned int attempt = 0; ret && attempt < tries; attempt++) {
		domains = 1 + below(w, NORMAL, BOTH);
		flags = 0;
		timeout = 0;
		if (chance(w, NORMAL, 20))
			flags |= FORKGATE_NONBLOCK;
		if (chance(w, NORMAL, 20)) {
			flags |= FORKGATE_TIMED;
			timeout = below(w, NORMAL, 50) * MS;
		}
		ret = gate_prepare_with(domains, flags, timeout, attempt, NULL);
		if (ret == -EDEADLK)
			count(DEADLOCKS);
		else if (ret == -EAGAIN || ret == -ETIMEDOUT)
			count(AGAIN);
		else if (ret && ret != -EALREADY && ret != -EINTR)
			bad_call("prepare", -ret);
		if (ret && chance(w, NORMAL, 30))
			dawdle(w, NORMAL);
	}
	count(ret ? NOT_PREPARED : PREPARED);
	if (chance(w, NORMAL, 20)) {
		w->doing = "section with a ticket";
		sections(w, NORMAL, MAX_NESTING - 1);
	}
	if (chance(w, NORMAL, 10))
		nap(below(w, NORMAL, 30) * MS);
	if (!READ_ONCE(stop) && chance(w, NORMAL, 1))
		abandon(w, TICKETS_LOST);
	if (chance(w, NORMAL, 70))
		fork_somehow(w);
	else
		count(RELEASED);
	w->doing = "release";
	ret = gate_release();
	if (ret && ret != -ENOENT && ret != -ESTALE)
		bad_call("release", -ret);
}

static void reregister(struct actor *w)
{
	int ret;

	w->doing = "register";
	ret = gate_unregister();
	if (!ret)
		ret = gate_register();
	if (ret < 0)
		bad_call("register", -ret);
	w->slot = slot;
}

static void actor_start(struct actor *w)
{
	struct sigevent event = {
		.sigev_notify = SIGEV_THREAD_ID,
		.sigev_signo = SIGRTMIN + (int)below(w, NORMAL, 2),
	};
	int ret;

	self = w;
	w->tid = sys_gettid();
	if (gated) {
		ret = gate_register();
		if (ret < 0)
			bad_call("register", -ret);
	} else {
		slot = gate_slot(w->index);
	}
	w->slot = slot;
	event._sigev_un._tid = w->tid;
	if (timer_create(CLOCK_MONOTONIC, &event, &w->timer))
		bad_call("timer_create", errno);
}

static void *actor_main(void *argument)
{
	struct actor *w = argument;
	bool leaves = false;
	sigset_t before;

	actor_start(w);
	while (!leaves && !READ_ONCE(stop)) {
		unsigned int op = below(w, NORMAL, 1000);

		WRITE_ONCE(w->progress, w->progress + 1);
		if (chance(w, NORMAL, 30))
			set_timer(w);
		w->doing = "section";
		if (op < 850 - option_forks * 10) {
			sections(w, NORMAL, 0);
		} else if (op < 850) {
			fork_somehow(w);
		} else if (op < 960) {
			if (gated)
				prepare(w);
		} else if (op < 970) {
			if (gated)
				set_policy(w);
		} else if (op < 975) {
			/* The handler needs the slot. */
			block_signals(&before);
			if (gated)
				reregister(w);
			sigprocmask(SIG_SETMASK, &before, NULL);
		} else if (op < 978) {
			leaves = true;
		} else {
			w->doing = "nap";
			nap(below(w, NORMAL, 3) * MS);
		}
	}
	w->doing = "exit";
	w->interval = 0;
	timer_delete(w->timer);
	block_signals(&before);
	count(EXITS);
	WRITE_ONCE(w->exited, 1);
	return NULL;
}

/* Give thread @i a new life. */
static bool actor_create(unsigned int i)
{
	struct actor *w = &actors[i];

	w->index = i;
	w->incarnation++;
	w->exited = 0;
	w->doing = "start";
	w->slot = NULL;
	if (!gated)
		memset(gate_slot(i), 0, sizeof(*slot));
	for (int context = 0; context < CONTEXTS; context++) {
		w->random[context] = (option_seed + 1) * 0x9e3779b97f4a7c15ULL ^
			((i + 1ULL) << 40 | (__u64)w->incarnation << 8 |
			 (context + 1));
		for (int j = 0; j < 8; j++)
			next_random(w, context);
		w->files[context] = 0;
	}
	w->running = !pthread_create(&w->thread, NULL, actor_main, w);
	return w->running;
}

static void show_file(const char *path)
{
	char text[2000], *line, *rest = text;
	ssize_t length;
	int fd;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	length = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (length <= 0)
		return;
	text[length] = '\0';
	while ((line = strsep(&rest, "\n"))) {
		if (*line)
			say("    %s", line);
	}
}

static void show_state(void)
{
	static const char *const files[] = { "syscall", "wchan", "stack" };
	struct forkgate_holder holders[MAX_THREADS];
	struct forkgate_state state = {
		.holders = (uintptr_t)holders,
		.holders_max = MAX_THREADS,
	};
	char path[100];
	int ret;

	if (gated) {
		ret = gate_call(FORKGATE_IOC_STATE, &state);
		say("state %d: closed %x (%x), %u threads, %u forkers, %u blocked", ret,
		    state.closed, gate.head->closed, state.threads, state.forkers,
		    state.blocked);
		say("for %llu ms, %llu phases, %llu yields", state.wait_ns / MS, state.phases,
		    state.yields);
		for (unsigned int i = 0; !ret && i < state.holders_count &&
		     i < MAX_THREADS; i++)
			say("  holder %d: domains %x, depth %u %u", holders[i].tid,
			    holders[i].domains, holders[i].depth[0],
			    holders[i].depth[1]);
	}
	for (unsigned int i = 0; i <= option_threads; i++) {
		const struct actor *w =
			&actors[i == option_threads ? MAX_THREADS : i];

		say("  thread %u (%d): %s, progress %llu, depth %u %u, exited %d",
		    w->index, w->tid, w->doing,
		    w->progress,
		    w->slot ? w->slot->depth[0] : 0,
		    w->slot ? w->slot->depth[1] : 0, w->exited);
		for (unsigned int j = 0; j < 3; j++) {
			snprintf(path, sizeof(path), "/proc/self/task/%d/%s",
				 w->tid, files[j]);
			show_file(path);
		}
	}
	show_file("/sys/kernel/debug/forkgate/gates");
}

/* Every thread must get on: a thread that hangs ends the part. */
static void *watchdog_main(void *argument)
{
	__u64 seen[MAX_THREADS + 1] = { 0 };
	unsigned int age[MAX_THREADS + 1] = { 0 };

	(void)argument;
	for (;;) {
		nap(1000 * MS);
		for (unsigned int i = 0; i <= MAX_THREADS; i++) {
			struct actor *w = &actors[i];

			if (READ_ONCE(w->progress) != seen[i] ||
			    (!READ_ONCE(w->running) && i < MAX_THREADS)) {
				seen[i] = READ_ONCE(w->progress);
				age[i] = 0;
			} else if (++age[i] >= option_limit) {
				say("thread %u: no progress for %u s, seed %llu",
				    w->index, option_limit,
				    option_seed);
				show_state();
				_exit(FAIL_HANG);
			}
		}
	}
	return NULL;
}

static void write_step(const char *step, unsigned int microseconds)
{
	char command[50];
	int fd, length;

	fd = open("/sys/kernel/debug/forkgate/steps", O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (step)
		length = snprintf(command, sizeof(command), "%s delay %u", step,
				  microseconds);
	else
		length = snprintf(command, sizeof(command), "reset");
	if (write(fd, command, length) != length)
		bad_call(command, errno);
	close(fd);
}

/* Widen the windows of the protocol, others each time. */
static void random_delay(struct actor *w)
{
	static const char *const steps[] = {
		"begin", "close", "fence", "sleep", "woken", "grant", "copied",
		"enter", "blocked", "admitted", "leave", "release", "prepared",
		"exit",
	};
	unsigned int step = below(w, NORMAL, ARRAY_SIZE(steps));

	/* Where the kernel cannot sleep it is not made to wait for longer than 1 ms. */
	write_step(steps[step], chance(w, NORMAL, 50) ?
				below(w, NORMAL, strcmp(steps[step], "exit") ? 3000 : 1000) : 0);
}

static void run_threads(unsigned int seconds)
{
	__u64 begin = now(), end = begin + seconds * 1000 * MS;
	struct actor *w = &actors[MAX_THREADS];

	for (unsigned int i = 0; i < option_threads; i++)
		actor_create(i);
	while (now() < end) {
		WRITE_ONCE(w->progress, w->progress + 1);
		w->doing = "supervise";
		if (gated && now() > begin + (end - begin) / 2)
			WRITE_ONCE(may_proceed, 1);
		for (unsigned int i = 0; i < option_threads; i++) {
			if (!actors[i].running || READ_ONCE(actors[i].exited)) {
				if (actors[i].running)
					pthread_join(actors[i].thread, NULL);
				actor_create(i);
			}
		}
		/* A thread that is not registered forks too. */
		if (chance(w, NORMAL, 10)) {
			w->doing = "clone";
			fork_copy(w, NORMAL, false);
		}
		if (delays && chance(w, NORMAL, 20))
			random_delay(w);
		nap(5 * MS);
	}
	WRITE_ONCE(stop, 1);
	if (delays)
		write_step(NULL, 0);
	for (unsigned int i = 0; i < option_threads; i++) {
		WRITE_ONCE(w->progress, w->progress + 1);
		w->doing = "join";
		if (actors[i].running)
			pthread_join(actors[i].thread, NULL);
		actors[i].running = false;
	}
}

/* All threads have ended: does the gate say so? */
static bool end_state(void)
{
	struct forkgate_state state;

	/* A thread that was joined gives its slot up a moment later. */
	wait_until(!(state = gate_state()).threads);
	say("gate: forks %llu, phases %llu, yields %llu, expired %llu, timeouts %llu", state.forks,
	    state.phases, state.yields, state.expired, state.timeouts);
	say("gate: deadlocks %llu, unsafe %llu, abandoned %llu, bypasses %llu", state.deadlocks,
	    state.unsafe, state.abandoned, state.bypasses);
	if (state.closed || gate.head->closed || state.forkers ||
	    state.blocked || state.holders_count || state.threads ||
	    state.bypasses || state.abandoned < counts[ABANDONED] ||
	    state.abandoned > counts[ABANDONED] + counts[TICKETS_LOST]) {
		show_state();
		return false;
	}
	return true;
}

static int storm(unsigned int seconds)
{
	struct sigaction action = { .sa_handler = handler };
	struct actor *w = &actors[MAX_THREADS];
	pthread_t watchdog;
	int ret, result = 0;

	self = w;
	w->index = MAX_THREADS;
	w->tid = sys_gettid();
	w->random[NORMAL] = (option_seed + 1) * 0x9e3779b97f4a7c15ULL;
	null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (gated) {
		ret = gate_open();
		if (!ret)
			ret = gate_map();
		if (ret) {
			say("%s: %s", DEVICE, strerror(-ret));
			return FAIL_CALL;
		}
	} else {
		gate.head = mmap(NULL, FORKGATE_MAP_SIZE, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	}
	sigaddset(&action.sa_mask, SIGRTMIN);
	sigaddset(&action.sa_mask, SIGRTMIN + 1);
	sigaction(SIGRTMIN + 1, &action, NULL);
	action.sa_flags = SA_RESTART;
	sigaction(SIGRTMIN, &action, NULL);
	for (unsigned int i = 0; i < MAX_THREADS; i++) {
		actors[i].index = i;
		actors[i].doing = "nothing";
		actors[i].stack = malloc(STACK_SIZE);
	}
	if (pthread_create(&watchdog, NULL, watchdog_main, NULL))
		return FAIL_CALL;
	if (gated)
		set_policy(w);
	run_threads(seconds);

	for (int i = 0; i < NR_COUNTS; i++) {
		if (counts[i])
			say("%s: %llu", count_names[i],
			    counts[i]);
	}
	if (counts[VIOLATIONS])
		result |= FAIL_VIOLATION;
	if (counts[BAD_GATES])
		result |= FAIL_GATE;
	if (counts[BYPASSED])
		result |= FAIL_COPY;
	if (counts[BAD_CALLS])
		result |= FAIL_CALL;
	if (gated && !end_state())
		result |= FAIL_END;
	return result;
}

/* Run a part in a process of its own; returns its pid. */
static pid_t start_part(unsigned int seconds, bool with_gate, bool with_delays)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid < 0)
		ksft_exit_fail_msg("fork: %s\n", strerror(errno));
	if (!pid) {
		gated = with_gate;
		delays = with_delays;
		_exit(storm(seconds));
	}
	return pid;
}

/* Returns what was wrong. */
static int run_part(unsigned int seconds, bool with_gate, bool with_delays)
{
	int status;
	pid_t pid = start_part(seconds, with_gate, with_delays);

	waitpid(pid, &status, 0);
	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	ksft_print_msg("the storm ended with status %x\n", status);
	return FAIL_CALL;
}

static void report_part(unsigned int seconds, const char *name, bool with_delays)
{
	int result = run_part(seconds, true, with_delays);
	bool hang = result & FAIL_HANG;

	ksft_test_result(!(result & FAIL_VIOLATION) && !hang,
			 "%s: no child sees another thread's open section\n",
			 name);
	ksft_test_result(!(result & FAIL_GATE) && !hang,
			 "%s: every child's gate is new and works\n", name);
	ksft_test_result(!(result & FAIL_COPY) && !hang,
			 "%s: no copy bypasses the gate\n", name);
	ksft_test_result(!(result & FAIL_CALL) && !hang,
			 "%s: every call does what it may\n", name);
	ksft_test_result(!(result & FAIL_END) && !hang,
			 "%s: the gate is idle afterwards\n", name);
	ksft_test_result(!hang, "%s: every thread gets on\n", name);
}

#define REPORTS 6

static int module_references(void)
{
	char text[20] = "";
	ssize_t length;
	int fd;

	fd = open("/sys/module/forkgate/refcnt", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	length = read(fd, text, sizeof(text) - 1);
	close(fd);
	return length > 0 ? atoi(text) : -1;
}

/* Processes killed in the middle of it leave nothing behind. */
static void kill_storms(void)
{
	int references = module_references();
	int status, left = 0;

	prctl(PR_SET_CHILD_SUBREAPER, 1);
	for (unsigned int i = 0; i < option_kills; i++) {
		pid_t pid;

		option_seed++;
		pid = start_part(3600, true, false);
		nap(500 * MS + (option_seed * 0x9e3779b9 % 1000) * MS);
		kill(pid, SIGKILL);
		if (waitpid(pid, &status, 0) == pid && WIFEXITED(status))
			ksft_print_msg("storm %u ended by itself: %x\n", i,
				       status);
	}
	for (unsigned int i = 0; i < option_limit * 100; i++) {
		while (waitpid(-1, &status, WNOHANG) > 0)
			;
		left = module_references();
		if (left <= references)
			break;
		nap(10 * MS);
	}
	ksft_test_result(left <= references,
			 "killed storms: references of the module %d -> %d\n",
			 references, left);
}

static bool device_works(unsigned int *features)
{
	struct forkgate_query query = { 0 };
	int ret;

	if (gate_open())
		return false;
	ret = gate_call(FORKGATE_IOC_QUERY, &query);
	close(gate.fd);
	*features = query.features;
	return !ret;
}

static const char usage[] =
	"usage: storm [OPTION...]\n"
	"  -t, --seconds N  how long the storm lasts (60)\n"
	"  -n, --threads N  (10)\n"
	"  -s, --seed N     what the threads do\n"
	"  -l, --limit N    seconds; no thread may need longer for one step (120, times KSELFTEST_SLOW)\n"
	"  -k, --kills N    how many storms to kill in the middle (5)\n"
	"  -f, --forks N    how many of a hundred steps are forks, 0 to 85 (15)\n"
	"  --no-gate        only show that without a gate children see open sections\n"
	"  --only           only the storm\n";

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "seconds", required_argument, NULL, 't' },
		{ "threads", required_argument, NULL, 'n' },
		{ "seed", required_argument, NULL, 's' },
		{ "kills", required_argument, NULL, 'k' },
		{ "forks", required_argument, NULL, 'f' },
		{ "limit", required_argument, NULL, 'l' },
		{ "no-gate", no_argument, NULL, 'g' },
		{ "only", no_argument, NULL, 'o' },
		{ "nothing", no_argument, NULL, '0' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	bool only_ungated = false, only_gated = false, debug;
	struct rlimit files = { 1024, 1024 };
	unsigned int features = 0;
	int option;

	option_seed = now() ^ getpid();
	option_limit *= slow_factor();
	while ((option = getopt_long(argc, argv, "t:n:s:k:f:l:h", options,
				     NULL)) != -1) {
		switch (option) {
		case 't':
			option_seconds = strtoul(optarg, NULL, 0);
			break;
		case 'n':
			option_threads = strtoul(optarg, NULL, 0);
			break;
		case 's':
			option_seed = strtoull(optarg, NULL, 0);
			break;
		case 'k':
			option_kills = strtoul(optarg, NULL, 0);
			break;
		case 'f':
			option_forks = strtoul(optarg, NULL, 0);
			break;
		case 'l':
			option_limit = strtoul(optarg, NULL, 0);
			break;
		case 'g':
			only_ungated = true;
			break;
		case 'o':
			only_gated = true;
			break;
		case '0':
			return 0;
		default:
			fputs(usage, stderr);
			return option == 'h' ? 0 : 2;
		}
	}
	if (!option_threads || option_threads > MAX_THREADS || !option_seconds ||
	    option_forks > 85) {
		fputs(usage, stderr);
		return 2;
	}
	setrlimit(RLIMIT_NOFILE, &files);

	ksft_print_header();
	if (!only_ungated && !device_works(&features))
		ksft_exit_skip("/dev/forkgate cannot be used\n");
	debug = features & FORKGATE_FEATURE_DEBUG;
	ksft_set_plan((only_gated ? 0 : 1) +
		      (only_ungated ? 0 : REPORTS) +
		      (only_ungated || only_gated ? 0 : REPORTS * debug + 1));
	ksft_print_msg("seed %llu, %u threads, %u s\n",
		       option_seed, option_threads,
		       option_seconds);
	if (!only_gated)
		ksft_test_result(run_part(option_seconds < 5 ? option_seconds : 5,
					  false, false) == FAIL_VIOLATION,
				 "without a gate children see open sections\n");
	if (!only_ungated)
		report_part(option_seconds, "storm", false);
	if (!only_ungated && !only_gated) {
		if (debug)
			report_part((option_seconds + 2) / 3, "storm with delays",
				    true);
		kill_storms();
	}
	ksft_finished();
}
