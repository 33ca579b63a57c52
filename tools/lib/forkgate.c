// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * The way to the gate: the mapping, the slots, the slow paths
 *
 * Without the module the gate is the library's own, see gate.c; the mapping is
 * its memory then, and a call is a function. With it, a call is an ioctl(2) on a
 * descriptor that the library keeps. A program may close it, or put another file in
 * its place, at any time and without notice: then the call is a msync(2) on the
 * mapping, which has the same effect, so nothing changes after closefrom() and
 * chroot(). A program that unmaps the mapping has lost its gate and must not enter
 * again. Threads without a gate count in a unit of unit.c.
 *
 * Most of this runs in signal handlers, also in one that interrupted the same
 * code in the same thread: no locks, no malloc, no cancellation points, errno
 * stays. What is done twice is done with the same result twice: the kernel
 * gives a thread one slot however often it registers.
 */
#define _GNU_SOURCE
#undef _TIME_BITS	/* both kinds of forkgate_prepare() are here */
#include <assert.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "device-internal.h"
#include "gate-internal.h"

/* Compiled into programs, see forkgate.h. Never to be changed. */
static_assert(sizeof(struct forkgate_header) == FORKGATE_SLOT_SIZE, "header");
static_assert(offsetof(struct forkgate_header, closed) == 8, "closed");
static_assert((1 + FORKGATE_UNIT_SLOTS) * FORKGATE_SLOT_SIZE ==
	      FORKGATE_UNIT_SIZE, "unit");
static_assert(sizeof(struct forkgate_slot) == FORKGATE_SLOT_SIZE, "slot");
static_assert(offsetof(struct forkgate_slot, depth) == 0, "depth");
static_assert(offsetof(struct forkgate_slot, site) == 8, "site");
static_assert(offsetof(struct forkgate_slot, label_site) == 16, "label_site");
static_assert(offsetof(struct forkgate_slot, label) == 24, "label");
static_assert(offsetof(struct forkgate_slot, tid) == 48, "tid");
static_assert(offsetof(struct forkgate_slot, outcome) == 52, "outcome");
static_assert(offsetof(struct forkgate_slot, tries) == 56, "tries");
static_assert(FORKGATE_MEMORY == 1 && FORKGATE_FILES == 2, "domains");

/* The calls, relied on by every installed library. */
static_assert(sizeof(struct forkgate_query) == 24, "query");
static_assert(sizeof(struct forkgate_register) == 16, "register");
static_assert(sizeof(struct forkgate_enter) == 16, "enter");
static_assert(sizeof(struct forkgate_leave) == 8, "leave");
static_assert(sizeof(struct forkgate_prepare) == 24, "prepare");
static_assert(sizeof(struct forkgate_policy) == 40, "policy");

#define NSEC_PER_SEC	1000000000

FORKGATE_EXPORT __thread struct forkgate_slot *forkgate_self;

/* Why the thread has no gate, in a thread whose slot is one of unit.c */
static __thread int no_gate_error;

/* Set once, and by forkgate_init(); to set the same value twice does no harm. */
static char *map;	/* the mapping, NULL without one */
static int map_error;	/* why there is none; 0 before the first try */
static int module_error;	/* why it is not the module's, or 0 */

/* A descriptor of the device; -1: none. Written once. */
static int device = -1;

/*
 * Where the descriptor goes, or half of that, and so on, as the limit allows:
 * out of the way of programs that count on small numbers, but no higher, as
 * the kernel looks at all numbers below when a process ends.
 */
#define DEVICE_FD	31

static char *mapping(void)
{
	return __atomic_load_n(&map, __ATOMIC_ACQUIRE);
}

/* Is the slot one of the gate's, not of unit.c? */
bool __forkgate_gated(const struct forkgate_slot *slot)
{
	return mapping() && (uintptr_t)slot - (uintptr_t)mapping() < FORKGATE_MAP_SIZE;
}

/* Is the descriptor one of the device? Any is as good as the library's own. */
static bool is_device(int fd)
{
	return fd >= 0 && raw_call(SYS_lseek, fd, 0L, SEEK_CUR) == FORKGATE_POSITION;
}

/*
 * The number may change its meaning between the look and the call. Another file
 * then says that it does not know the request.
 */
