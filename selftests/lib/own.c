// SPDX-License-Identifier: GPL-2.0-only
/*
 * The library's own gate: what only it does, with schedules that are forced. What
 * both gates do is in lib.c. Built with the library's sources, so that handlers of
 * pthread_atfork() can be registered before the library's, and the sanitizers see
 * them. Must not need the module; where there is one, the library finds that the
 * device has no permission for it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <poll.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "jobs.h"
#include "wrap.h"

#include <gate-internal.h>

/* The gate is the library's even where there is a module. */
static int membarrier_error;

/* Called whenever a thread has let go of the gate's lock */
static void (*after_unlock)(void);

long __wrap_syscall(long number, ...)
{
	long args[6];

	SYSCALL_ARGUMENTS(args, number);
	if (number == SYS_openat && !strcmp((char *)args[1], "/dev/forkgate")) {
		errno = ENOENT;
		return -1;
	}
	if (number == SYS_membarrier && membarrier_error) {
		errno = membarrier_error;
		return -1;
	}
	if (number == SYS_rt_sigprocmask && after_unlock && args[0] == SIG_SETMASK)
		after_unlock();
	return __real_syscall(number, args[0], args[1], args[2], args[3], args[4], args[5]);
}

/* ThreadSanitizer: children may have threads. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
	return "die_after_fork=0";
}

/* Runs before the library's constructor, so this handler after the library's. */
static void (*before_copy)(void);
static void (*after_copy)(void);

static void prepare_handler(void)
{
	if (before_copy)
		before_copy();
}

static void parent_handler(void)
{
	if (after_copy)
		after_copy();
}

static __attribute__((__constructor__(101))) void first(void)
{
	pthread_atfork(prepare_handler, parent_handler, NULL);
}

static struct gate *the_gate(void)
{
	return &__forkgate_own->gate;
}

/* The gate's place of a worker that has a slot */
static struct place *place_of(const struct worker *worker)
{
	struct place *place = __forkgate_own->places;

	while (place->thread != (void *)worker->thread)
		place++;
	return place;
}

/*
 * Half-done work that no child may see; counted, as many may be at it
 */
static int half_done;

static long do_work(void *domains)
{
	int err = forkgate_enter((uintptr_t)domains);

	if (!err)
		__atomic_fetch_add(&half_done, 1, __ATOMIC_SEQ_CST);
	return err;
}

static long do_end_work(void *domains)
{
	__atomic_fetch_sub(&half_done, 1, __ATOMIC_SEQ_CST);
	forkgate_leave((uintptr_t)domains);
	return 0;
}

static unsigned int copy(void)
{
	return forkgate_header_of(forkgate_self)->copy;
}

/* What every child finds */
static int child_clean(void)
{
	struct worker worker;

	if (READ_ONCE(half_done))
		return 1;
#ifdef __SANITIZE_THREAD__
	return 0;	/* it takes what the parent's threads did last for races */
#endif
	if (forkgate_self->tid != (__u32)sys_gettid())
		return 2;
	if (forkgate_enter(BOTH))
		return 3;
	forkgate_leave(BOTH);
	if (forkgate_header_of(forkgate_self)->closed)
		return 4;
	if (copy())
		return 5;
	if (gate_state().forkers || gate_state().holders_count)
		return 6;
	if (worker_spawn(&worker) || run(&worker, do_enter, ARG(BOTH)) ||
	    run(&worker, do_leave, ARG(BOTH)))
		return 7;
	return 0;
}

static long do_fork(void *unused)
{
	return forked(fork(), child_clean);
}

static long do__Fork(void *unused)
{
#ifdef __SANITIZE_THREAD__
	return do_fork(NULL);	/* it frees its own locks in the child of this one alone */
#else
	return forked(_Fork(), child_clean);
#endif
}

FIXTURE(own) {
	struct worker a, b;
};

FIXTURE_SETUP(own)
{
	ASSERT_EQ(0, forkgate_init(0));
	ASSERT_EQ(FORKGATE_BY_LIBRARY, forkgate_protection(NULL));
	gate.call = __forkgate_call;
	ASSERT_EQ(0, gate_set_policy(&patient_policy));
	ASSERT_EQ(0, worker_spawn(&self->a));
	ASSERT_EQ(0, worker_spawn(&self->b));
}

FIXTURE_TEARDOWN(own)
{
}

/*
 * Copies that others were let into
 */

/*
 * A signal handler in which a worker can be held
 */
static int in_handler;
static unsigned int handler_domains;

static void stay(int sig)
{
	const struct timespec ms = { .tv_nsec = 1000000 };

	forkgate_enter(handler_domains);
	WRITE_ONCE(in_handler, 1);
	while (READ_ONCE(in_handler))
		nanosleep(&ms, NULL);
	forkgate_leave(handler_domains);
}

/* Return: whether it is there, inside of @domains; end_hold() lets it go on. */
static bool hold_worker(struct worker *worker, unsigned int domains)
{
	struct sigaction action = { .sa_handler = stay };

	handler_domains = domains;
	return !sigaction(SIGUSR2, &action, NULL) && !pthread_kill(worker->thread, SIGUSR2) &&
	       wait_until(READ_ONCE(in_handler));
}

static void end_hold(void)
{
	WRITE_ONCE(in_handler, 0);
}

#ifdef __SANITIZE_THREAD__
#define NEEDS_HANDLER() SKIP(return, "ThreadSanitizer puts signals off until the call has ended")
#else
#define NEEDS_HANDLER() do { } while (0)
#endif

static struct worker *intruder;
static int prepares, parents;

/*
 * The forking thread is behind its last look at its ticket, and needs what a thread
 * that is kept out has, as with a lock of the C library. So that goes in.
 */
static void wait_for_intruder(void)
{
	if (__atomic_fetch_add(&prepares, 1, __ATOMIC_SEQ_CST))
		return;
	start(intruder, do_work, ARG(BOTH));
	wait_until(!busy(intruder));
}

static void end_intruder(void)
{
	if (!parents++)
		run(intruder, do_end_work, ARG(BOTH));
}

TEST_F(own, spoiled_copy_is_made_again)
{
	intruder = &self->a;
	before_copy = wait_for_intruder;
	after_copy = end_intruder;
	ASSERT_EQ(0, set_times(10, 40));
	EXPECT_EQ(0, reap(run(&self->b, do_fork, NULL)));
	EXPECT_EQ(2, prepares);
	EXPECT_EQ(2, parents);
	EXPECT_EQ(0, gate_state().forkers);
	EXPECT_EQ(-ECHILD, waitpid(-1, NULL, WNOHANG) < 0 ? -errno : 0);
	EXPECT_EQ(0, run(&self->a, do_enter, ARG(BOTH)));
	EXPECT_EQ(0, run(&self->a, do_leave, ARG(BOTH)));
}

/* Whatever comes first, the child or the parent: both find the same. */
static void wait_for_child(void)
{
	const struct timespec time = { .tv_nsec = 20000000 };

	end_intruder();
	nanosleep(&time, NULL);
}

TEST_F(own, spoiled_copy_and_a_slow_parent)
{
	intruder = &self->a;
	before_copy = wait_for_intruder;
	after_copy = wait_for_child;
	ASSERT_EQ(0, set_times(10, 40));
	EXPECT_EQ(0, reap(run(&self->b, do_fork, NULL)));
	EXPECT_EQ(2, prepares);
}

