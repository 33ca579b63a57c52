/* SPDX-License-Identifier: LGPL-2.1-or-later OR MIT */
/*
 * Fork-safe sections for programs: the API of libforkgate
 *
 * A thread inside a section of a domain keeps every fork of its process that
 * would copy this domain waiting; see forkgate(7). Error numbers are returned,
 * as by pthread functions; 0 is success. Only forkgate_fork() changes errno.
 *
 * What is inline here is compiled into programs: the layout of struct
 * forkgate_slot and struct forkgate_header, the place of a slot's header, the
 * initial-exec access to forkgate_self and the steps of enter and leave are
 * permanent ABI. This file must not need more than C99 or C++11 with GNU
 * extensions, and must not use a locked instruction or a full barrier on the
 * way through an open gate.
 */
#ifndef _FORKGATE_H
#define _FORKGATE_H

#include <errno.h>
#include <sys/types.h>
#include <time.h>

#include <linux/forkgate.h>

#ifdef __cplusplus
extern "C" {
#endif

struct timespec;	/* strict C99 has none in <time.h> */

/*
 * The slot in which the calling thread counts its sections; NULL before its
 * first one. For the inline functions below alone. Without a gate the slot is
 * in a unit of the library's own memory, whose closed word only FORKGATE_STRICT
 * sets.
 */
extern __thread struct forkgate_slot *forkgate_self
	__attribute__((__tls_model__("initial-exec")));

/* The ways out of the inline functions; not to be called by programs. */
struct forkgate_slot *forkgate_attach(void);
int forkgate_enter_slow(unsigned int domains, unsigned int flags);
void forkgate_leave_slow(unsigned int domains);

#define FORKGATE_STRICT		1u	/* forkgate_init() */

/**
 * forkgate_init() - ask whether sections of the caller are protected
 * @flags: 0 or FORKGATE_STRICT
 *
 * No program needs to call this: the library sets itself up when it is loaded,
 * and without the module it is a gate itself, for forks that go through it; see
 * forkgate_protection(). Without any gate, or in a thread that found no free
 * slot, a section protects nothing and costs next to nothing: forkgate_enter(),
 * forkgate_tryenter(), forkgate_prepare() and forkgate_release() return 0, and
 * the program runs as it would without forkgate. With FORKGATE_STRICT they
 * return the reason instead, in every thread that is not protected by the
 * module, from now on.
 *
 * A set-up that failed is tried again by this call alone, for the process and
 * for the calling thread unless that is inside a section. A process keeps the
 * gate that it began with.
 *
 * Return: 0 if sections of the caller are protected, with FORKGATE_STRICT by the
 * module. Otherwise the reason why not: ENODEV (no module), EACCES or EPERM (no
 * permission), EMFILE, ENFILE or ENOMEM (no resources), ENOTSUP (a module that
 * does not know ABI 1, or another copy of the library with another gate), ENOSYS
 * (no module, and no membarrier(2) for a gate of the library), ENOSPC (all slots
 * are taken); or EINVAL (unknown flag, nothing done).
 *
 * Context: any thread, not in a signal handler; no cancellation point.
 */
int forkgate_init(unsigned int flags);

#define FORKGATE_UNPROTECTED	0
#define FORKGATE_BY_LIBRARY	1
#define FORKGATE_BY_MODULE	2

/**
 * forkgate_protection() - ask which gate sections of the caller have
 * @reason: set to why it is no better one, see forkgate_init(), or 0; or NULL
 *
 * Return: FORKGATE_BY_MODULE: all forks wait. FORKGATE_BY_LIBRARY: those wait
 * that go through the C library and libforkgate; @reason says why the module
 * is not used. FORKGATE_UNPROTECTED: none; @reason is also ENOSYS (no
 * membarrier(2)) and EIO (the module's hook does not work now).
 *
 * Context: as forkgate_init().
 */
int forkgate_protection(int *reason);

/*
 * What is called after a fork has waited too long: the thread that it waited for
 * last, and for how long, in ns.
 */
typedef void forkgate_blame_t(const struct forkgate_holder *holder,
			      unsigned long long waited);

/**
 * forkgate_blame() - be told whom forks wait for in vain
 * @function: called by the thread that forks, before it takes locks of the C
 *	library; it must not fork. NULL: a line on standard error, as before
 *
 * Only the library's own gate calls it. The module's messages are the kernel's.
 *
 * Context: any thread; async-signal-safe.
 */
void forkgate_blame(forkgate_blame_t *function);

/**
 * forkgate_tryenter() - enter sections unless that means waiting
 * @domains: FORKGATE_MEMORY, FORKGATE_FILES or both
 *
 * Return: 0 when entered, EBUSY when the gate keeps the caller out, or an
 * error of forkgate_enter().
 *
 * Context: as forkgate_enter(), but does not wait.
 */
int forkgate_tryenter(unsigned int domains);

/**
 * forkgate_prepare() - wait for a ticket: the right to fork at once
 * @domains: what the coming fork will copy: FORKGATE_MEMORY, FORKGATE_FILES or
 *	both; vfork() and posix_spawn() copy files only
 * @abstime: time until which to wait, of the caller's CLOCK_MONOTONIC; one that
 *	has passed polls; NULL: as long as the policy of the process says
 *
 * Waits until all other threads have left their sections of @domains. Then they
 * stay out until the caller has forked, called forkgate_release(), or the
 * policy's ticket_hold is over; a fork after that waits again. The fork
 * functions of the C library do this themselves if they have to wait, when the
 * program is linked with -lforkgate (see forkgate_fork()); prepare is for other
 * ways to fork. A ticket that covers @domains is kept; any other is given up for
 * one that covers both, and the caller waits again.
 *
 * Return: 0 with a ticket, or when the wait has ended and the policy says that
 * forks then go ahead unsafe (without a gate also 0, or the reason why there is
 * none, see forkgate_init()); EINVAL (@domains or tv_nsec out of range),
 * ETIMEDOUT, EDEADLK (the wait would close a circle of forkers that are inside
 * sections), ENOMEM.
 *
 * Context: any thread, also inside sections; may sleep; async-signal-safe; no
 * cancellation point. A signal handler runs and the wait goes on.
 */
#if defined(__USE_TIME_BITS64) && defined(__TIMESIZE) && __TIMESIZE == 32
int forkgate_prepare(unsigned int domains, const struct timespec *abstime)
	__asm__("forkgate_prepare64");
#else
int forkgate_prepare(unsigned int domains, const struct timespec *abstime);
#endif

/**
 * forkgate_tryprepare() - take a ticket, or a place in the queue, without waiting
 * @domains: as for forkgate_prepare()
 * @fd: set to a descriptor to poll if the caller has to wait, otherwise to -1
 *
 * For event loops. With EAGAIN the calling thread has a place, which ends by
 * forkgate_release() and by the policy's timeout. poll() for POLLIN, by this
 * thread, tells when to call again. The descriptor is the library's: not to be
 * read, nor closed. It is -1 if there is none to poll: call again after a while.
 *
 * Return: 0 as forkgate_prepare(); EAGAIN (not yet); an error of
 * forkgate_prepare().
 *
 * Context: as forkgate_prepare(), but does not wait.
 */
int forkgate_tryprepare(unsigned int domains, int *fd);

/**
 * forkgate_release() - give back a ticket that was not used
 *
 * Return: 0; ESTALE (the ticket has expired), ENOENT (there is none); without a
 * gate as forkgate_prepare().
 *
 * Context: any thread; async-signal-safe; no cancellation point.
 */
int forkgate_release(void);

/**
 * forkgate_label() - name the caller's section, for blame
 * @label: name, of which FORKGATE_LABEL_SIZE bytes are copied; NULL: no name
 *
 * To be called inside the section. The name is shown until the thread enters
 * the next section. Does nothing in a thread that has never been in one.
 *
 * Context: any thread; does not wait; async-signal-safe.
 */
void forkgate_label(const char *label);

/**
 * forkgate_policy_get() - read how forks of the process wait
 * @policy: where to put it
 *
 * Return: 0, or the reason of forkgate_init() why there is no gate.
 *
 * Context: any thread; does not wait; async-signal-safe; no cancellation point.
 */
int forkgate_policy_get(struct forkgate_policy *policy);

/**
 * forkgate_policy_set() - say how forks of the process wait
 * @policy: the whole policy, see <linux/forkgate.h>
 *
 * Holds for forks that begin after that, and is inherited by children.
 *
 * Return: 0; EINVAL (a time is too long, on_timeout is unknown, or pad is not
 * 0); as forkgate_policy_get().
 *
 * Context: as forkgate_policy_get().
 */
int forkgate_policy_set(const struct forkgate_policy *policy);

/**
 * forkgate_state() - look at the gate of the process
 * @state: holders and holders_max say where there is room for threads that are
 *	inside of sections, zeroes that none is wanted; all else is overwritten
 *
 * Return: 0; ENOMEM; as forkgate_policy_get().
 *
 * Context: as forkgate_policy_get().
 */
int forkgate_state(struct forkgate_state *state);

/**
 * forkgate_copy() - ask how the memory of this process came to be
 *
 * Return: FORKGATE_COPY_*, or 0: it was copied while no other thread was inside
 * a section, or not copied. Without a gate, which would know, also 0.
 *
 * Context: as forkgate_policy_get().
 */
unsigned int forkgate_copy(void);

/**
 * forkgate_fork() - fork() while no other thread is inside a section
 *
 * Forks, and if another thread would keep it waiting takes a ticket, while none
 * of the C library's locks is taken, and forks again, more patiently each time
 * that the ticket expires before. Atfork handlers run each time.
 *
 * With the shared library fork() is this function, and _Fork(), daemon(),
 * forkpty(), vfork(), posix_spawn(), posix_spawnp(), pidfd_spawn(),
 * pidfd_spawnp(), system() and popen() do the same, as far as the C library has
 * them. With the static one, link with what "pkg-config --static
 * --libs libforkgate" prints. Where libc's functions are found first, as in a
 * program that has the library only through another one, an atfork handler
 * prepares for fork(), which is not tried again then, and the other forks wait
 * in the kernel.
 *
 * Return: as fork(); errno is fork()'s, or EAGAIN (the policy's timeout is over)
 * or EDEADLK (as forkgate_prepare()).
 *
 * Context: as fork().
 */
pid_t forkgate_fork(void);

#define forkgate_unlikely(x)	__builtin_expect(!!(x), 0)

static __always_inline void forkgate_barrier(void)
{
	__asm__ __volatile__("" : : : "memory");
}

/* An address in the calling function or, on other machines, in its caller. */
static __always_inline const void *forkgate_site(void)
{
	void *site;

#if defined(__x86_64__)
	__asm__ __volatile__("lea 0(%%rip), %0" : "=r" (site));
#elif defined(__i386__) && defined(__PIC__)
	__asm__ __volatile__("call 1f\n1:\tpop %0" : "=r" (site));
#elif defined(__i386__)
	__asm__ __volatile__("1:\tmovl $1b, %0" : "=r" (site));
#elif defined(__aarch64__)
	__asm__ __volatile__("adr %0, ." : "=r" (site));
#else
	site = __builtin_return_address(0);
#endif
	return site;
}

/* The header of the unit that a slot lies in */
static __always_inline const struct forkgate_header *
forkgate_header_of(const struct forkgate_slot *slot)
{
	__UINTPTR_TYPE__ low = FORKGATE_UNIT_SIZE - 1;

	return (const struct forkgate_header *)((__UINTPTR_TYPE__)slot & ~low);
}

static __always_inline __u32 forkgate_closed(const struct forkgate_slot *slot)
{
	return __atomic_load_n(&forkgate_header_of(slot)->closed,
			       __ATOMIC_RELAXED);
}

/*
 * Counting is one instruction where the machine has one for it: compilers make
 * three of an atomic load and an atomic store. Each counter has a store of its
 * own, because two that are merged stall the next load of one.
 */
static __always_inline void forkgate_count(__u32 *depth)
{
#if defined(__x86_64__) || defined(__i386__)
	__asm__ __volatile__("addl $1, %0" : "+m" (*depth) : : "memory", "cc");
#else
	__atomic_store_n(depth, *depth + 1, __ATOMIC_RELAXED);
#endif
}

/* A thread that sees the section end sees what was done in it. */
static __always_inline void forkgate_uncount(__u32 *depth)
{
#ifdef FORKGATE_DEBUG
	if (!*depth)
		__builtin_trap();
#endif
#if defined(__x86_64__) || defined(__i386__)
	/* Every store is a release. */
	__asm__ __volatile__("subl $1, %0" : "+m" (*depth) : : "memory", "cc");
#else
	__atomic_store_n(depth, *depth - 1, __ATOMIC_RELEASE);
#endif
}

/*
 * The steps of an entry, labelled as in the module: count, then look whether
 * the gate is closed, on every entry and not only on the outermost. Return: the
 * domains among @domains that are closed, for which forkgate_enter_slow() must
 * be asked.
 */
static __always_inline __u32
forkgate_enter_steps(struct forkgate_slot *slot, const void *site,
		     unsigned int domains)
{
	slot->site = (__UINTPTR_TYPE__)site;
	forkgate_barrier();	/* blame finds the site of a section that counts */
	/* E1 */
	if (domains & FORKGATE_MEMORY)
		forkgate_count(&slot->depth[0]);
	if (domains & FORKGATE_FILES)
		forkgate_count(&slot->depth[1]);
	/* E2: count before looking; the forker's fence is the other half */
	forkgate_barrier();
	/* E3 */
	return forkgate_closed(slot) & domains;
}

/* @site: address to blame; @flags: 0 or FORKGATE_NONBLOCK. See forkgate_enter(). */
static __always_inline int
forkgate_enter_at(const void *site, unsigned int domains, unsigned int flags)
{
	struct forkgate_slot *slot = forkgate_self;

	if (forkgate_unlikely(domains - 1 >= FORKGATE_DOMAINS))
		return EINVAL;
	if (forkgate_unlikely(!slot))
		slot = forkgate_attach();
	if (forkgate_unlikely(forkgate_enter_steps(slot, site, domains)))
		return forkgate_enter_slow(domains, flags);
	return 0;
}

/**
 * forkgate_enter() - enter sections
 * @domains: FORKGATE_MEMORY, FORKGATE_FILES or both
 *
 * Waits while a fork keeps the caller out. Sections nest, also across domains.
 * The counters belong to the thread: it must leave what it has entered. A
 * child goes on with the sections of the thread that forked.
 *
 * Return: 0, or with nothing entered: EINVAL (no or unknown domains), and once
 * asked for strictly, the reason of forkgate_init() why nothing is protected.
 *
 * The libraries have functions of the same names, forkgate_enter and
 * forkgate_leave, for languages that cannot inline these.
 *
 * Context: any thread; may sleep; async-signal-safe; no cancellation point. A
 * signal handler must leave what it has entered and must return: longjmp()
 * out of one that interrupted enter or leave is undefined.
 */
static __always_inline int forkgate_enter(unsigned int domains)
{
	return forkgate_enter_at(forkgate_site(), domains, 0);
}

/**
 * forkgate_leave() - leave sections that this thread has entered
 * @domains: FORKGATE_MEMORY, FORKGATE_FILES or both; the two may be left in
 *	any order, and separately after having been entered together
 *
 * To leave what was not entered is undefined; the program is stopped by a trap
 * if this file was included with FORKGATE_DEBUG defined.
 *
 * Context: any thread; does not wait; async-signal-safe; no cancellation
 * point.
 */
static __always_inline void forkgate_leave(unsigned int domains)
{
	struct forkgate_slot *slot = forkgate_self;

	/* L1 */
	if (domains & FORKGATE_MEMORY)
		forkgate_uncount(&slot->depth[0]);
	if (domains & FORKGATE_FILES)
		forkgate_uncount(&slot->depth[1]);
	/* L2 */
	forkgate_barrier();
	/* L3 */
	if (forkgate_unlikely(forkgate_closed(slot) & domains))
		forkgate_leave_slow(domains);
}

#ifdef __cplusplus
}
#endif

#endif /* _FORKGATE_H */