int __forkgate_call(unsigned long request, void *arg)
{
	int fd = __atomic_load_n(&device, __ATOMIC_RELAXED);
	struct own_gate *own = own_gate();
	long err;

	if (own)
		return __forkgate_gate_call(own, request, arg);
	if (is_device(fd)) {
		err = raw_call(SYS_ioctl, fd, request, arg);
		if (err != -EBADF && err != -ENOTTY && err != -EINVAL)
			return -err;
	}
	return -raw_call(SYS_msync, mapping(), (long)FORKGATE_UNIT_SIZE,
			 (long)MS_SYNC, request, arg);
}

/* Without a descriptor a call goes by msync(2), on a file that none leads to. */
int __forkgate_descriptor(void)
{
	int fd = __atomic_load_n(&device, __ATOMIC_RELAXED);

	if (own_gate())
		return __forkgate_gate_descriptor(own_gate());
	return is_device(fd) ? fd : -1;
}

int __forkgate_move(int fd)
{
	long moved;
	int to;

	for (to = DEVICE_FD; to > fd && fd >= 0; to /= 2) {
		moved = raw_call(SYS_fcntl, fd, F_DUPFD_CLOEXEC, to);
		if (moved >= 0) {
			raw_call(SYS_close, fd);
			return moved;
		}
	}
	return fd;
}