/* Others wait for the end of a copy that runs for so long, but not for ever. */
TEST_F(own, next_fork_after_a_spoiled_copy)
{
	intruder = &self->a;
	before_copy = wait_for_intruder;
	after_copy = end_intruder;
	ASSERT_EQ(0, set_times(10, 40));
	start(&self->b, do_fork, NULL);
	ASSERT_TRUE(wait_until(READ_ONCE(prepares)));
	EXPECT_EQ(0, reap(do__Fork(NULL)));
	EXPECT_EQ(0, reap(finish(&self->b)));
}

/* It may be a fork that has what the copy needs; that must have its turn. */
static void wait_for_fork(void)
{
	if (__atomic_fetch_add(&prepares, 1, __ATOMIC_SEQ_CST))
		return;
	start(intruder, do_fork, NULL);
	wait_until(!busy(intruder));
}

TEST_F(own, late_copy_lets_a_fork_in)
{
	intruder = &self->a;
	before_copy = wait_for_fork;
	ASSERT_EQ(0, set_times(10, 40));
	EXPECT_EQ(0, reap(run(&self->b, do_fork, NULL)));
	EXPECT_EQ(0, reap(finish(&self->a)));
	EXPECT_EQ(3, prepares);
}

static int child_untouched(void)
{
	return READ_ONCE(half_done);
}

static long do_fork_inside(void *unused)
{
	return forked(fork(), child_untouched);
}

/* Nor does the intruder wait for the end of a phase that waits for the late one. */
TEST_F(own, late_copy_lets_the_drain_yield)
{
	struct worker c;

	ASSERT_EQ(0, worker_spawn(&c));
	intruder = &self->a;
	before_copy = wait_for_intruder;
	after_copy = end_intruder;
	ASSERT_EQ(0, set_times(10, 40));
	ASSERT_EQ(0, run(&self->b, do_enter, ARG(FILES)));
	start(&c, do_prepare, ARG(FILES));
	ASSERT_TRUE(wait_until(worker_waits(&c, 1)));
	EXPECT_EQ(0, reap(run(&self->b, do_fork_inside, NULL)));
	EXPECT_EQ(0, run(&self->b, do_leave, ARG(FILES)));
	EXPECT_EQ(0, finish(&c));
}

/* A time that a copy has once taken is no reason to spoil the next one. */
static void be_slow(void)
{
	const struct timespec time = { .tv_nsec = 150000000 };

	prepares++;
	start(intruder, do_enter, ARG(BOTH));
	nanosleep(&time, NULL);
}

static void count_parent(void)
{
	parents++;
	finish(intruder);
	run(intruder, do_leave, ARG(BOTH));
}

TEST_F(own, slow_copies)
{
	int i;

	intruder = &self->a;
	before_copy = be_slow;
	after_copy = count_parent;
	ASSERT_EQ(0, set_times(10, 40));
	EXPECT_EQ(0, reap(run(&self->b, do_fork, NULL)));
	EXPECT_LT(1, prepares);
	/* A busy machine may once more take longer than ever. */
	for (i = 0; i < 5 && prepares != 1; i++) {
		prepares = 0;
		EXPECT_EQ(0, reap(run(&self->b, do_fork, NULL)));
	}
	EXPECT_EQ(1, prepares);
}

/*
 * A fork in a signal handler, between the last look at the ticket and the copy
 */

static long handler_result, handler_forkers;

static void fork_handler(int sig)
{
	handler_result = reap(do_fork(NULL));
}

/* The fork of the handler runs the handlers of forks once more. */
static void raise_once(void)
{
	if (!prepares++)
		raise(SIGUSR1);
}

TEST_F(own, fork_in_a_handler)
{
	struct sigaction action = { .sa_handler = fork_handler };

	ASSERT_EQ(0, sigaction(SIGUSR1, &action, NULL));
	before_copy = raise_once;
	handler_result = -1;
	EXPECT_EQ(0, reap(run(&self->b, do_fork, NULL)));
	EXPECT_EQ(0, handler_result);
	EXPECT_EQ(2, prepares);
	EXPECT_EQ(0, gate_state().forkers);
}

/* The inner fork takes so long that others are let in: neither copy is good. */
static void handler_intrudes(int sig)
{
	start(intruder, do_work, ARG(BOTH));
	wait_until(!busy(intruder));
	/* It would wait for the intruder; who leaves when it has come that far. */
	run(intruder, do_end_work, ARG(BOTH));
	/* A ticket that is left would not be seen if it had expired. */
	set_times(10, 3600 * 1000);
	handler_result = reap(do_fork(NULL));
	handler_forkers = gate_state().forkers;
	run(intruder, do_work, ARG(BOTH));
}

TEST_F(own, fork_in_a_handler_of_a_spoiled_copy)
{
	struct sigaction action = { .sa_handler = handler_intrudes };

	intruder = &self->a;
	ASSERT_EQ(0, sigaction(SIGUSR1, &action, NULL));
	before_copy = raise_once;
	after_copy = end_intruder;
	handler_result = -1;
	ASSERT_EQ(0, set_times(10, 40));
	EXPECT_EQ(0, reap(run(&self->b, do_fork, NULL)));
	EXPECT_EQ(0, handler_result);
	EXPECT_EQ(3, prepares);
	EXPECT_EQ(0, handler_forkers);	/* it had its own ticket */
	EXPECT_EQ(0, gate_state().forkers);
}

/* Many copies later, the word of the outer one is still its own. */
static int *seen;

static int child_tells(void)
{
	if (READ_ONCE(half_done))
		*seen = 1;
	return 0;
}

static long do_fork_told(void *unused)
{
	return forked(fork(), child_tells);
}

static void fork_much(int sig)
{
	the_gate()->copy += COPIES - 1;
	handler_result = reap(do_fork(NULL));
	start(intruder, do_work, ARG(BOTH));
	wait_until(!busy(intruder));
}

TEST_F(own, word_of_a_copy_is_not_used_again)
{
	struct sigaction action = { .sa_handler = fork_much };

	seen = mmap(NULL, sizeof(*seen), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		    -1, 0);
	ASSERT_NE(MAP_FAILED, seen);
	intruder = &self->a;
	ASSERT_EQ(0, sigaction(SIGUSR1, &action, NULL));
	before_copy = raise_once;
	parents = -1;	/* of the handler's fork */
	after_copy = wait_for_child;
	handler_result = -1;
	ASSERT_EQ(0, set_times(10, 40));
	EXPECT_EQ(0, reap(run(&self->b, do_fork_told, NULL)));
	EXPECT_EQ(0, handler_result);
	EXPECT_EQ(3, prepares);
	EXPECT_EQ(0, *seen);
}

static bool handler_began;

/* The child of a fork in a handler is still in the fork that it interrupted. */
static void fork_and_go_on(int sig)
{
	pid_t pid;

	WRITE_ONCE(handler_began, true);
	pid = fork();
	if (pid)
		handler_result = reap(pid);
}

static long do_fork_twice(void *unused)
{
	pid_t parent = getpid();
	long result = reap(do_fork(NULL));

	if (getpid() != parent)
		_exit(result);
	return result;
}

