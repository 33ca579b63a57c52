// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * The library's own gate, for processes that have none of the module (rule 16)
 *
 * It does what the module does, as far as a process can do that for itself: for
 * forks that the library sees. Threads count in the same units and slots, with
 * the same code.
 *
 * The proof. A fork closes the gate (G1), fences (G2) and then, under the lock,
 * finds all other slots idle (G3); its ticket lasts until the copy is complete.
 *
 *	enter	E1 count			leave	L1 uncount
 *		E3 look at closed			L3 look at closed
 *
 * membarrier(2) runs a barrier in all threads between G1 and G3, so that each
 * either has its E1 (L1) seen by G3, or sees G1 in its E3 (L3) and comes here,
 * where it needs the lock. A thread is inside once it holds a level that it took
 * with the gate open or that was let in here; any other level is given back, in
 * enter(), before the thread waits. Once a slot was idle in G3 it is so until a
 * thread is let in (@admitted), which starts all scans again. A thread that
 * makes a slot idle wakes the forks whose scan stopped there.
 *
 * Nobody works in the background: whoever waits here wakes for the next time
 * that something is due, and does it (tick()). A fork that neither sleeps nor
 * polls, since it has a signal handler to run or has ended, loses its place
 * after a ticket_hold (rule 8).
 *
 * Between the verification of its ticket and the copy a fork may have to wait
 * for a lock of the C library, which a thread may hold that is kept out here.
 * So that thread goes in after some time, and the copy is spoiled. The child
 * looks whether it is, before it does anything else, see COPY_SPOILED.
 *
 * One lock guards all of it, held with all signals blocked, never across a wait
 * or a call of the program; below it is nothing. Must not allocate but by
 * mmap(2), nor use anything that is not async-signal-safe.
 */
#define _GNU_SOURCE
#include <assert.h>
#include <limits.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/timerfd.h>

#include "gate-internal.h"
#include "message-internal.h"

#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK	18
#endif

#define NSEC_PER_MSEC	1000000ULL
#define NSEC_PER_SEC	1000000000ULL
#define NEVER		(~0ULL)

/* A fork that sleeps looks this often whether whom it waits for still exists. */
#define LOOK		(20 * NSEC_PER_MSEC)

static_assert(sizeof(struct gate) <= PART && sizeof(struct kept) <= PART, "parts");
static_assert(offsetof(struct own_gate, units) % FORKGATE_UNIT_SIZE == 0, "units");

static __u64 now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * NSEC_PER_SEC + now.tv_nsec;
}

/* Return: @from + @ns, or NEVER. */
static __u64 later(__u64 from, __u64 ns)
{
	return ns < NEVER - from ? from + ns : NEVER;
}

static __u64 earlier(__u64 a, __u64 b)
{
	return a < b ? a : b;
}

static __u64 times(__u64 ns, unsigned int doublings)
{
	while (doublings-- && ns && ns < FORKGATE_TIME_MAX)
		ns *= 2;
	return ns;
}

/* Wait while @word is @value, until @until; a signal ends the wait, too. */
static void futex_wait(__u32 *word, __u32 value, __u64 until)
{
	struct {
		long sec, nsec;
	} time = { until / NSEC_PER_SEC, until % NSEC_PER_SEC };

	raw_call(SYS_futex, word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, value,
		 until == NEVER ? NULL : &time, NULL, FUTEX_BITSET_MATCH_ANY);
}

static void futex_wake(__u32 *word, int count)
{
	raw_call(SYS_futex, word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, count, NULL, NULL, 0);
}