/* Move a new descriptor of the device to its place and keep it. */
static void keep(int fd)
{
	int none = -1;

	fd = __forkgate_move(fd);
	if (!__atomic_compare_exchange_n(&device, &none, fd, false,
					 __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		raw_call(SYS_close, fd);
}

/* Return: the reason of forkgate_init() for what is in the way. */
static int reason_of(enum forkgate_obstacle obstacle, int error)
{
	switch (obstacle) {
	case FORKGATE_NOT_OPENED:
		return error == ENOENT || error == ENXIO || error == EISDIR ? ENODEV : error;
	case FORKGATE_NO_IOCTL:	/* the errors of another device, or whatever a filter says */
		return error == ENOTTY || error == EINVAL ? ENODEV : EPERM;
	case FORKGATE_NOT_SPOKEN:
		return ENOTSUP;
	case FORKGATE_NO_MSYNC:
		return EPERM;
	default:
		return error;
	}
}

static int find_device(void)
{
	enum forkgate_obstacle obstacle;
	struct forkgate_device found;
	char *none = NULL;

	obstacle = forkgate_open_device(&found);
	if (obstacle != FORKGATE_NO_OBSTACLE)
		return reason_of(obstacle, found.error);

	/* Another thread, or a signal handler, may have been faster. */
	if (!__atomic_compare_exchange_n(&map, &none, found.map, false,
					 __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		munmap(found.map, FORKGATE_MAP_SIZE);
	keep(found.fd);
	return 0;
}

/* Rule 16: the gate of another copy of the library, or a new one */
static int find_own(struct own_gate *own)
{
	struct own_gate *none = NULL, *made = NULL;
	int err;

	if (!own) {
		err = __forkgate_gate_make(&made);
		if (err)
			return err;
		own = made;
	}
	/* A signal handler may have been faster. */
	if (!__atomic_compare_exchange_n(&__forkgate_own, &none, own, false,
					 __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE) &&
	    made)
		munmap(made, sizeof(*made));
	__atomic_store_n(&map, own_gate()->units, __ATOMIC_RELEASE);
	return 0;
}

/*
 * Return: 0 if there is a mapping (now), or the reason why not. A process keeps
 * the gate that it has, also when the module comes later.
 */
static int find_gate(bool again)
{
	struct own_gate *own;
	int err;

	if (mapping())
		return 0;
	err = __atomic_load_n(&map_error, __ATOMIC_RELAXED);
	if (err && !again)
		return err;

	own = __forkgate_copies_gate(&err);
	if (!own && !err) {
		err = find_device();
		__atomic_store_n(&module_error, err, __ATOMIC_RELAXED);
		if (!err)
			return 0;
		err = 0;
	} else {
		__atomic_store_n(&module_error, err ? err : ENODEV, __ATOMIC_RELAXED);
	}
	if (!err)
		err = find_own(own);
	__atomic_store_n(&map_error, err, __ATOMIC_RELAXED);
	return err;
}

/* Return: 0 if the thread has a gate (now), or the reason why not. */
static int find_slot(bool again)
{
	struct forkgate_register reg = { 0 };
	struct forkgate_slot *old;
	int err = find_gate(again);

	if (!err)
		err = __forkgate_call(FORKGATE_IOC_REGISTER, &reg);
	no_gate_error = err;
	if (err)
		return err;

	/* A handler may have found no gate, and none of its sections is left. */
	old = __atomic_exchange_n(&forkgate_self,
				  (void *)(mapping() + reg.offset),
				  __ATOMIC_RELAXED);
	if (old && !__forkgate_gated(old))
		__forkgate_unit_release(old);
	return 0;
}

/*
 * Give the thread a place to count. One that got no gate stays without until
 * forkgate_init(): a handler must never change the slot that the code it
 * interrupted has just read. The handler of an attach that is interrupted comes
 * first, and the slot it has got stays the thread's.
 */
FORKGATE_EXPORT struct forkgate_slot *forkgate_attach(void)
{
	struct forkgate_slot *none = NULL, *slot;

	if (!find_slot(false) || forkgate_self)
		return forkgate_self;
	slot = __forkgate_unit_claim();
	if (!__atomic_compare_exchange_n(&forkgate_self, &none, slot, false,
					 __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		__forkgate_unit_release(slot);
	return forkgate_self;
}

struct forkgate_slot *__forkgate_slot(void)
{
	struct forkgate_slot *slot = forkgate_self;

	return slot ? slot : forkgate_attach();
}

int __forkgate_gate(void)
{
	return __forkgate_gated(__forkgate_slot()) ? 0 : no_gate_error;
}

/* Return: what functions return in a thread without a gate. */
static int unprotected(void)
{
	if (!__forkgate_unit_is_strict())
		return 0;
	return module_error ? module_error : no_gate_error;
}

/* Return: the same in one that has a gate, but not the module's. */
static int not_strict_enough(void)
{
	return own_gate() && __forkgate_unit_is_strict() ? module_error : 0;
}

bool __forkgate_not_strict_enough(void)
{
	return __forkgate_gate() || not_strict_enough();
}

FORKGATE_EXPORT int forkgate_init(unsigned int flags)
{
	struct forkgate_slot *slot = forkgate_self;
	int err;

	if (flags & ~FORKGATE_STRICT)
		return EINVAL;
	if (flags & FORKGATE_STRICT)
		__forkgate_unit_strict();

	if (slot && __forkgate_gated(slot))
		err = 0;
	else if (slot && (slot->depth[0] || slot->depth[1]))
		err = no_gate_error;
	else
		err = find_slot(true);
	if (own_gate() && __forkgate_unit_is_strict())
		__forkgate_gate_strict(own_gate());
	if (err)
		return __forkgate_unit_is_strict() ? unprotected() : err;
	return not_strict_enough();
}

FORKGATE_EXPORT int forkgate_protection(int *reason)
{
	struct forkgate_health health;
	int ignored;

	if (!reason)
		reason = &ignored;
	*reason = __forkgate_gate();
	if (*reason)
		return FORKGATE_UNPROTECTED;
	*reason = module_error;
	if (own_gate())
		return FORKGATE_BY_LIBRARY;
	*reason = __forkgate_call(FORKGATE_IOC_HEALTH, &health);
	if (!*reason && !health.armed)
		*reason = EIO;
	return *reason ? FORKGATE_UNPROTECTED : FORKGATE_BY_MODULE;
}

FORKGATE_EXPORT int forkgate_enter_slow(unsigned int domains,
					unsigned int flags)
{
	struct forkgate_slot *slot = forkgate_self;
	struct forkgate_enter enter = {
		.domains = domains,
		.flags = flags | FORKGATE_COUNTED,
	};
	int err;

	if (!__forkgate_gated(slot)) {
		err = unprotected();
	} else if (not_strict_enough()) {
		err = not_strict_enough();
	} else {
		err = __forkgate_call(FORKGATE_IOC_ENTER, &enter);
		if (err == EBUSY)	/* the kernel took the levels back */
			return err;
	}
	if (err && (enter.flags & FORKGATE_COUNTED)) {
		slot->depth[0] -= domains & 1;
		slot->depth[1] -= domains >> 1;
	}
	return err;
}

#define CALLER	__builtin_return_address(0)

FORKGATE_EXPORT int forkgate_tryenter(unsigned int domains)
{
	return forkgate_enter_at(CALLER, domains, FORKGATE_NONBLOCK);
}

/* What is inline for C, as functions for other languages */
FORKGATE_EXPORT int __forkgate_enter(unsigned int domains) __asm__("forkgate_enter");
FORKGATE_EXPORT void __forkgate_leave(unsigned int domains) __asm__("forkgate_leave");

int __forkgate_enter(unsigned int domains)
{
	return forkgate_enter_at(CALLER, domains, 0);
}

void __forkgate_leave(unsigned int domains)
{
	forkgate_leave(domains);
}

FORKGATE_EXPORT void forkgate_leave_slow(unsigned int domains)
{
	struct forkgate_slot *slot = forkgate_self;
	struct forkgate_leave leave = { .flags = FORKGATE_COUNTED };

	if (!__forkgate_gated(slot))
		return;
	if (!slot->depth[0])
		leave.domains |= domains & FORKGATE_MEMORY;
	if (!slot->depth[1])
		leave.domains |= domains & FORKGATE_FILES;
	leave.domains &= forkgate_closed(slot);
	if (leave.domains)
		__forkgate_call(FORKGATE_IOC_LEAVE, &leave);
}

FORKGATE_EXPORT void forkgate_label(const char *label)
{
	struct forkgate_slot *slot = forkgate_self;
	char *to;
	__u64 site;

	if (!slot)
		return;

	site = slot->site;
	slot->label_site = 0;
	forkgate_barrier();
	for (to = slot->label; to < slot->label + FORKGATE_LABEL_SIZE; to++)
		*to = label && *label ? *label++ : '\0';
	forkgate_barrier();
	slot->label_site = site;
}

int __forkgate_prepare(unsigned int domains, const __u64 *timeout,
		       unsigned int attempt)
{
	struct forkgate_prepare prep = {
		.domains = domains,
		.attempt = attempt,
	};

	if (timeout) {
		prep.flags = FORKGATE_TIMED;
		prep.timeout = *timeout;
	}
	return __forkgate_call(FORKGATE_IOC_PREPARE, &prep);
}

static int prepare_for(unsigned int domains, const __u64 *timeout)
{
	int err;

	if (domains - 1 >= FORKGATE_DOMAINS)
		return EINVAL;
	if (__forkgate_gate())
		return unprotected();
	err = not_strict_enough();
	if (err)
		return err;
	err = __forkgate_prepare(domains, timeout, 0);
	return err == EALREADY ? 0 : err;
}

/* The kernel knows durations alone: the caller's clock may have an offset. */
static int prepare_until(unsigned int domains, int64_t sec, long nsec)
{
	__u64 timeout = 0;
	struct timespec now;

	if (nsec < 0 || nsec >= NSEC_PER_SEC)
		return EINVAL;
	clock_gettime(CLOCK_MONOTONIC, &now);
	if (sec > now.tv_sec || (sec == now.tv_sec && nsec > now.tv_nsec)) {
		if (__builtin_mul_overflow((__u64)(sec - now.tv_sec),
					   NSEC_PER_SEC, &timeout) ||
		    __builtin_add_overflow(timeout, nsec, &timeout))
			timeout = FORKGATE_FOREVER;
		else
			timeout -= now.tv_nsec;
	}
	return prepare_for(domains, &timeout);
}

FORKGATE_EXPORT int forkgate_prepare(unsigned int domains,
				     const struct timespec *abstime)
{
	if (!abstime)
		return prepare_for(domains, NULL);
	return prepare_until(domains, abstime->tv_sec, abstime->tv_nsec);
}

#if defined(__TIMESIZE) && __TIMESIZE == 32
/* forkgate_prepare() of programs whose time_t has 64 bits on a 32-bit machine */
struct timespec64 {
	int64_t tv_sec;
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	int32_t pad;
	int32_t tv_nsec;
#else
	int32_t tv_nsec;
	int32_t pad;
#endif
};

int forkgate_prepare64(unsigned int domains, const struct timespec64 *abstime);

FORKGATE_EXPORT int forkgate_prepare64(unsigned int domains,
				       const struct timespec64 *abstime)
{
	if (!abstime)
		return prepare_for(domains, NULL);
	return prepare_until(domains, abstime->tv_sec, abstime->tv_nsec);
}
#endif

FORKGATE_EXPORT int forkgate_release(void)
{
	int err;

	if (__forkgate_gate())
		return unprotected();
	err = not_strict_enough();
	return err ? err : __forkgate_call(FORKGATE_IOC_RELEASE, NULL);
}

static __attribute__((__constructor__)) void setup(void)
{
	find_gate(false);
	__forkgate_fork_setup();
}