TEST_F(own, outer_fork_in_the_child)
{
	struct sigaction action = { .sa_handler = fork_and_go_on };

	ASSERT_EQ(0, sigaction(SIGUSR1, &action, NULL));
	before_copy = raise_once;
	handler_result = -1;
	EXPECT_EQ(0, run(&self->b, do_fork_twice, NULL));
	EXPECT_EQ(0, handler_result);
	EXPECT_EQ(0, gate_state().forkers);
}

/*
 * Children that the library does not see being made
 */

static int raw_child(void)
{
	if (READ_ONCE(half_done) != 1)
		return 10;
	if (forkgate_enter(BOTH))
		return 11;
	forkgate_leave(BOTH);
	if (copy() != FORKGATE_COPY_BYPASSED)
		return 12;
	if (gate_state().forkers || gate_state().holders_count || gate_state().closed)
		return 13;
	half_done = 0;
	return reap(do_fork(NULL));
}

static long do_raw_fork(void *unused)
{
	pid_t pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);

	if (!pid)
		_exit(raw_child());
	return pid < 0 ? -errno : pid;
}

TEST_F(own, raw_clone)
{
	ASSERT_EQ(0, forkgate_enter(BOTH));	/* the child's slot is not the first */
	forkgate_leave(BOTH);
	ASSERT_EQ(0, run(&self->a, do_work, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->b, do_enter, ARG(FILES)));
	ASSERT_EQ(0, run(&self->b, do_leave, ARG(FILES)));
	/* with a fork that waits, so the gate is closed */
	ASSERT_EQ(0, worker_spawn(&(struct worker){}));
	start(&self->b, do_prepare, ARG(MEMORY));
	ASSERT_TRUE(wait_until(worker_waits(&self->b, 1)));
	EXPECT_EQ(0, reap(do_raw_fork(NULL)));
	EXPECT_EQ(0, run(&self->a, do_end_work, ARG(MEMORY)));
	EXPECT_EQ(0, finish(&self->b));
}

/* With the lock taken by another thread, and kept out by a ticket */
TEST_F(own, raw_clone_while_locked)
{
	pid_t pid;

	ASSERT_EQ(0, forkgate_enter(BOTH));
	__atomic_fetch_add(&half_done, 1, __ATOMIC_SEQ_CST);
	the_gate()->lock = 2;
	pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	the_gate()->lock = pid ? 0 : the_gate()->lock;
	if (!pid) {
		forkgate_leave(BOTH);
		half_done = 0;
		_exit(reap(do_fork(NULL)));
	}
	EXPECT_EQ(0, reap(pid));
	forkgate_leave(BOTH);
}

/*
 * Threads that end
 */

static void *end_inside(void *how)
{
	forkgate_enter(BOTH);
	if (how)
		syscall(SYS_exit, 0);
	pthread_exit(NULL);
}

static void *cancelled_inside(void *latch)
{
	forkgate_enter(BOTH);
	latch_open(latch);
	pause();
	return NULL;
}

TEST_F(own, threads_end_inside)
{
	pthread_t thread;
	int latch = 0;

	ASSERT_EQ(0, pthread_create(&thread, NULL, end_inside, NULL));
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ(0, reap(do_fork(NULL)));
	EXPECT_EQ(1, gate_state().abandoned);

	ASSERT_EQ(0, pthread_create(&thread, NULL, cancelled_inside, &latch));
	latch_wait(&latch);
	start(&self->b, do_fork, NULL);
	ASSERT_TRUE(wait_until(worker_waits(&self->b, 1)));
	ASSERT_EQ(0, pthread_cancel(thread));
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ(0, reap(finish(&self->b)));
	EXPECT_EQ(2, gate_state().abandoned);
	EXPECT_EQ(0, gate_state().holders_count);
}

static void *end_with_ticket(void *unused)
{
	forkgate_prepare(BOTH, NULL);
	return NULL;
}

static void *look_at_depth(void *unused)
{
	forkgate_enter(FILES);
	forkgate_leave(FILES);
	return ARG(depth());
}

#define STACK_SIZE	0x100000