/* A barrier in every thread of the process. Return: 0, or ENOSYS without one. */
static int fence(void)
{
	long err = raw_call(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);

	if (err == -EPERM) {	/* not registered */
		raw_call(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
		err = raw_call(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
	}
	return err < 0 ? ENOSYS : 0;
}

/*
 * Slots and places
 */

static struct forkgate_slot *slot_of(struct own_gate *own, const struct place *place)
{
	return (void *)(own->units + FORKGATE_SLOT_OFFSET(place - own->places));
}

static struct place *place_of(struct own_gate *own, const struct forkgate_slot *slot)
{
	size_t offset = (const char *)slot - own->units;
	size_t unit = offset / FORKGATE_UNIT_SIZE;

	return &own->places[unit * FORKGATE_UNIT_SLOTS +
			    offset % FORKGATE_UNIT_SIZE / FORKGATE_SLOT_SIZE - 1];
}

static __u32 inside(const struct forkgate_slot *slot)
{
	/* pairs with L1: who sees the section end sees what was done in it */
	return (__atomic_load_n(&slot->depth[0], __ATOMIC_ACQUIRE) ? FORKGATE_MEMORY : 0) |
	       (__atomic_load_n(&slot->depth[1], __ATOMIC_ACQUIRE) ? FORKGATE_FILES : 0);
}

static void add_levels(struct forkgate_slot *slot, __u32 domains, int levels)
{
	int d;

	for (d = 0; d < 2; d++)
		if (domains & (1u << d))
			__atomic_store_n(&slot->depth[d], slot->depth[d] + levels,
					 __ATOMIC_RELEASE);
}

static struct forkgate_header *header_of_unit(struct own_gate *own, int unit)
{
	return (void *)(own->units + unit * FORKGATE_UNIT_SIZE);
}

/* What newcomers find closed */
static __u32 closed_to_newcomers(const struct gate *gate)
{
	return gate->strict ? FORKGATE_DOMAINS : gate->closed;
}

/* The header of each unit in use says what is closed. */
static void publish(struct own_gate *own)
{
	__u32 closed = closed_to_newcomers(&own->gate) | own->kept.strict;
	__u32 units = (own->kept.slots + FORKGATE_UNIT_SLOTS - 1) / FORKGATE_UNIT_SLOTS;
	__u32 unit;

	for (unit = 0; unit < units; unit++) {
		header_of_unit(own, unit)->abi = FORKGATE_ABI;
		header_of_unit(own, unit)->copy = own->kept.copy;
		__atomic_store_n(&header_of_unit(own, unit)->closed, closed, __ATOMIC_RELAXED);
	}
}

/* The first thread of a process that ends stays, without its list of robust locks. */
static bool has_list(__u32 tid)
{
	void *list = NULL;
	size_t size;

	return raw_call(SYS_get_robust_list, tid, &list, &size) || list;
}

/* Has the owner ended? Its number may have gone to another thread: then not. */
static bool ended(struct own_gate *own, const struct place *place)
{
	__u32 tid = slot_of(own, place)->tid;

	return raw_call(SYS_tgkill, place->pid, tid, 0) == -ESRCH ||
	       (place->listed && !has_list(tid));
}

/* The caller, which has its slot for the first time in this process */
static void set_owner(struct own_gate *own, struct place *place, pid_t pid, __u32 tid)
{
	place->thread = (void *)pthread_self();
	place->pid = pid;
	place->listed = tid == (__u32)pid && has_list(tid);
	slot_of(own, place)->tid = tid;
}

/*
 * Copies
 */

static __u32 *copy_word(struct own_gate *own, __u32 number)
{
	return &own->kept.copies[number % COPIES];
}

/*
 * Return: what the copy is now: @verdict, or what somebody else has said before.
 * COPY_RUNS if the word has been used again since, so that nothing says it.
 */
static __u32 judge(struct own_gate *own, __u32 number, __u32 verdict)
{
	__u32 found = COPY_WORD(number, COPY_RUNS);

	if (__atomic_compare_exchange_n(copy_word(own, number), &found,
					COPY_WORD(number, verdict), false, __ATOMIC_ACQ_REL,
					__ATOMIC_ACQUIRE))
		return verdict;
	return COPY_NUMBER(found) == COPY_NUMBER(COPY_WORD(number, 0)) ? COPY_STATE(found) :
									COPY_RUNS;
}

/* All copies with the ticket that are not complete yet */
static void spoil_copies(struct own_gate *own)
{
	struct gate *gate = &own->gate;

	for (; gate->first_copy != gate->copy + 1; gate->first_copy++)
		judge(own, gate->first_copy, COPY_SPOILED);
}

/* A word is not used again while its parent has not judged, or not thrown away. */
static __u32 new_copy(struct own_gate *own)
{
	__u32 *word, number, found, tries = 0;

	do {
		number = ++own->gate.copy;
		word = copy_word(own, number);
		found = __atomic_load_n(word, __ATOMIC_ACQUIRE);
	} while (found && (COPY_STATE(found) == COPY_RUNS || COPY_STATE(found) == COPY_SPOILED) &&
		 ++tries < COPIES);
	__atomic_store_n(word, COPY_WORD(number, COPY_RUNS), __ATOMIC_RELEASE);
	return number;
}

static int make_copies(struct own_gate *own)
{
	int old_errno = errno;
	void *made;

	if (own->kept.copies)
		return 0;
	made = mmap(NULL, COPIES * sizeof(__u32), PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	errno = old_errno;
	if (made == MAP_FAILED)
		return ENOMEM;
	own->kept.copies = made;
	return 0;
}

/*
 * The lock
 */

/*
 * The memory is new, or it is a child's. Rule 10: only the caller's slot and its
 * sections are left, and nothing waits. Nobody else is here: other threads that
 * the child may have by now have to come here first, for a slot. ThreadSanitizer
 * takes the parent's threads for those of the child.
 */
static __attribute__((__no_sanitize_thread__)) void live(struct own_gate *own)
{
	struct kept *kept = &own->kept;
	struct place *place, *mine = NULL;
	struct fork_attempt *attempt = NULL, *outer;
	bool alone = true;
	__u32 found;

	own->gate.home = raw_call(SYS_getpid);
	for (place = own->places; place < own->places + kept->slots; place++) {
		if (!place->thread)
			continue;
		if (place->thread == (void *)pthread_self()) {
			mine = place;
			continue;
		}
		alone = false;
		memset(slot_of(own, place), 0, sizeof(struct forkgate_slot));
		memset(place, 0, sizeof(*place));
	}

	if (mine) {
		attempt = mine->attempt;
		outer = attempt ? attempt->own.outer : NULL;
		*mine = (struct place){ .attempt = outer };
		set_owner(own, mine, own->gate.home, raw_call(SYS_gettid));
	}
	kept->copy = 0;
	if (attempt && attempt->own.began) {
		found = attempt->own.copying ?
			judge(own, attempt->own.number, COPY_COMPLETE) : COPY_COMPLETE;
		/* Spoiled ones are thrown away before their word is used again. */
		if (found != COPY_COMPLETE && !(found == COPY_RUNS && fork_discards(attempt)))
			attempt->own.spoiled = true;
		if (attempt->own.unsafe || attempt->own.refused || attempt->own.spoiled)
			kept->copy = attempt->domains;
		own->gate.doomed = (fork_discards(attempt) || __forkgate_retries) &&
				   (attempt->own.refused || attempt->own.spoiled);
		/* Here the outer ones go on alone. */
		for (; outer; outer = outer->own.outer)
			outer->own.copying = false;
	} else if (!alone) {
		kept->copy = FORKGATE_COPY_BYPASSED;
	}
	if (kept->copies)
		raw_call(SYS_munmap, kept->copies, COPIES * sizeof(__u32));
	kept->copies = NULL;
	publish(own);
	own->gate.live = 1;
}

static void lock(struct own_gate *own, __u64 *mask)
{
	__u64 all = ~0ULL;
	__u32 *word = &own->gate.lock, free = 0;

	raw_call(SYS_rt_sigprocmask, SIG_BLOCK, &all, mask, sizeof(all));
	if (!__atomic_compare_exchange_n(word, &free, 1, false, __ATOMIC_ACQUIRE,
					 __ATOMIC_RELAXED))
		while (__atomic_exchange_n(word, 2, __ATOMIC_ACQUIRE))
			futex_wait(word, 2, NEVER);
	if (!own->gate.live)
		live(own);
}

static void unlock(struct own_gate *own, const __u64 *mask)
{
	__u32 *word = &own->gate.lock;

	if (__atomic_exchange_n(word, 0, __ATOMIC_RELEASE) == 2)
		futex_wake(word, 1);
	raw_call(SYS_rt_sigprocmask, SIG_SETMASK, mask, NULL, sizeof(*mask));
}

/*
 * All below with the lock held, if nothing else is said
 */

/*
 * What is polled is a timer, for nobody is there to tell that a place is about to
 * end. The program may have closed it or have put another file in its place: its
 * interval says that it is this one, and means nothing else.
 */
#define POLL_INTERVAL	0x666b6774

static bool have_timer(const struct place *fork)
{
	struct itimerspec time;

	return fork->timer &&
	       !raw_call(SYS_timerfd_gettime, fork->timer - 1, &time) &&
	       time.it_interval.tv_sec == POLL_INTERVAL;
}

/* Let the owner look, if it polls, when there is something to look at. */
static void set_timer(const struct place *fork)
{
	struct itimerspec time = { .it_interval.tv_sec = POLL_INTERVAL };

	if (!have_timer(fork))
		return;
	if (fork->polled) {
		time.it_value.tv_sec = fork->look_at / NSEC_PER_SEC;
		time.it_value.tv_nsec = fork->look_at % NSEC_PER_SEC;
	}
	raw_call(SYS_timerfd_settime, fork->timer - 1, TFD_TIMER_ABSTIME, &time, NULL);
}

static void wake_fork(struct place *fork)
{
	__atomic_fetch_add(&fork->event, 1, __ATOMIC_RELEASE);
	futex_wake(&fork->event, INT_MAX);
	if (fork->polled && fork->look_at != 1) {
		fork->look_at = 1;	/* long ago */
		set_timer(fork);
	}
}

/* @but: NULL, or the one that need not be told */
static void wake_forks(struct own_gate *own, const struct place *but)
{
	struct place *fork;

	for (fork = own->gate.forks; fork; fork = fork->next)
		if (fork != but)
			wake_fork(fork);
}

/* A slot has become idle. */
static void wake_for(struct own_gate *own, const struct place *left)
{
	struct place *fork;

	for (fork = own->gate.forks; fork; fork = fork->next)
		if (fork->cursor == (__u32)(left - own->places))
			wake_fork(fork);
}

static void wake_blocked(struct own_gate *own)
{
	__atomic_fetch_add(&own->gate.event, 1, __ATOMIC_RELAXED);
	futex_wake(&own->gate.event, INT_MAX);
}

static bool is_member(const struct gate *gate, const struct place *fork)
{
	return gate->closed && fork->phase == gate->phase;
}

/* How long a ticket and a place last. A fork that looks on time must not lose it. */
static __u64 hold_of(const struct own_gate *own)
{
	__u64 hold = own->kept.policy.ticket_hold;

	return hold > 2 * LOOK ? hold : 2 * LOOK;
}

/* Let those who have been kept out so far go in once. */
static void release_blocked(struct own_gate *own, __u64 time)
{
	struct gate *gate = &own->gate;

	gate->released = gate->arrivals;
	gate->pending += gate->blocked;
	gate->blocked = 0;
	gate->pending_until = later(time, hold_of(own));
	wake_blocked(own);
}

/*
 * A fork has left, or a ticket ended: is what is closed still needed? When nothing
 * is, the phase is over; those who were kept out go in before the next (rule 6).
 */
static void settle(struct own_gate *own, __u64 time)
{
	struct gate *gate = &own->gate;
	struct place *fork;
	__u32 need = 0;

	if (gate->holder)
		need = gate->holder_need;
	for (fork = gate->forks; fork; fork = fork->next)
		if (is_member(gate, fork))
			need |= fork->need;
	if (gate->closed && !need)
		release_blocked(own, time);
	else
		wake_blocked(own);
	gate->closed = need;
	gate->strict = gate->strict && need;
	publish(own);
	wake_forks(own, NULL);
}

/* Out of the queue. The caller settles. */
static void remove_fork(struct own_gate *own, struct place *fork)
{
	struct place **at;

	for (at = &own->gate.forks; *at && *at != fork; at = &(*at)->next)
		;
	if (*at)
		*at = fork->next;
	fork->next = NULL;
	fork->need = 0;
	fork->phase = 0;
}

static void end_ticket(struct own_gate *own, __u64 time)
{
	own->gate.holder = NULL;
	settle(own, time);
}

/*
 * Rule 7: a drain yields if anybody is kept out, or waits for the next phase and may
 * have a lock that a section needs.
 */
static bool may_yield(const struct gate *gate)
{
	const struct place *fork;

	if (!gate->closed || gate->holder)
		return false;
	if (gate->blocked)
		return true;
	for (fork = gate->forks; fork && gate->granted; fork = fork->next)
		if (!is_member(gate, fork))
			return true;
	return false;
}

/* All that is due */
static void tick(struct own_gate *own, __u64 time)
{
	struct gate *gate = &own->gate;
	struct place *fork, *next;
	bool gone = false;

	for (fork = gate->forks; fork; fork = next) {
		next = fork->next;
		if (time < fork->until)
			continue;
		remove_fork(own, fork);
		gone = true;
	}

	if (gate->holder && time >= gate->holder_until) {
		if (gate->copying) {
			spoil_copies(own);
		} else {	/* rule 11 */
			gate->holder->expired = true;
			gate->state.expired++;
		}
		end_ticket(own, time);
	} else if (gone) {
		settle(own, time);
	}

	if (time >= gate->yield_at && may_yield(gate)) {
		gate->patience = times(gate->patience, 1);
		gate->yield_at = later(time, gate->patience);
		gate->state.yields++;
		gate->granted = false;
		release_blocked(own, time);
		wake_forks(own, NULL);
	}
	if (gate->pending && time >= gate->pending_until) {
		gate->pending = 0;
		wake_forks(own, NULL);
	}
}

/* Return: when tick() has something to do next. */
static __u64 next_tick(const struct gate *gate)
{
	const struct place *fork;
	__u64 next = NEVER;

	for (fork = gate->forks; fork; fork = fork->next)
		next = earlier(next, fork->until);
	if (gate->holder)
		next = earlier(next, gate->holder_until);
	else if (may_yield(gate))
		next = earlier(next, gate->yield_at);
	if (gate->pending)
		next = earlier(next, gate->pending_until);
	return next;
}

/*
 * Sections
 */

/* Rule 5. @number: of a thread that was kept out, or 0 */
static bool may_enter(struct own_gate *own, const struct place *place, __u32 domains,
		      bool newcomer, __u32 number)
{
	struct gate *gate = &own->gate;

	if (gate->holder == place)
		return true;
	if (gate->holder && (gate->holder_need & domains))
		return false;
	if (!(closed_to_newcomers(gate) & domains) || !newcomer || !own->kept.policy.patience)
		return true;
	return number && (__s32)(gate->released - number) >= 0;
}

/*
 * A thread that goes in and out of a closed domain while it is inside the other is
 * no newcomer of the first, and could do so for ever: it must not come back.
 */
static void admit(struct own_gate *own, struct place *place, __u32 domains, bool newcomer)
{
	struct gate *gate = &own->gate;

	if (!(gate->closed & domains))
		return;
	gate->admitted++;
	if (!newcomer && !gate->strict && gate->holder != place) {
		gate->strict = true;
		publish(own);
	}
}

/* One more thread is kept out. */
static void arrive(struct gate *gate, struct place *place)
{
	gate->blocked++;
	if (!++gate->arrivals)
		gate->arrivals++;
	place->arrival = gate->arrivals;
}

/* The caller has counted one level of each domain in @domains. */
static int enter(struct own_gate *own, struct place *place, struct forkgate_enter *enter)
{
	struct forkgate_slot *slot = slot_of(own, place);
	struct gate *gate = &own->gate;
	__u32 domains = enter->domains, outer = place->arrival, event;
	__u64 mask, until, time = now();
	bool newcomer;

	lock(own, &mask);
	tick(own, time);
	newcomer = !place->need &&
		   slot->depth[0] == (domains & 1) && slot->depth[1] == (domains >> 1);
	if (may_enter(own, place, domains, newcomer, 0)) {
		admit(own, place, domains, newcomer);
		unlock(own, &mask);
		return 0;
	}
	add_levels(slot, domains, -1);
	wake_for(own, place);
	if (enter->flags & FORKGATE_NONBLOCK) {
		unlock(own, &mask);
		return EBUSY;
	}

	arrive(gate, place);
	do {
		event = gate->event;
		until = next_tick(gate);
		unlock(own, &mask);
		futex_wait(&gate->event, event, until);
		time = now();
		lock(own, &mask);
		tick(own, time);
	} while (!may_enter(own, place, domains, newcomer, place->arrival));

	/* In the child of a fork in a signal handler, it was kept out by another gate. */
	if ((__s32)(gate->released - place->arrival) < 0)
		gate->blocked--;
	else if (gate->pending && !--gate->pending)
		wake_forks(own, NULL);
	place->arrival = outer;
	add_levels(slot, domains, 1);
	admit(own, place, domains, newcomer);
	unlock(own, &mask);
	return 0;
}

static int leave(struct own_gate *own, struct place *place)
{
	__u64 mask;

	lock(own, &mask);
	wake_for(own, place);
	unlock(own, &mask);
	return 0;
}

/*
 * Forks
 */

/* G1, G2. Other forks may now be inside of what is closed, or members. */
static int close_gate(struct own_gate *own, const struct place *fork, __u32 need)
{
	struct gate *gate = &own->gate;
	__u32 closed = gate->closed;
	int err;

	if (!(need & ~closed))
		return 0;
	gate->closed |= need;
	publish(own);
	err = fence();
	if (err) {
		gate->closed = closed;
		publish(own);
		return err;
	}
	wake_forks(own, fork);
	return 0;
}

/* The fork may have interrupted, in a signal handler, one that is to go in. */
static bool others_pending(const struct gate *gate, const struct place *fork)
{
	bool mine = fork->arrival && (__s32)(gate->released - fork->arrival) >= 0;

	return gate->pending > mine;
}

static void take_part(struct gate *gate, struct place *fork)
{
	fork->phase = gate->phase;
	if (fork->patience > gate->patience) {
		gate->yield_at = later(gate->yield_at, fork->patience - gate->patience);
		gate->patience = fork->patience;
	}
}

/*
 * Rule 6: a fork takes part in the phase until that has had its first grant, or if
 * it may be inside of what members wait for; otherwise in the next one, as all do
 * who wait when that begins.
 */
static int join(struct own_gate *own, struct place *fork, __u64 time)
{
	struct gate *gate = &own->gate;
	__u32 need = fork->need;
	struct place *other;

	if (!gate->closed && others_pending(gate, fork))
		return 0;
	if (gate->closed && gate->granted && !is_member(gate, fork) &&
	    own->kept.policy.patience && !(inside(slot_of(own, fork)) & gate->closed))
		return 0;

	if (!gate->closed) {
		gate->phase++;
		gate->granted = false;
		gate->patience = 0;
		gate->yield_at = time;
		gate->state.phases++;
		for (other = gate->forks; other; other = other->next) {
			take_part(gate, other);
			need |= other->need;
		}
	} else {
		take_part(gate, fork);
	}
	return close_gate(own, fork, need);
}

/* Rule 9: the owner has ended. */
static void forget(struct own_gate *own, struct place *place)
{
	struct forkgate_slot *slot = slot_of(own, place);
	bool forks = place->need || own->gate.holder == place;

	if (inside(slot) || own->gate.holder == place)
		own->gate.state.abandoned++;
	if (own->gate.holder == place)
		own->gate.holder = NULL;
	remove_fork(own, place);
	if (have_timer(place))
		raw_call(SYS_close, place->timer - 1);
	memset(slot, 0, sizeof(*slot));
	memset(place, 0, sizeof(*place));
	wake_for(own, place);
	if (forks)
		settle(own, now());
}

/* G3. Stops at a slot that is not idle. */
static bool all_idle(struct own_gate *own, struct place *fork)
{
	struct place *place, *end = own->places + own->kept.slots;

	place = own->places;
	if (fork->seen == own->gate.admitted)
		place += fork->cursor;
	fork->seen = own->gate.admitted;
	for (; place < end; place++) {
		if (place == fork || !(inside(slot_of(own, place)) & fork->need))
			continue;
		fork->cursor = place - own->places;
		if (!ended(own, place))
			return false;
		forget(own, place);
	}
	return true;
}

static bool may_grant(struct own_gate *own, struct place *fork)
{
	struct gate *gate = &own->gate;

	/* What a yield has released goes first. */
	return is_member(gate, fork) && !gate->holder && !others_pending(gate, fork) &&
	       all_idle(own, fork);
}

/*
 * What the scan of @fork has passed was idle then: it waits for nobody there. Nor can
 * those that do not poll leave what they are inside of.
 */
static bool waits_for(struct own_gate *own, const struct place *fork, const struct place *other)
{
	__u32 sections = other->polled ? inside(slot_of(own, other)) : other->inside;

	return (fork->need & sections) && (fork->seen != own->gate.admitted ||
					   fork->cursor <= (__u32)(other - own->places));
}

/* Rule 4: does the fork wait, through others, for itself? */
static bool in_a_circle(struct own_gate *own, struct place *fork)
{
	struct place *other, *next;
	bool more = true;

	if (!fork->inside)
		return false;
	for (other = own->gate.forks; other; other = other->next)
		other->reached = other != fork && waits_for(own, fork, other);
	while (more) {
		more = false;
		for (other = own->gate.forks; other; other = other->next) {
			if (!other->reached)
				continue;
			if (waits_for(own, other, fork))
				return true;
			for (next = own->gate.forks; next; next = next->next)
				if (next != fork && !next->reached && waits_for(own, other, next)) {
					next->reached = true;
					more = true;
				}
		}
	}
	return false;
}

static void add_fork(struct own_gate *own, struct place *fork, __u32 need)
{
	struct place **at;

	for (at = &own->gate.forks; *at; at = &(*at)->next)
		;
	*at = fork;
	fork->need = need;
	fork->order = ++own->gate.order;
	fork->phase = 0;
	fork->seen = own->gate.admitted - 1;
	fork->cursor = 0;
}

static void grant(struct own_gate *own, struct place *fork, __u64 time)
{
	struct gate *gate = &own->gate;

	gate->holder = fork;
	gate->copying = false;
	gate->holder_need = fork->need;
	gate->holder_until = later(time, hold_of(own));
	gate->first_copy = gate->copy + 1;
	gate->granted = true;
	fork->expired = false;
	fork->pass = 0;
	remove_fork(own, fork);
	slot_of(own, fork)->outcome = FORKGATE_OUTCOME_GRANTED;
}

/* A wait that has failed; @timed: after a limit of its own. Return: what PREPARE says. */
static int fail(struct own_gate *own, struct place *fork, __u32 need, int err, bool timed,
		__u64 time)
{
	struct forkgate_slot *slot = slot_of(own, fork);
	struct kept *kept = &own->kept;

	slot->outcome = err == EDEADLK ? FORKGATE_OUTCOME_DEADLK : FORKGATE_OUTCOME_TIMEOUT;
	if (err == EDEADLK)
		own->gate.state.deadlocks++;
	else
		own->gate.state.timeouts++;
	if (timed || kept->policy.on_timeout == FORKGATE_FAIL)
		return err;
	slot->outcome = FORKGATE_OUTCOME_UNSAFE;
	fork->pass = need;
	fork->pass_until = later(time, 10 * hold_of(own));
	return 0;
}

/*
 * Rule 12. Without the lock. The formats are such that the C library's snprintf()
 * takes no locks and does not allocate.
 */
static forkgate_blame_t *blame_function;

FORKGATE_EXPORT void forkgate_blame(forkgate_blame_t *function)
{
	__atomic_store_n(&blame_function, function, __ATOMIC_RELEASE);
}

static void blame(const struct forkgate_holder *holder, __u64 waited, int err)
{
	forkgate_blame_t *function = __atomic_load_n(&blame_function, __ATOMIC_ACQUIRE);
	int length, old_errno = errno;
	char text[256];

	if (function) {
		function(holder, waited);
		errno = old_errno;
		return;
	}
	length = snprintf(text, sizeof(text),
			  "forkgate: process %d: a fork %s after %llu ms: thread %d is inside a%s%s section%s%.*s at %#llx\n",
			  getpid(), err ? "fails" : "goes ahead unsafe", waited / NSEC_PER_MSEC,
			  holder->tid, holder->domains & FORKGATE_MEMORY ? " memory" : "",
			  holder->domains & FORKGATE_FILES ? " files" : "",
			  *holder->label ? " " : "", FORKGATE_LABEL_SIZE, holder->label,
			  holder->site);
	if (length > (int)sizeof(text) - 1)
		length = sizeof(text) - 1;
	forkgate_write_message(text, length);
	errno = old_errno;
}

/*
 * Return: false if the owner is in no section. It may be writing what is shown here:
 * as in the module, blame can be of two sections at once.
 */
static __attribute__((__no_sanitize_thread__)) bool
fill_holder(struct own_gate *own, const struct place *place,
	    struct forkgate_holder *holder)
{
	struct forkgate_slot *slot = slot_of(own, place);

	*holder = (struct forkgate_holder){
		.tid = slot->tid,
		.domains = inside(slot),
		.depth = { slot->depth[0], slot->depth[1] },
		.site = slot->site,
	};
	if (holder->site == slot->label_site)
		memcpy(holder->label, slot->label, FORKGATE_LABEL_SIZE);
	return holder->domains;
}

/* What there is without waiting. Return: PREPARE's result, or -1: wait. */
static int prepare_at_once(struct own_gate *own, struct place *fork, __u32 need, __u64 time)
{
	struct gate *gate = &own->gate;

	if (gate->holder == fork) {
		if ((gate->holder_need & need) == need)
			return EALREADY;
		/* Given up; an outer fork, that a signal handler has interrupted, tries again. */
		spoil_copies(own);
		end_ticket(own, time);
	}
	return (fork->pass & need) == need && time < fork->pass_until ? 0 : -1;
}

static void stop_polling(struct place *fork)
{
	if (!fork->polled)
		return;
	fork->polled = false;
	set_timer(fork);
}

/* Return: whose section the fork waits for, NULL if there is none. */
static struct place *stops_at(struct own_gate *own, const struct place *fork)
{
	struct place *place = &own->places[fork->cursor];

	return fork->seen == own->gate.admitted && place != fork &&
	       (inside(slot_of(own, place)) & fork->need) ? place : NULL;
}

int __forkgate_gate_descriptor(struct own_gate *own)
{
	struct itimerspec time = { .it_interval.tv_sec = POLL_INTERVAL };
	struct place *fork = place_of(own, forkgate_self);
	__u64 mask;
	long fd;

	lock(own, &mask);
	if (!have_timer(fork)) {
		fd = __forkgate_move(raw_call(SYS_timerfd_create, CLOCK_MONOTONIC,
					      TFD_CLOEXEC | TFD_NONBLOCK));
		fork->timer = fd < 0 ? 0 : fd + 1;
		if (fork->timer)
			raw_call(SYS_timerfd_settime, fd, 0, &time, NULL);
		set_timer(fork);
	}
	fd = (int)fork->timer - 1;
	unlock(own, &mask);
	return fd;
}

/*
 * Without the lock. All that wait are woken when a ticket ends, and one has the next:
 * the others need not look before that ends. Return: now.
 */
static __attribute__((__no_sanitize_thread__)) __u64
wait_for_event(struct gate *gate, struct place *fork, __u32 event, __u64 until)
{
	__u64 time;

	do {
		futex_wait(&fork->event, event, until);
		time = now();
		event = __atomic_load_n(&fork->event, __ATOMIC_ACQUIRE);
		/* pairs with wake_fork(): this event has come, or that it was for is seen */
	} while (time < until && __atomic_load_n(&gate->holder, __ATOMIC_RELAXED));
	return time;
}

/* @wait: ns. @blamed: filled in when that was not enough. Return: as PREPARE. */
static int prepare(struct own_gate *own, struct place *fork, __u32 need, __u64 wait,
		   unsigned int attempt, __u32 flags, struct forkgate_holder *blamed)
{
	struct gate *gate = &own->gate;
	bool poll = flags & FORKGATE_NONBLOCK;
	__u64 mask, time = now(), start = time, until;
	__u32 event, order = 0;
	int err;

	lock(own, &mask);
	tick(own, time);
	wake_for(own, fork);	/* this may be a handler between L1 and L3 */
	/* The time goes on, also when a place that is polled for was lost. */
	if (fork->polled && fork->polled_for == need && (fork->need || poll))
		start = fork->since;
	err = prepare_at_once(own, fork, need, time);
	if (err >= 0)
		goto out;
	if (fork->need && fork->polled && fork->need == need) {
		order = fork->order;
	} else if (fork->need) {
		/* of the code that this signal handler has interrupted; or for less */
		remove_fork(own, fork);
		settle(own, time);
	}
	fork->expired = false;
	fork->pass = 0;

	for (;;) {
		if (!fork->need || fork->order != order) {
			if (fork->need) {	/* a handler polls in its own way */
				remove_fork(own, fork);
				settle(own, time);
			}
			add_fork(own, fork, need);
			order = fork->order;
			fork->since = start;
			fork->patience = times(own->kept.policy.patience, attempt);
		}
		fork->polled = poll;
		fork->polled_for = need;
		fork->look_at = 0;
		fork->until = later(time, hold_of(own));
		fork->inside = inside(slot_of(own, fork));
		if (in_a_circle(own, fork)) {
			err = EDEADLK;
			break;
		}
		err = make_copies(own) ? ENOMEM : join(own, fork, time);
		if (err)
			break;
		if (may_grant(own, fork)) {
			grant(own, fork, time);
			goto out;
		}
		until = later(start, wait);
		if (time >= until) {
			err = ETIMEDOUT;
			if (stops_at(own, fork))
				fill_holder(own, stops_at(own, fork), blamed);
			break;
		}
		if (poll) {
			fork->look_at = earlier(until, later(time, hold_of(own) / 2));
			set_timer(fork);
			unlock(own, &mask);
			return EAGAIN;
		}
		event = fork->event;
		until = earlier(earlier(until, next_tick(gate)), later(time, LOOK));
		unlock(own, &mask);
		time = wait_for_event(gate, fork, event, until);
		lock(own, &mask);
		tick(own, time);
	}
	if (fork->need)
		remove_fork(own, fork);
	settle(own, time);
	if (err != ENOSYS && err != ENOMEM)
		err = fail(own, fork, need, err, flags & FORKGATE_TIMED, time);
out:
	stop_polling(fork);
	unlock(own, &mask);
	return err;
}

static bool is_late(const struct fork_attempt *attempt)
{
	return attempt && attempt->kind == FORK_LATE && !attempt->own.began;
}

static int do_prepare(struct own_gate *own, struct place *fork, struct forkgate_prepare *prep)
{
	struct forkgate_holder blamed = { 0 };
	__u64 start = now();
	int err;

	err = prepare(own, fork, prep->domains,
		      prep->flags & FORKGATE_TIMED ? prep->timeout : own->kept.policy.timeout,
		      prep->attempt, prep->flags, &blamed);
	prep->outcome = slot_of(own, fork)->outcome;
	/* Who has limited the wait knows; but nobody else tells of a fork of the C library's. */
	if (blamed.domains && (!(prep->flags & FORKGATE_TIMED) || is_late(fork->attempt)))
		blame(&blamed, now() - start, err);
	return err;
}

static int release(struct own_gate *own, struct place *fork)
{
	__u64 mask, time = now();
	int err = ENOENT;

	lock(own, &mask);
	tick(own, time);
	if (own->gate.holder == fork && !own->gate.copying) {
		end_ticket(own, time);
		err = 0;
	} else if (fork->expired) {
		err = ESTALE;
	} else if (fork->need && fork->polled) {
		remove_fork(own, fork);
		settle(own, time);
		err = 0;
	} else if (fork->pass) {
		err = 0;
	}
	fork->expired = false;
	fork->pass = 0;
	stop_polling(fork);
	unlock(own, &mask);
	return err;
}

static void start_copy(struct own_gate *own, struct fork_attempt *attempt, __u64 time)
{
	struct gate *gate = &own->gate;
	struct kept *kept = &own->kept;
	__u64 hold = times(hold_of(own), attempt->tried);

	attempt->own.number = new_copy(own);
	attempt->own.copying = true;
	attempt->own.since = time;
	gate->state.forks++;
	gate->copying = true;
	/* A large process takes longer: what was spoiled for that is not again. */
	if ((attempt->domains & FORKGATE_MEMORY) && hold < 2 * kept->copy_time)
		hold = 2 * kept->copy_time;
	gate->holder_until = later(time, hold);
}

/* Return: false if there is neither a ticket nor the leave to go without. */
static bool try_copy(struct own_gate *own, struct fork_attempt *attempt)
{
	struct place *fork = place_of(own, attempt->slot);
	struct gate *gate = &own->gate;
	__u64 mask, time = now();
	bool ok = true;

	lock(own, &mask);
	tick(own, time);
	if (gate->holder == fork &&
	    (gate->holder_need & attempt->domains) == attempt->domains) {
		start_copy(own, attempt, time);
	} else if ((fork->pass & attempt->domains) == attempt->domains &&
		   time < fork->pass_until) {
		attempt->own.unsafe = true;
		gate->state.unsafe++;
		fork->pass = 0;
	} else {
		ok = false;
	}
	unlock(own, &mask);
	return ok;
}

bool __forkgate_gate_copy(struct own_gate *own, struct fork_attempt *attempt)
{
	struct place *fork = place_of(own, attempt->slot);
	struct forkgate_holder blamed;

	attempt->own.began = true;
	if (try_copy(own, attempt))
		return true;
	/* Rule 11: from scratch, no longer than the patience */
	if (!prepare(own, fork, attempt->domains,
		     times(own->kept.policy.patience, attempt->tried), attempt->tried,
		     FORKGATE_TIMED, &blamed) &&
	    try_copy(own, attempt))
		return true;
	attempt->own.refused = true;
	return false;
}

/* Is the ticket that of a fork too which this one, in a signal handler, has interrupted? */
static bool is_inner(const struct gate *gate, const struct fork_attempt *attempt)
{
	for (attempt = attempt->own.outer; attempt; attempt = attempt->own.outer)
		if (attempt->own.copying && !attempt->own.judged &&
		    (__s32)(attempt->own.number - gate->first_copy) >= 0)
			return true;
	return false;
}

void __forkgate_gate_copied(struct own_gate *own, struct fork_attempt *attempt)
{
	struct place *fork = place_of(own, attempt->slot);
	struct gate *gate = &own->gate;
	__u64 mask, time = now();

	if (!attempt->own.copying || attempt->own.judged)
		return;
	lock(own, &mask);
	attempt->own.judged = true;
	attempt->own.spoiled = judge(own, attempt->own.number, COPY_COMPLETE) != COPY_COMPLETE;
	tick(own, time);
	if ((attempt->domains & FORKGATE_MEMORY) && !attempt->own.spoiled)
		own->kept.copy_time = time - attempt->own.since;
	if (gate->holder == fork && !is_inner(gate, attempt)) {
		if (attempt->own.keep)
			gate->copying = false;
		else
			end_ticket(own, time);
	}
	unlock(own, &mask);
	if (!fork_discards(attempt))
		__forkgate_gate_discarded(own, attempt);
}

void __forkgate_gate_discarded(struct own_gate *own, struct fork_attempt *attempt)
{
	if (attempt->own.spoiled)
		__atomic_store_n(copy_word(own, attempt->own.number),
				 COPY_WORD(attempt->own.number, COPY_DISCARDED),
				 __ATOMIC_RELEASE);
}

void __forkgate_gate_child(struct own_gate *own)
{
	__u64 mask;

	lock(own, &mask);
	unlock(own, &mask);
	if (own->gate.doomed)
		raw_call(SYS_exit_group, 0);
}

struct fork_attempt **__forkgate_gate_attempt(struct own_gate *own,
					      const struct forkgate_slot *slot)
{
	return &place_of(own, slot)->attempt;
}

/*
 * Calls
 */

/* Free what is owned by threads that have ended. Return: how much is free. */
static __u32 sweep(struct own_gate *own)
{
	struct place *place;
	__u32 count = 0;

	for (place = own->places; place < own->places + own->kept.slots; place++) {
		if (place->thread && ended(own, place))
			forget(own, place);
		count += !place->thread;
	}
	return count;
}

static struct place *find_place(struct own_gate *own, void *thread)
{
	struct place *place;

	for (place = own->places; place < own->places + own->kept.slots; place++)
		if (place->thread == thread)
			return place;
	return NULL;
}

/* A free place. A unit is full before it is swept, and not again for a few places. */
static struct place *free_place(struct own_gate *own)
{
	struct kept *kept = &own->kept;
	struct place *place = find_place(own, NULL);

	if (!place && kept->slots && !(kept->slots % FORKGATE_UNIT_SLOTS) &&
	    sweep(own) > kept->slots / 4)
		place = find_place(own, NULL);
	if (!place && kept->slots < FORKGATE_SLOTS) {
		place = &own->places[kept->slots++];
		if (kept->slots % FORKGATE_UNIT_SLOTS == 1)
			publish(own);
	}
	return place ? place : find_place(own, NULL);
}

/*
 * A vfork child has its parent's thread-local memory: the slot is for both, and the
 * one that comes back is the parent. Its number is in what the C library calls
 * the clock of the thread (clock_getcpuclockid(3)).
 */
static bool parent_of_vfork(struct own_gate *own, __u32 *tid)
{
	clockid_t clock;

	if (pthread_getcpuclockid(pthread_self(), &clock))
		return false;
	*tid = ~(clock >> 3);
	return raw_call(SYS_tgkill, own->gate.home, *tid, 0) == 0;
}

static int do_register(struct own_gate *own, struct forkgate_register *reg)
{
	__u32 tid = raw_call(SYS_gettid);
	pid_t pid = raw_call(SYS_getpid);
	struct place *place;
	__u64 mask;
	int err = 0;

	lock(own, &mask);
	tick(own, now());
	if (pid != own->gate.home && parent_of_vfork(own, &tid))
		pid = own->gate.home;
	place = find_place(own, (void *)pthread_self());
	if (place && slot_of(own, place)->tid != tid &&
	    (place->pid == pid || ended(own, place))) {
		forget(own, place);	/* it had the caller's memory */
	} else if (!place) {
		place = free_place(own);
	}
	if (!place)
		err = ENOSPC;
	else if (!place->thread)
		set_owner(own, place, pid, tid);
	unlock(own, &mask);
	if (place) {
		reg->slot = place - own->places;
		reg->offset = FORKGATE_SLOT_OFFSET(reg->slot);
	}
	return err;
}

static bool time_valid(__u64 ns)
{
	return ns <= FORKGATE_TIME_MAX || ns == FORKGATE_FOREVER;
}

static int policy_set(struct own_gate *own, const struct forkgate_policy *policy)
{
	__u64 mask;

	if (!time_valid(policy->patience) || policy->ticket_hold > FORKGATE_TIME_MAX ||
	    !time_valid(policy->timeout) || !time_valid(policy->backstop) ||
	    policy->on_timeout > FORKGATE_PROCEED || policy->pad)
		return EINVAL;
	lock(own, &mask);
	own->kept.policy = *policy;
	unlock(own, &mask);
	return 0;
}

static int get_state(struct own_gate *own, struct forkgate_state *state)
{
	struct forkgate_holder *holders = (void *)(uintptr_t)state->holders, holder;
	__u32 room = holders ? state->holders_max : 0;
	struct place *place;
	__u64 mask, time = now();

	lock(own, &mask);
	tick(own, time);
	own->gate.state.holders = state->holders;
	own->gate.state.holders_max = state->holders_max;
	*state = own->gate.state;
	state->closed = own->gate.closed;
	state->blocked = own->gate.blocked + own->gate.pending;
	for (place = own->gate.forks; place; place = place->next) {
		state->forkers++;
		if (time - place->since > state->wait_ns)
			state->wait_ns = time - place->since;
	}
	state->forkers += !!own->gate.holder;
	for (place = own->places; place < own->places + own->kept.slots; place++) {
		state->threads += !!place->thread;
		if (!fill_holder(own, place, &holder))
			continue;
		if (state->holders_count < room)
			holders[state->holders_count] = holder;
		state->holders_count++;
	}
	unlock(own, &mask);
	return 0;
}

int __forkgate_gate_call(struct own_gate *own, unsigned long request, void *arg)
{
	struct place *place;
	__u64 mask;

	switch (request) {
	case FORKGATE_IOC_REGISTER:
		return do_register(own, arg);
	case FORKGATE_IOC_POLICY_GET:
		lock(own, &mask);
		*(struct forkgate_policy *)arg = own->kept.policy;
		unlock(own, &mask);
		return 0;
	case FORKGATE_IOC_POLICY_SET:
		return policy_set(own, arg);
	case FORKGATE_IOC_STATE:
		return get_state(own, arg);
	}

	place = place_of(own, forkgate_self);
	switch (request) {
	case FORKGATE_IOC_ENTER:
		return enter(own, place, arg);
	case FORKGATE_IOC_LEAVE:
		return leave(own, place);
	case FORKGATE_IOC_PREPARE:
		return do_prepare(own, place, arg);
	case FORKGATE_IOC_RELEASE:
		return release(own, place);
	}
	return ENOTTY;
}

/*
 * The gate itself
 */

int __forkgate_gate_make(struct own_gate **made)
{
	int err = fence(), old_errno = errno;
	struct own_gate *own;

	if (err)
		return err;
	own = mmap(NULL, sizeof(*own), PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	errno = old_errno;
	if (own == MAP_FAILED)
		return ENOMEM;
	if (raw_call(SYS_madvise, own, PART, MADV_WIPEONFORK) < 0) {
		raw_call(SYS_munmap, own, sizeof(*own));
		return ENOSYS;
	}
	raw_call(SYS_madvise, own, sizeof(*own), MADV_NOHUGEPAGE);	/* mostly empty */
	own->kept.policy = (struct forkgate_policy){
		.patience = 100 * NSEC_PER_MSEC,
		.ticket_hold = 100 * NSEC_PER_MSEC,
		.timeout = FORKGATE_FOREVER,
		.backstop = 10 * NSEC_PER_SEC,
		.on_timeout = FORKGATE_FAIL,
	};
	*made = own;
	return 0;
}

void __forkgate_gate_strict(struct own_gate *own)
{
	__u64 mask;

	lock(own, &mask);
	own->kept.strict = FORKGATE_DOMAINS;
	publish(own);
	unlock(own, &mask);
}