static void *make_stack(void)
{
	return mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

/* A thread there, from its beginning to its end. Return: 0 or an error number. */
static int run_on(void *stack, void *(*function)(void *), void **result)
{
	pthread_attr_t attr;
	pthread_t thread;

	pthread_attr_init(&attr);
	pthread_attr_setstack(&attr, stack, STACK_SIZE);
	return pthread_create(&thread, &attr, function, NULL) ?: pthread_join(thread, result);
}

/* A thread with the memory, and so the slot, of one that ended inside */
TEST_F(own, memory_of_a_thread_is_used_again)
{
	void *stack = make_stack(), *found;

	ASSERT_NE(MAP_FAILED, stack);
	ASSERT_EQ(0, run_on(stack, end_inside, NULL));
	EXPECT_EQ(1, gate_state().holders_count);
	ASSERT_EQ(0, run_on(stack, look_at_depth, &found));
	EXPECT_EQ(NULL, found);
	EXPECT_EQ(0, gate_state().holders_count);
	EXPECT_EQ(1, gate_state().abandoned);
}

/* and of one that ended with the ticket, long before that expires */
TEST_F(own, memory_of_a_forker_is_used_again)
{
	void *stack = make_stack();

	ASSERT_EQ(0, set_times(3600 * 1000, 3600 * 1000));
	ASSERT_NE(MAP_FAILED, stack);
	ASSERT_EQ(0, run_on(stack, end_with_ticket, NULL));
	EXPECT_EQ(1, gate_state().forkers);
	ASSERT_EQ(0, run_on(stack, look_at_depth, NULL));
	EXPECT_EQ(0, run(&self->a, do_prepare, ARG(BOTH)));
}

/* Slots of threads that have ended are used again before there are more units. */
TEST_F(own, slots_are_used_again)
{
	pthread_attr_t attr;
	pthread_t thread;
	char *stack;
	int i;

	pthread_attr_init(&attr);
	for (i = 0; i < 10 * FORKGATE_UNIT_SLOTS; i++) {
		/* each at an address of its own */
		stack = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		ASSERT_NE((void *)MAP_FAILED, stack);
		pthread_attr_setstack(&attr, stack, 1 << 20);
		ASSERT_EQ(0, pthread_create(&thread, &attr, look_at_depth, NULL));
		ASSERT_EQ(0, pthread_join(thread, NULL));
	}
	EXPECT_GE(2 * FORKGATE_UNIT_SLOTS, __forkgate_own->kept.slots);
	EXPECT_EQ(0, reap(do_fork(NULL)));
}

TEST_F(own, thread_ends_with_the_ticket)
{
	pthread_t thread;

	ASSERT_EQ(0, set_times(10, 60));
	ASSERT_EQ(0, pthread_create(&thread, NULL, end_with_ticket, NULL));
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ(1, gate_state().forkers);
	EXPECT_EQ(0, run(&self->a, do_enter, ARG(BOTH)));
	EXPECT_EQ(0, run(&self->a, do_leave, ARG(BOTH)));
	EXPECT_EQ(0, reap(do_fork(NULL)));
}

/* Asynchronous cancellation in the wait: the fork loses its place. */
static void *cancelled_fork(void *unused)
{
	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
	forkgate_prepare(BOTH, NULL);
	return NULL;
}

TEST_F(own, fork_ends_in_its_wait)
{
	pthread_t thread;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	SKIP(return, "the sanitizers do not know asynchronous cancellation");
#endif
	ASSERT_EQ(0, set_times(3600 * 1000, 60));
	ASSERT_EQ(0, run(&self->a, do_enter, ARG(BOTH)));
	ASSERT_EQ(0, pthread_create(&thread, NULL, cancelled_fork, NULL));
	ASSERT_TRUE(wait_until(gate_state().forkers == 1));
	ASSERT_EQ(0, pthread_cancel(thread));
	ASSERT_EQ(0, pthread_join(thread, NULL));
	/* kept out until then */
	EXPECT_EQ(0, run(&self->b, do_enter, ARG(BOTH)));
	EXPECT_EQ(0, gate_state().forkers);
}

/* The first thread stays, as a zombie, when it ends before others. */
static bool is_zombie(pid_t tid)
{
	char path[64], text[256] = "";
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
	file = fopen(path, "r");
	if (!file)
		return false;
	if (!fgets(text, sizeof(text), file))
		text[0] = '\0';
	fclose(file);
	return strstr(text, ") Z ");
}

static void *fork_after_the_first(void *unused)
{
	if (!wait_until(is_zombie(getpid())))
		_exit(20);
	_exit(reap(do_fork(NULL)) ? 21 : 0);
}

static int first_ends_inside(void)
{
	pthread_t thread;

	if (forkgate_enter(BOTH) || pthread_create(&thread, NULL, fork_after_the_first, NULL))
		return 22;
	pthread_exit(NULL);
}

TEST_F(own, first_thread_ends_inside)
{
#ifdef __SANITIZE_THREAD__
	SKIP(return, "ThreadSanitizer ends when the first thread does");
#endif
	EXPECT_EQ(0, reap(forked(fork(), first_ends_inside)));
}

/*
 * Phases
 */

/* Rule 7: an inversion, and sections that are long */
TEST_F(own, drain_yields)
{
	ASSERT_EQ(0, set_times(20, 60));
	ASSERT_EQ(0, run(&self->a, do_enter, ARG(MEMORY)));
	start(&self->b, do_prepare, ARG(MEMORY));
	ASSERT_TRUE(wait_until(worker_waits(&self->b, 1)));
	EXPECT_EQ(EBUSY, forkgate_tryenter(MEMORY));
	EXPECT_EQ(0, forkgate_enter(MEMORY));
	EXPECT_LE(1, gate_state().yields);
	forkgate_leave(MEMORY);
	EXPECT_EQ(0, run(&self->a, do_leave, ARG(MEMORY)));
	EXPECT_EQ(0, finish(&self->b));
}

TEST_F(own, no_patience)
{
	ASSERT_EQ(0, set_times(0, 3600 * 1000));
	ASSERT_EQ(0, run(&self->a, do_enter, ARG(MEMORY)));
	start(&self->b, do_prepare, ARG(MEMORY));
	ASSERT_TRUE(wait_until(worker_waits(&self->b, 1)));
	EXPECT_EQ(0, forkgate_tryenter(MEMORY));
	forkgate_leave(MEMORY);
	EXPECT_EQ(0, run(&self->a, do_leave, ARG(MEMORY)));
	EXPECT_EQ(0, finish(&self->b));
	EXPECT_EQ(EBUSY, forkgate_tryenter(MEMORY));
}

/* Rule 6: who was kept out goes in before the gate closes for the next fork. */
TEST_F(own, released_before_the_next_phase)
{
	struct worker c;

	ASSERT_EQ(0, worker_spawn(&c));
	ASSERT_EQ(0, run(&self->a, do_prepare, ARG(BOTH)));
	start(&c, do_enter, ARG(BOTH));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	start(&self->b, do_prepare, ARG(BOTH));
	ASSERT_TRUE(wait_until(worker_waits(&self->b, 2)));
	EXPECT_EQ(0, run(&self->a, do_release, NULL));
	EXPECT_EQ(0, finish(&c));
	EXPECT_TRUE(wait_until(worker_waits(&self->b, 1)));
	EXPECT_EQ(0, run(&c, do_leave, ARG(BOTH)));
	EXPECT_EQ(0, finish(&self->b));
}

TEST_F(own, released_goes_in_before_the_next_phase)
{
	struct worker c;

	NEEDS_HANDLER();
	ASSERT_EQ(0, worker_spawn(&c));
	ASSERT_EQ(0, set_times(10, 3600 * 1000));
	ASSERT_EQ(0, run(&self->a, do_prepare, ARG(BOTH)));
	start(&c, do_enter, ARG(BOTH));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	ASSERT_TRUE(hold_worker(&c, 0));
	EXPECT_EQ(0, run(&self->a, do_release, NULL));
	start(&self->b, do_prepare, ARG(BOTH));
	EXPECT_TRUE(wait_until(worker_waits(&self->b, 1)));
	EXPECT_EQ(0, gate_state().closed);
	end_hold();
	EXPECT_EQ(0, finish(&c));
	EXPECT_EQ(0, run(&c, do_leave, ARG(BOTH)));
	EXPECT_EQ(0, finish(&self->b));
}

/* or before the next grant: without patience forks always share the phase */
TEST_F(own, released_goes_in_before_the_next_grant)
{
	const struct timespec time = { .tv_nsec = 50000000 };
	struct worker c;

	NEEDS_HANDLER();
	ASSERT_EQ(0, worker_spawn(&c));
	ASSERT_EQ(0, set_times(0, 3600 * 1000));
	ASSERT_EQ(0, run(&self->a, do_prepare, ARG(BOTH)));
	start(&c, do_enter, ARG(BOTH));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	ASSERT_TRUE(hold_worker(&c, 0));
	start(&self->b, do_prepare, ARG(BOTH));
	ASSERT_TRUE(wait_until(worker_waits(&self->b, 2)));
	EXPECT_EQ(0, run(&self->a, do_release, NULL));
	nanosleep(&time, NULL);	/* it must not use that */
	end_hold();
	EXPECT_EQ(0, finish(&c));
	EXPECT_EQ(0, run(&c, do_leave, ARG(BOTH)));
	EXPECT_EQ(0, finish(&self->b));
}

/* Rule 6: forks that were there before the first grant share the phase. */
TEST_F(own, forks_share_a_phase)
{
	__u64 phases = gate_state().phases;

	ASSERT_EQ(0, run(&self->a, do_enter, ARG(BOTH)));
	start(&self->b, do_prepare, ARG(BOTH));
	ASSERT_TRUE(wait_until(worker_waits(&self->b, 1)));
	ASSERT_EQ(EAGAIN, __forkgate_call(FORKGATE_IOC_PREPARE, &(struct forkgate_prepare){
		.domains = FILES, .flags = FORKGATE_NONBLOCK }));
	EXPECT_EQ(0, run(&self->a, do_leave, ARG(BOTH)));
	EXPECT_EQ(0, finish(&self->b));
	EXPECT_EQ(0, run(&self->b, do_release, NULL));
	EXPECT_EQ(0, forkgate_prepare(FILES, NULL));
	EXPECT_EQ(phases + 1, gate_state().phases);
}

/* A phase for files, in which @a waits for @b, has had its first grant. */
static bool begin_phase(struct worker *a, struct worker *b)
{
	if (run(b, do_enter, ARG(FILES)))
		return false;
	start(a, do_prepare, ARG(FILES));
	return wait_until(worker_waits(a, 1)) && !forkgate_prepare(MEMORY, NULL) &&
	       !forkgate_release();
}

/* After that only such a fork joins that is inside of what others wait for. */
TEST_F(own, fork_inside_joins_late)
{
	ASSERT_EQ(0, set_times(3600 * 1000, 3600 * 1000));
	ASSERT_TRUE(begin_phase(&self->a, &self->b));
	EXPECT_EQ(0, run(&self->b, do_prepare, ARG(MEMORY)));
	EXPECT_EQ(0, run(&self->b, do_release, NULL));
	EXPECT_EQ(0, run(&self->b, do_leave, ARG(FILES)));
	EXPECT_EQ(0, finish(&self->a));
}

TEST_F(own, fork_inside_of_else_queues)
{
	struct worker c;

	ASSERT_EQ(0, worker_spawn(&c));
	ASSERT_EQ(0, set_times(3600 * 1000, 3600 * 1000));
	ASSERT_TRUE(begin_phase(&self->a, &self->b));
	ASSERT_EQ(0, run(&c, do_enter, ARG(MEMORY)));
	start(&c, do_prepare, ARG(MEMORY));
	EXPECT_TRUE(wait_until(worker_waits(&c, 2)));
	EXPECT_EQ(0, run(&self->b, do_leave, ARG(FILES)));
	EXPECT_EQ(0, finish(&self->a));
	EXPECT_TRUE(wait_until(worker_waits(&c, 2)));
	EXPECT_EQ(0, run(&self->a, do_release, NULL));
	EXPECT_EQ(0, finish(&c));
}

/* Rule 7: the queue may have a lock that a section needs. */
TEST_F(own, drain_yields_to_the_queue)
{
	struct worker c;

	ASSERT_EQ(0, worker_spawn(&c));
	ASSERT_EQ(0, set_times(20, 3600 * 1000));
	ASSERT_TRUE(begin_phase(&self->a, &self->b));
	EXPECT_EQ(0, run(&c, do_prepare, ARG(MEMORY)));
	EXPECT_LE(1, gate_state().yields);
	EXPECT_EQ(0, run(&c, do_release, NULL));
	EXPECT_EQ(0, run(&self->b, do_leave, ARG(FILES)));
	EXPECT_EQ(0, finish(&self->a));
}

/* Rule 6: the queue becomes the next phase, also one that does not look just then. */
TEST_F(own, queue_becomes_the_next_phase)
{
	NEEDS_HANDLER();
	ASSERT_EQ(0, set_times(3600 * 1000, 3600 * 1000));
	ASSERT_EQ(0, forkgate_prepare(BOTH, NULL));
	start(&self->a, do_prepare, ARG(MEMORY));
	ASSERT_TRUE(wait_until(worker_waits(&self->a, 2)));
	ASSERT_TRUE(hold_worker(&self->a, 0));
	EXPECT_EQ(0, forkgate_release());
	EXPECT_EQ(0, forkgate_prepare(BOTH, NULL));
	start(&self->b, do_prepare, ARG(FILES));
	ASSERT_TRUE(wait_until(worker_waits(&self->b, 3)));
	EXPECT_EQ(0, forkgate_release());
	EXPECT_TRUE(wait_until(worker_waits(&self->b, 2)));
	end_hold();
	EXPECT_EQ(0, finish(&self->a));
	EXPECT_EQ(0, run(&self->a, do_release, NULL));
	EXPECT_EQ(0, finish(&self->b));
}

/* Rule 6: going in and out of a closed domain inside the other one has an end. */
TEST_F(own, nested_entries_do_not_come_back)
{
	struct worker c;

	ASSERT_EQ(0, worker_spawn(&c));
	ASSERT_EQ(0, set_times(3600 * 1000, 3600 * 1000));
	ASSERT_TRUE(begin_phase(&self->a, &self->b));
	EXPECT_EQ(0, run(&c, do_tryenter, ARG(MEMORY)));
	EXPECT_EQ(0, run(&c, do_tryenter, ARG(FILES)));
	EXPECT_EQ(10, run(&c, do_leave, ARG(FILES)));
	EXPECT_EQ(0, run(&c, do_leave, ARG(MEMORY)));
	EXPECT_EQ(EBUSY, run(&c, do_tryenter, ARG(MEMORY)));
	EXPECT_EQ(0, run(&self->b, do_leave, ARG(FILES)));
	EXPECT_EQ(0, finish(&self->a));
	EXPECT_EQ(0, run(&self->a, do_release, NULL));
	EXPECT_EQ(0, run(&c, do_tryenter, ARG(MEMORY)));
}

/* Return: whether the scan of a fork has stopped at another's slot. */
static __attribute__((__no_sanitize_thread__)) bool stopped_at(const struct worker *fork,
								 const struct worker *at)
{
	return READ_ONCE(place_of(fork)->cursor) ==
	       (__u32)(place_of(at) - __forkgate_own->places);
}

/* What the scan has passed is looked at again after an entry. */
TEST_F(own, entry_behind_the_scan)
{
	struct worker c;

	ASSERT_EQ(0, worker_spawn(&c));
	ASSERT_EQ(0, run(&self->a, do_enter, ARG(FILES)));
	ASSERT_EQ(0, run(&self->b, do_enter, ARG(MEMORY)));
	start(&c, do_prepare, ARG(MEMORY));
	ASSERT_TRUE(wait_until(worker_waits(&c, 1)));
	ASSERT_LT(place_of(&self->a), place_of(&self->b));
	EXPECT_EQ(0, run(&self->a, do_enter, ARG(MEMORY)));
	EXPECT_EQ(0, run(&self->b, do_leave, ARG(MEMORY)));
	EXPECT_TRUE(wait_until(stopped_at(&c, &self->a)));
	EXPECT_TRUE(busy(&c));
	EXPECT_EQ(1, run(&self->a, do_leave, ARG(MEMORY)));
	EXPECT_EQ(0, finish(&c));
}

/* A handler that forks between L1 and L3 does what L3 would. */
static long do_half_leave(void *waiter)
{
	__u32 event = READ_ONCE(place_of(waiter)->event);
	const struct timespec no_time = { 0 };

	forkgate_self->depth[0]--;
	forkgate_prepare(MEMORY, &no_time);
	return READ_ONCE(place_of(waiter)->event) != event;
}

TEST_F(own, fork_between_the_steps_of_a_leave)
{
	ASSERT_EQ(0, set_times(3600 * 1000, 3600 * 1000));
	ASSERT_EQ(0, run(&self->a, do_enter, ARG(MEMORY)));
	start(&self->b, do_prepare, ARG(MEMORY));
	ASSERT_TRUE(wait_until(worker_waits(&self->b, 1)));
	EXPECT_EQ(1, run(&self->a, do_half_leave, &self->b));
	run(&self->a, do_release, NULL);
	EXPECT_EQ(0, finish(&self->b));
}

/* Rule 4: the sections of a handler end, there is no circle through them. */
TEST_F(own, no_circle_through_a_handler)
{
	NEEDS_HANDLER();
	ASSERT_EQ(0, set_times(3600 * 1000, 3600 * 1000));
	ASSERT_EQ(0, run(&self->b, do_enter, ARG(FILES)));
	start(&self->a, do_prepare, ARG(FILES));
	ASSERT_TRUE(wait_until(worker_waits(&self->a, 1)));
	ASSERT_TRUE(hold_worker(&self->a, MEMORY));
	start(&self->b, do_prepare, ARG(MEMORY));
	EXPECT_TRUE(wait_until(worker_waits(&self->b, 2)));
	end_hold();
	EXPECT_EQ(0, finish(&self->b));
	EXPECT_EQ(0, run(&self->b, do_release, NULL));
	EXPECT_EQ(0, run(&self->b, do_leave, ARG(FILES)));
	EXPECT_EQ(0, finish(&self->a));
}

/* Rule 5: a thread that is inside may enter more, in a drain. */
TEST_F(own, nested_entries_pass)
{
	ASSERT_EQ(0, run(&self->a, do_enter, ARG(FILES)));
	start(&self->b, do_prepare, ARG(BOTH));
	ASSERT_TRUE(wait_until(worker_waits(&self->b, 1)));
	EXPECT_EQ(0, run(&self->a, do_tryenter, ARG(MEMORY)));
	EXPECT_EQ(10, run(&self->a, do_leave, ARG(FILES)));
	EXPECT_TRUE(wait_until(worker_waits(&self->b, 1)));
	EXPECT_EQ(0, run(&self->a, do_leave, ARG(MEMORY)));
	EXPECT_EQ(0, finish(&self->b));
	/* but not while there is a ticket */
	EXPECT_EQ(EBUSY, run(&self->a, do_tryenter, ARG(MEMORY)));
}

/* A place that is polled for is kept for a ticket_hold, and told when to look. */
TEST_F(own, poll)
{
	struct forkgate_prepare prep = { .domains = BOTH, .flags = FORKGATE_NONBLOCK };
	struct pollfd poll_fd = { .events = POLLIN };
	int fds[2], left = -1;

	ASSERT_EQ(0, run(&self->a, do_enter, ARG(BOTH)));
	poll_fd.fd = __forkgate_gate_descriptor(__forkgate_own);
	ASSERT_LE(0, poll_fd.fd);
	EXPECT_EQ(EAGAIN, __forkgate_call(FORKGATE_IOC_PREPARE, &prep));
	EXPECT_EQ(0, poll(&poll_fd, 1, 0));
	EXPECT_EQ(EBUSY, run(&self->b, do_tryenter, ARG(BOTH)));
	EXPECT_EQ(0, run(&self->a, do_leave, ARG(BOTH)));
	EXPECT_EQ(1, poll(&poll_fd, 1, 0));
	EXPECT_EQ(0, __forkgate_call(FORKGATE_IOC_PREPARE, &prep));
	EXPECT_EQ(0, forkgate_release());

	ASSERT_EQ(0, set_times(3600 * 1000, 60));
	ASSERT_EQ(0, run(&self->a, do_enter, ARG(BOTH)));
	EXPECT_EQ(EAGAIN, __forkgate_call(FORKGATE_IOC_PREPARE, &prep));
	/* nobody else does anything */
	EXPECT_EQ(1, poll(&poll_fd, 1, -1));
	EXPECT_EQ(EAGAIN, __forkgate_call(FORKGATE_IOC_PREPARE, &prep));
	EXPECT_EQ(0, run(&self->b, do_enter, ARG(BOTH)));
	EXPECT_EQ(0, gate_state().forkers);
	EXPECT_EQ(0, run(&self->b, do_leave, ARG(BOTH)));

	/* and it ends with the policy's timeout, which goes on if the place was lost */
	EXPECT_EQ(ENOENT, forkgate_release());
	ASSERT_EQ(0, change_policy(timeout, 30 * NSEC_PER_MSEC));
	ASSERT_EQ(0, change_policy(ticket_hold, FORKGATE_TIME_MAX));
	EXPECT_EQ(EAGAIN, __forkgate_call(FORKGATE_IOC_PREPARE, &prep));
	EXPECT_EQ(1, poll(&poll_fd, 1, -1));
	EXPECT_EQ(ETIMEDOUT, __forkgate_call(FORKGATE_IOC_PREPARE, &prep));
	EXPECT_EQ(EAGAIN, __forkgate_call(FORKGATE_IOC_PREPARE, &prep));
	ASSERT_EQ(0, change_policy(ticket_hold, 60 * NSEC_PER_MSEC));
	EXPECT_EQ(EAGAIN, __forkgate_call(FORKGATE_IOC_PREPARE, &prep));
	EXPECT_TRUE(wait_until(!gate_state().forkers));
	EXPECT_EQ(1, poll(&poll_fd, 1, -1));
	EXPECT_EQ(ETIMEDOUT, __forkgate_call(FORKGATE_IOC_PREPARE, &prep));
	ASSERT_EQ(0, change_policy(ticket_hold, FORKGATE_TIME_MAX));

	/* Another file in its place is left alone. */
	ASSERT_EQ(0, pipe(fds));
	ASSERT_EQ(0, change_policy(timeout, FORKGATE_FOREVER));
	EXPECT_EQ(EAGAIN, __forkgate_call(FORKGATE_IOC_PREPARE, &prep));
	ASSERT_EQ(poll_fd.fd, dup2(fds[1], poll_fd.fd));
	EXPECT_EQ(0, run(&self->a, do_leave, ARG(BOTH)));
	EXPECT_EQ(0, ioctl(fds[0], FIONREAD, &left));
	EXPECT_EQ(0, left);
	poll_fd.fd = __forkgate_gate_descriptor(__forkgate_own);
	EXPECT_EQ(1, poll(&poll_fd, 1, -1));
	EXPECT_EQ(0, __forkgate_call(FORKGATE_IOC_PREPARE, &prep));
}

/*
 * Signal handlers of threads that wait: their child has a gate without forks
 */

/* The call goes on in both. */
static long do_prepare_twice(void *unused)
{
	pid_t parent = getpid();
	long err = forkgate_prepare(BOTH, NULL);

	if (getpid() == parent)
		return err;
	_exit(err || reap(do_fork(NULL)) ? 1 : 0);
}

static long do_enter_twice(void *unused)
{
	pid_t parent = getpid();
	long err = forkgate_enter(BOTH);

	if (getpid() == parent)
		return err;
	if (gate_state().blocked || depth() != 11)
		_exit(2);
	forkgate_leave(BOTH);
	_exit(err || reap(do_fork(NULL)) ? 1 : 0);
}

TEST_F(own, handler_forks_while_a_fork_waits)
{
	struct sigaction action = { .sa_handler = fork_and_go_on };

	NEEDS_HANDLER();
	ASSERT_EQ(0, sigaction(SIGUSR1, &action, NULL));
	ASSERT_EQ(0, set_times(3600 * 1000, 3600 * 1000));
	handler_result = -1;
	ASSERT_EQ(0, run(&self->a, do_enter, ARG(FILES)));
	start(&self->b, do_prepare_twice, NULL);
	ASSERT_TRUE(wait_until(worker_waits(&self->b, 1)));
	ASSERT_EQ(0, pthread_kill(self->b.thread, SIGUSR1));
	/* Now the handler's own fork waits. */
	ASSERT_TRUE(wait_until(READ_ONCE(handler_began) && worker_waits(&self->b, 1)));
	EXPECT_EQ(0, run(&self->a, do_leave, ARG(FILES)));
	EXPECT_EQ(0, finish(&self->b));
	EXPECT_EQ(0, handler_result);
}

TEST_F(own, handler_forks_while_its_thread_is_kept_out)
{
	struct sigaction action = { .sa_handler = fork_and_go_on };

	NEEDS_HANDLER();
	ASSERT_EQ(0, sigaction(SIGUSR1, &action, NULL));
	handler_result = -1;
	ASSERT_EQ(0, set_times(3600 * 1000, 3600 * 1000));
	ASSERT_EQ(0, run(&self->a, do_prepare, ARG(BOTH)));
	start(&self->b, do_enter_twice, NULL);
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	ASSERT_EQ(0, pthread_kill(self->b.thread, SIGUSR1));
	ASSERT_TRUE(wait_until(gate_state().forkers == 2));
	EXPECT_EQ(0, run(&self->a, do_release, NULL));
	EXPECT_EQ(0, finish(&self->b));
	EXPECT_EQ(0, handler_result);
}

/*
 * Other forks
 */

/* Rule 11: a ticket that expires before the clone, by a function without handlers */
static void expire_once(void)
{
	if (!the_gate()->holder || !__atomic_exchange_n(&after_unlock, NULL, __ATOMIC_SEQ_CST))
		return;
	the_gate()->holder_until = 0;
	start(intruder, do_enter, ARG(FILES));
	wait_until(!busy(intruder));
}

static long do_spawn(void *unused)
{
	char *const argv[] = { "true", NULL };
	pid_t pid;
	int err = posix_spawnp(&pid, "true", NULL, NULL, argv, environ);

	return err ? -err : pid;
}

TEST_F(own, ticket_of_a_spawn_expires)
{
#ifdef __SANITIZE_THREAD__
	SKIP(return, "the test changes the gate without its lock");
#endif
	ASSERT_EQ(0, set_times(20, 3600 * 1000));
	intruder = &self->a;
	after_unlock = expire_once;
	start(&self->b, do_spawn, NULL);
	/* for longer than the patience */
	EXPECT_TRUE(wait_until(gate_state().timeouts));
	EXPECT_TRUE(wait_until(worker_waits(&self->b, 1)));
	EXPECT_EQ(0, run(&self->a, do_leave, ARG(FILES)));
	EXPECT_EQ(0, reap(finish(&self->b)));
}

/* The gate opens when a vfork child runs, not when it has gone its way. */
static int latch;

static long do_vfork(void *unused)
{
	pid_t pid = vfork();

	if (!pid) {
		latch_wait(&latch);
		_exit(0);
	}
	return pid < 0 ? -errno : pid;
}

TEST_F(own, vfork_child_opens_the_gate)
{
	__u64 forks = gate_state().forks;

#ifndef OWN_VFORK
	SKIP(return, "built without the library's vfork()");
#endif
	ASSERT_EQ(0, run(&self->a, do_enter, ARG(FILES)));
	start(&self->b, do_vfork, NULL);
	ASSERT_TRUE(wait_until(worker_waits(&self->b, 1)));
	ASSERT_EQ(0, run(&self->a, do_leave, ARG(FILES)));
	ASSERT_TRUE(wait_until(gate_state().forks == forks + 1));
	EXPECT_EQ(0, run(&self->a, do_enter, ARG(FILES)));
	EXPECT_EQ(0, run(&self->a, do_leave, ARG(FILES)));
	EXPECT_TRUE(busy(&self->b));
	latch_open(&latch);
	EXPECT_EQ(0, reap(finish(&self->b)));
}

/* What executes for long keeps others out for a ticket_hold at most. */
static long do_system(void *unused)
{
	return system("sleep 1000 & echo $! >&9; wait");
}

TEST_F(own, system_opens_the_gate)
{
	char text[16] = "";
	int fds[2];

	ASSERT_EQ(0, pipe(fds));
	ASSERT_EQ(9, dup2(fds[1], 9));
	ASSERT_EQ(0, set_times(3600 * 1000, 3600 * 1000));
	start(&self->b, do_system, NULL);
	ASSERT_LT(0, read(fds[0], text, sizeof(text) - 1));
	EXPECT_EQ(0, run(&self->a, do_enter, ARG(FILES)));
	EXPECT_TRUE(busy(&self->b));
	EXPECT_EQ(0, kill(atoi(text), SIGKILL));
	EXPECT_LE(0, finish(&self->b));
	EXPECT_EQ(0, gate_state().forkers);
}

/*
 * Rule 12
 */

static struct forkgate_holder blamed;
static unsigned long long blamed_ns;

static void remember(const struct forkgate_holder *holder, unsigned long long waited)
{
	blamed = *holder;
	blamed_ns = waited;
}

TEST_F(own, blame)
{
	struct timespec past = { 0 };
	char text[512] = "";
	int fds[2];

	ASSERT_EQ(0, change_policy(timeout, 30 * NSEC_PER_MSEC));
	ASSERT_EQ(0, run(&self->a, do_enter, ARG(MEMORY)));
	forkgate_blame(remember);
	EXPECT_EQ(ETIMEDOUT, forkgate_prepare(BOTH, NULL));
	EXPECT_EQ(self->a.tid, blamed.tid);
	EXPECT_EQ(MEMORY, blamed.domains);
	EXPECT_LE(30 * NSEC_PER_MSEC, blamed_ns);

	/* what the caller asked for himself is not reported */
	blamed.tid = 0;
	EXPECT_EQ(ETIMEDOUT, forkgate_prepare(BOTH, &past));
	EXPECT_EQ(0, blamed.tid);

	forkgate_blame(NULL);
	ASSERT_EQ(0, pipe(fds));
	ASSERT_EQ(STDERR_FILENO, dup2(fds[1], STDERR_FILENO));
	EXPECT_EQ(ETIMEDOUT, forkgate_prepare(BOTH, NULL));
	ASSERT_LT(0, read(fds[0], text, sizeof(text) - 1));
	EXPECT_NE(NULL, strstr(text, "inside a memory section")) TH_LOG("%s", text);

	/* what cannot be said at once is not said: a full pipe, one that nobody reads */
	ASSERT_EQ(0, fcntl(fds[1], F_SETFL, O_NONBLOCK));
	while (write(fds[1], text, sizeof(text)) > 0 || write(fds[1], text, 1) > 0)
		;
	ASSERT_EQ(0, fcntl(fds[1], F_SETFL, 0));
	EXPECT_EQ(ETIMEDOUT, forkgate_prepare(BOTH, NULL));
	ASSERT_EQ(0, close(fds[0]));
	EXPECT_EQ(ETIMEDOUT, forkgate_prepare(BOTH, NULL));
}

/*
 * No fence
 */

TEST(no_membarrier)
{
	int reason;

	/* The constructor has made a gate: forget it. */
	struct own_gate *made;

	membarrier_error = ENOSYS;
	EXPECT_EQ(ENOSYS, __forkgate_gate_make(&made));
	membarrier_error = EPERM;
	EXPECT_EQ(ENOSYS, __forkgate_gate_make(&made));
	EXPECT_EQ(FORKGATE_BY_LIBRARY, forkgate_protection(&reason));
	EXPECT_EQ(ENODEV, reason);
}

/* Forbidden later: a fork goes ahead, and the child can read that. */
static long do_fork_bypassed(void *unused)
{
	pid_t pid = fork();

	if (!pid)
		_exit(copy());
	return pid < 0 ? -errno : pid;
}

TEST_F(own, membarrier_is_forbidden_later)
{
	ASSERT_EQ(0, run(&self->a, do_enter, ARG(BOTH)));
	membarrier_error = EPERM;
	EXPECT_EQ(ENOSYS, forkgate_prepare(BOTH, NULL));
	EXPECT_EQ(FORKGATE_COPY_BYPASSED, reap(run(&self->b, do_fork_bypassed, NULL)));
	EXPECT_EQ(0, gate_state().forkers);
	EXPECT_EQ(0, gate_state().closed);
	EXPECT_EQ(0, run(&self->a, do_leave, ARG(BOTH)));
	membarrier_error = 0;
	EXPECT_EQ(0, reap(run(&self->b, do_fork, NULL)));
}

/* Of two that wait each finds for itself that there is no fence. */
TEST_F(own, membarrier_is_forbidden_in_a_wait)
{
	ASSERT_EQ(0, forkgate_prepare(BOTH, NULL));
	start(&self->a, do_prepare, ARG(MEMORY));
	ASSERT_TRUE(wait_until(worker_waits(&self->a, 2)));
	start(&self->b, do_prepare, ARG(MEMORY));
	ASSERT_TRUE(wait_until(worker_waits(&self->b, 3)));
	membarrier_error = EPERM;
	EXPECT_EQ(0, forkgate_release());
	EXPECT_EQ(ENOSYS, finish(&self->a));
	EXPECT_EQ(ENOSYS, finish(&self->b));
	EXPECT_EQ(0, gate_state().closed);
}

#ifdef PLUGIN
/*
 * Plug-ins with a copy of the library of their own
 */

struct plugin {
	void *object;
	int (*enter)(unsigned int domains);
	void (*leave)(unsigned int domains);
	int (*protection)(int *reason);
};

static bool load(struct plugin *plugin, const char *name)
{
	plugin->object = dlopen(name, RTLD_NOW);
	if (!plugin->object)
		return false;
	plugin->enter = dlsym(plugin->object, "plugin_enter");
	plugin->leave = dlsym(plugin->object, "plugin_leave");
	plugin->protection = dlsym(plugin->object, "plugin_protection");
	return plugin->enter && plugin->leave && plugin->protection;
}

static long do_plugin_enter(void *plugin)
{
	return ((struct plugin *)plugin)->enter(BOTH);
}

static long do_plugin_leave(void *plugin)
{
	((struct plugin *)plugin)->leave(BOTH);
	return 0;
}

TEST_F(own, unloaded_copy)
{
	struct plugin plugin;
	int i, reason;

	for (i = 0; i < 3; i++) {
		ASSERT_TRUE(load(&plugin, PLUGIN));
		EXPECT_EQ(FORKGATE_BY_LIBRARY, plugin.protection(&reason));
		EXPECT_EQ(0, run(&self->a, do_plugin_enter, &plugin));
		EXPECT_EQ(1, gate_state().holders_count);
		start(&self->b, do_fork, NULL);
		EXPECT_TRUE(wait_until(worker_waits(&self->b, 1)));
		EXPECT_EQ(0, run(&self->a, do_plugin_leave, &plugin));
		EXPECT_EQ(0, reap(finish(&self->b)));
		ASSERT_EQ(0, dlclose(plugin.object));
		EXPECT_EQ(NULL, dlopen(PLUGIN, RTLD_NOW | RTLD_NOLOAD));
		EXPECT_EQ(0, reap(run(&self->b, do_fork, NULL)));
	}
}

/* One that this one's gate does not fit has none. */
TEST_F(own, copy_of_another_generation)
{
	struct plugin plugin;
	int reason;

	ASSERT_TRUE(load(&plugin, OTHER_PLUGIN));
	EXPECT_EQ(FORKGATE_UNPROTECTED, plugin.protection(&reason));
	EXPECT_EQ(ENOTSUP, reason);
	EXPECT_EQ(0, run(&self->a, do_plugin_enter, &plugin));
	EXPECT_EQ(0, gate_state().holders_count);
	EXPECT_EQ(0, reap(run(&self->b, do_fork, NULL)));
	EXPECT_EQ(0, run(&self->a, do_plugin_leave, &plugin));
}
#endif

/*
 * A storm
 */

static bool stop;
static int data;

static long do_storm(void *seed)
{
	unsigned int random = (uintptr_t)seed;
	unsigned int domains;
	long turns;

	for (turns = 0; !READ_ONCE(stop); turns++) {
		random = random * 1103515245 + 12345;
		domains = (random >> 16) % 3 + 1;
		if (forkgate_enter(domains))
			return -1;
		if (domains & MEMORY) {
			__atomic_fetch_add(&half_done, 1, __ATOMIC_RELAXED);
			if ((random >> 20) % 4 == 0) {
				if (forkgate_enter(BOTH))
					return -2;
				__atomic_fetch_add(&data, 1, __ATOMIC_RELAXED);
				forkgate_leave(BOTH);
			}
			free(malloc((random >> 18) % 3000));
			__atomic_fetch_sub(&half_done, 1, __ATOMIC_RELAXED);
		}
		forkgate_leave(domains);
		if (depth())
			return -3;
	}
	return turns;
}

static long do_fork_storm(void *count)
{
	long i, status;

	for (i = 0; i < (long)(uintptr_t)count; i++) {
		status = reap(i % 2 ? do_fork(NULL) : do__Fork(NULL));
		if (status)
			return status;
	}
	return 0;
}

TEST_F(own, storm)
{
	const char *given = getenv("FORKS");
	long count = given ? atoi(given) : 200;
	struct worker workers[3];
	size_t i;

#ifdef __SANITIZE_THREAD__
	SKIP(return, "ThreadSanitizer's own locks do not survive this many forks");
#endif
	ASSERT_EQ(0, set_times(2, 50));
	for (i = 0; i < ARRAY_SIZE(workers); i++) {
		ASSERT_EQ(0, worker_spawn(&workers[i]));
		start(&workers[i], do_storm, ARG(i + 1));
	}
	start(&self->a, do_fork_storm, ARG(count));
	start(&self->b, do_fork_storm, ARG(count));
	while (busy(&self->a) || busy(&self->b))
		wait_tick(0);
	EXPECT_EQ(0, finish(&self->a));
	EXPECT_EQ(0, finish(&self->b));
	WRITE_ONCE(stop, true);
	for (i = 0; i < ARRAY_SIZE(workers); i++)
		EXPECT_LT(0, finish(&workers[i]));
	EXPECT_EQ(0, gate_state().forkers);
	EXPECT_EQ(0, gate_state().blocked);
}

TEST_HARNESS_MAIN
