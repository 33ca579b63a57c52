/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * gate.pml - the protocol: enter, leave and fork of one gate
 *
 * Every scenario (fence.pml, nest.pml, ...) includes this file and adds the
 * threads that use it. The labels E1.. L1.. K1.. F1.. are those of
 * module/gate.c and of the inline fast path; README.md lists them.
 *
 * The gate's lock is an atomic or d_step block: what one block does happens
 * in one critical section. A scenario defines
 *
 *	NT	threads; thread t owns slot t
 *	NS	slots 0..NS-1 are scanned; threads from NS on enter no section
 *	STEPWISE	the scan drops the lock after every slot
 *
 * WEAK MEMORY. Nothing orders a thread's own stores and loads but a barrier:
 * the IPI, a switch of context, a critical section of its own. Until then
 *	views	are the values that its next load of `closed` may return: all
 *		that the word has had since the thread's last barrier. A load
 *		that is early is also a store that is late.
 *	seen	domains in which other processors see the thread inside, with
 *		STORES_DELAYED (fence.pml). A store under way is decided when
 *		somebody looks, not before: that is a store buffer which
 *		drains whenever it likes.
 *
 * MUTANTS. mutant(NAME) is 0 in the model and 1 when built with
 * -DMUTANT=NAME. Each changes the one line it stands in.
 */

#include "mutants.h"

#ifndef PATIENCE
#define PATIENCE	true	/* false: the policy patience = 0 */
#endif

#define M		1	/* the memory domain */
#define F		2	/* the files domain */
#define MF		3

/* Thread.state: what its fork does */
#define IDLE		0
#define QUEUED		1	/* waits for the next phase */
#define DRAINING	2	/* from here on a member of the phase */
#define TICKET		3
#define COPYING		4

/* Thread.entry: what its entry does that sleeps in the kernel */
#define BLOCKED		1
#define RELEASED	2	/* whoever opened the gate will count it in */
#define RETRY		3	/* only in mutant HANDOVER_LATE */

/* Thread.asleep: what a drain waits for in the kernel, if it waits */
#define AT_SLOT		1	/* the slot at its cursor */
#define NOT_YET		2	/* only in mutant NO_RECHECK: announced too late */
#define ITS_TURN	3	/* all slots were idle */

/* how a fork ended without a copy; local variable `out` of every forker */
#define EDEADLK		1
#define EAGAIN		2

typedef Thread {
	byte depth[2];		/* its slot */
	byte seen;
	byte views = 1;
	byte really[2];		/* levels that the program has entered */

	byte entry;
	bool nested;		/* it was inside something */
	byte levels[2];		/* what it has given back */

	byte state;
	byte need;
	byte cursor;
	byte asleep;
	bool ticket;		/* the fork is a prepare */
	bool barred;		/* its ticket has become a drain and still keeps entries out */
	bool user;		/* keeps its place while in user mode */
	bool polled;		/* a ticket that nobody sleeps for */
}

Thread T[NT];
byte closed;			/* gate->closed and header->closed */
byte fenced;			/* domains whose closing every thread has seen */
bool granted;			/* the phase has had its first grant */
bool strict;			/* newcomers of either domain are kept out */

hidden byte i, j, k;		/* scratch, dead between blocks */
hidden byte passed, barred, drains, keep, newcomer, l0, l1;
hidden byte phase, queue, released, waits, other, truly, exclusion, passes;

#define BIT(n)		(1 << (n))
#define MASK(a, b)	((a) | ((b) << 1))
#define INSIDE(t)	MASK(T[t].depth[0] > 0, T[t].depth[1] > 0)
#define REALLY(t)	MASK(T[t].really[0] > 0, T[t].really[1] > 0)
#define L0(D)		((D) & 1)		/* levels in M of one entry to D */
#define L1(D)		((D) >> 1)		/* levels in F */
#define WANT(t)		MASK(T[t].levels[0] > 0, T[t].levels[1] > 0)

#if NT == 3
#define ANY(x)		(x(0) || x(1) || x(2))
#elif NT == 4
#define ANY(x)		(x(0) || x(1) || x(2) || x(3))
#elif NT == 5
#define ANY(x)		(x(0) || x(1) || x(2) || x(3) || x(4))
#endif

/* ------------------------------------------------------------ memory order */

/* may t's next load of closed find a bit of D set, find none set? */
#define CLOSING(D)		(((D) == M) * 10 + ((D) == F) * 12 + ((D) == MF) * 14)
#define MAY_CLOSED(t, D)	(T[t].views & CLOSING(D))
#define MAY_OPEN(t, D)		(T[t].views & (15 - CLOSING(D)))

#ifdef STORES_DELAYED
#define SEEN(t)		T[t].seen
#define UNSEEN(t)	(T[t].seen ^ INSIDE(t))
#else
#define SEEN(t)		INSIDE(t)
#define look(t)		skip
#define commit(t)	skip
#define stores_again(t)	skip
#define closes(v)	skip
#endif
#ifndef POLL
#define opened()	skip
#endif

/* t is in a critical section */
inline barrier(t)
{
	commit(t);
	T[t].views = BIT(closed)
}

/* a thread asleep in the kernel meets a barrier before it loads closed again */
inline set_closed(v)
{
	closes(v);
	closed = v;
	i = 0;
	do
	:: i < NS -> T[i].views = (T[i].entry -> 0 : T[i].views | BIT(closed)); i++
	:: else -> break
	od
}

/* ---------------------------------------------------------- what must hold */

#define HAS_DOMAIN(t)	(T[t].state == COPYING || T[t].state == TICKET)

/* for liveness: a thread that waits, and must not do so for ever */
#define ENTRY_WAITS(t)	(T[t].entry != 0)
#define FORK_WAITS(t)	(T[t].state == QUEUED || T[t].state == DRAINING)

/* no copy, and no ticket, while another thread is inside */
inline check_exclusion(t)
{
	exclusion = true;
	i = 0;
	do
	:: i < NT ->
		exclusion = exclusion && (i == t ||
			!(HAS_DOMAIN(i) && T[i].need & REALLY(t)) &&
			!(HAS_DOMAIN(t) && T[t].need & REALLY(i)));
		i++
	:: else -> break
	od;
	assert(exclusion)
}

inline program_enters(t, D)	/* past E3 */
{
	T[t].really[0] = T[t].really[0] + L0(D);
	T[t].really[1] = T[t].really[1] + L1(D);
	check_exclusion(t)
}

inline program_leaves(t, D)	/* L1, before the store */
{
	T[t].really[0] = T[t].really[0] - L0(D);
	T[t].really[1] = T[t].really[1] - L1(D)
}

/* ------------------------------------------------- helpers, with lock held */

inline census()
{
	phase = 0; queue = 0; released = 0;
	i = 0;
	do
	:: i < NT ->
		phase = phase || T[i].state >= DRAINING;
		queue = queue || T[i].state == QUEUED;
		released = released || T[i].entry == RELEASED;
		i++
	:: else -> break
	od
}

/* K1: must t, with a0 and a1 levels of this entry in its slot, wait to enter D? */
inline decide(t, D, a0, a1)
{
	passed = 0; barred = 0; drains = 0;
	k = 0;
	do
	:: k < NT ->
		if
		:: k != t && T[k].state >= DRAINING ->
			passed = passed | (T[k].cursor > t) * T[k].need;
			drains = drains | (T[k].state == DRAINING) * T[k].need;
			barred = barred | HAS_DOMAIN(k) * T[k].need
		:: else
		fi;
		k++
	:: else -> break
	od;
	newcomer = MASK(T[t].depth[0] > (a0), T[t].depth[1] > (a1)) & ~passed;
	newcomer = (mutant(NESTED_KEPT_OUT) -> newcomer & (D) : newcomer) == 0 &&
		   (T[t].state == IDLE || mutant(HOLDER_KEPT_OUT));
	keep = ((D) & barred && !(mutant(NESTED_NEVER_OUT) && !newcomer)) ||
	       (newcomer && PATIENCE && ((D) & drains || strict))
}

/* K2: t is admitted to D: scans that have passed it must come back to it */
inline restart_scans(t, D)
{
	k = 0;
	do
	:: k < NT ->
		if
		:: k != t && T[k].state == DRAINING && T[k].cursor > t &&
		   T[k].need & (D) && !mutant(NO_RESTART) -> T[k].cursor = t
		:: else
		fi;
		k++
	:: else -> break
	od
}

/* K5: wake the forkers that wait at slot t, if it is idle for them */
inline wake_waiters(t)
{
	k = 0;
	do
	:: k < NT ->
		if
		:: k != t && T[k].state == DRAINING && T[k].asleep & 1 &&
		   T[k].cursor == t && !(T[k].need & INSIDE(t)) -> T[k].asleep = 0
		:: else
		fi;
		k++
	:: else -> break
	od
}

/* wake the forkers that found all slots idle and wait for something else */
inline wake_scanned()
{
	k = 0;
	do
	:: k < NT ->
		T[k].asleep = (T[k].asleep == ITS_TURN -> 0 : T[k].asleep);
		k++
	:: else -> break
	od
}

/* a forker entered a section: others may be in a circle with it now */
inline wake_all()
{
	k = 0;
	do
	:: k < NT ->
		T[k].asleep = (T[k].asleep & 1 -> 0 : T[k].asleep);
		k++
	:: else -> break
	od
}

inline join_phase(t)
{
	T[t].state = DRAINING;
	T[t].cursor = 0;
	T[t].asleep = 0;
	set_closed(closed | T[t].need)
}

inline move_queue()		/* F7 */
{
	k = 0;
	do
	:: k < NT ->
		if
		:: T[k].state == QUEUED -> join_phase(k)
		:: else
		fi;
		k++
	:: else -> break
	od
}

/* whoever takes an entry from `released` does this: it may have been the last */
inline released_one()
{
	census();
	if
	:: !released ->
		wake_scanned();
		if
		:: !phase && queue -> move_queue()
		:: else
		fi
	:: else
	fi
}

/* F6, K7: release every blocked entry, or every newcomer */
inline release_blocked(every)
{
	i = 0;
	do
	:: i < NT ->
		if
		:: T[i].entry == BLOCKED && (every || !T[i].nested) ->
			T[i].entry = (mutant(HANDOVER_LATE) -> RETRY : RELEASED)
		:: else
		fi;
		i++
	:: else -> break
	od
}

/* a copy or a ticket has ended: release the entries that only it kept out */
inline unbar()
{
	j = 0;
	do
	:: j < NT ->
		if
		:: T[j].entry == BLOCKED ->
			decide(j, WANT(j), 0, 0);
			if
			:: (T[j].nested -> !(WANT(j) & barred) :
			    !PATIENCE && !ANY(HAS_DOMAIN) && !mutant(UNBAR_NESTED)) ->
				T[j].entry = RELEASED
			:: else
			fi
		:: else
		fi;
		j++
	:: else -> break
	od;
	wake_scanned()
}

/* F6: t is no forker any more; the last of a phase opens the gate */
inline leave_phase(t)
{
	other = HAS_DOMAIN(t) || T[t].barred;
	T[t].state = IDLE;
	T[t].need = 0;
	T[t].cursor = 0;
	T[t].asleep = 0;
	T[t].ticket = false;
	T[t].barred = false;
	T[t].user = false;
	T[t].polled = false;
	census();
	if
	:: !phase ->		/* it opens */
		set_closed(0);
		opened();
		fenced = (mutant(STAYS_FENCED) -> fenced : 0);
		granted = false;
		strict = false;
		release_blocked(true)
	:: phase && other ->
		unbar()
	:: else
	fi;
	released_one()
}

/* K7, a timer: the drain has lasted for its patience */
#define IS_BLOCKED(t)	(T[t].entry == BLOCKED && !T[t].nested)
#define IS_QUEUED(t)	(T[t].state == QUEUED)
#define IS_DRAINING(t)	(T[t].state == DRAINING)
#define QUEUE_YIELDS	(ANY(IS_QUEUED) && !mutant(YIELD_KEEPS_QUEUE))
#define MAY_YIELD	((ANY(IS_BLOCKED) || QUEUE_YIELDS) && \
			 ANY(IS_DRAINING) && !ANY(HAS_DOMAIN))

inline yield()
{
	release_blocked(false);
	if
	:: QUEUE_YIELDS -> move_queue()
	:: else
	fi;
	released_one()
}

/* --------------------------------------------------------- enter and leave */

inline add_levels(t, a0, a1)
{
	T[t].depth[0] = T[t].depth[0] + (a0);
	T[t].depth[1] = T[t].depth[1] + (a1)
}

/* K6: whoever opened the gate, or a woken thread, counts t in while it sleeps */
inline count_in(t)
{
	decide(t, WANT(t), 0, 0);
	exclusion = !(WANT(t) & barred);
	assert(exclusion);
	restart_scans(t, WANT(t));
	add_levels(t, T[t].levels[0], T[t].levels[1]);
	T[t].levels[0] = 0;
	T[t].levels[1] = 0;
	T[t].entry = 0;
	T[t].nested = false;
	if
	:: T[t].state != IDLE && !mutant(RELEASE_SILENT) -> wake_all()
	:: else
	fi;
	barrier(t);
	released_one()
}

/* K2, of a thread that decide() has let pass */
inline admit(t, D)
{
	if
	:: !newcomer && (D) & drains && !mutant(NO_STRICT) ->
		strict = true;
		set_closed(MF)
	:: else
	fi;
	restart_scans(t, D);
	add_levels(t, T[t].levels[0], T[t].levels[1]);
	T[t].levels[0] = 0;
	T[t].levels[1] = 0;
	T[t].nested = false;
	T[t].entry = 0;
	if
	:: T[t].state != IDLE && !mutant(ENTRY_SILENT) -> wake_all()
	:: else
	fi
}

/*
 * K1..K3. a0, a1: levels of this entry that are in the slot; those in
 * T[t].levels have been given back before and are not.
 */
inline kernel_enter(t, D, a0, a1)
{
	barrier(t);
	decide(t, (D) | WANT(t), a0, a1);
	if
	:: !keep -> admit(t, (D) | WANT(t))
	:: else ->		/* K3 */
		passes = T[t].state != TICKET;
		assert(passes);
		l0 = (passed & M -> T[t].depth[0] : (a0));
		l1 = (passed & F -> T[t].depth[1] : (a1));
		add_levels(t, -l0, -l1);
		T[t].levels[0] = T[t].levels[0] + l0;
		T[t].levels[1] = T[t].levels[1] + l1;
		T[t].nested = !newcomer;
		T[t].entry = BLOCKED;
		if
		:: !mutant(GIVEBACK_SILENT) -> wake_waiters(t)
		:: else
		fi
	fi;
	barrier(t)
}

inline user_enter(t, D)		/* E1 */
{
	stores_again(t);
	d_step { add_levels(t, L0(D), L1(D)) }
}

/* options of a sleeping entry besides being counted in: K4, in scenarios with signals */
#ifndef ENTRY_SIGNALS
#define ENTRY_SIGNALS(t)
#define ASLEEP(t)	skip
#define AWAKE_AGAIN(t)	skip
#endif

/* E2 is a compiler barrier: the load of E3 is not done before the store of E1 */
inline finish_enter(t, D)
{
	if			/* E3 */
	:: d_step {
		MAY_OPEN(t, D) || (mutant(OUTERMOST_ONLY) &&
		MASK(T[t].depth[0] > L0(D), T[t].depth[1] > L1(D)) & (D)) ->
			program_enters(t, D);
			skip
	   }
	:: atomic {
		MAY_CLOSED(t, D) ->
			d_step { kernel_enter(t, D, L0(D), L1(D)); ASLEEP(t); skip };
		do
		:: T[t].entry == 0 ->
			break
		:: d_step { T[t].entry == RELEASED -> count_in(t); skip }
		:: d_step { T[t].entry == RETRY -> kernel_enter(t, 0, 0, 0); skip }
		ENTRY_SIGNALS(t)
		od;
		d_step { AWAKE_AGAIN(t); program_enters(t, D); skip }
	   }
	fi
}

inline enter(t, D)
{
	atomic { user_enter(t, D) };
	finish_enter(t, D)
}

/* domains of D that the slot has left altogether */
#define LEFT(t, D)	((D) & ~INSIDE(t))
#define IS_SEEN(t)	(SEEN(t) != 0)
#define SEES_OTHERS(t)	(mutant(LAST_LEAVER_WAKES) && ANY(IS_SEEN))

inline user_leave(t, D)		/* L1, a release */
{
	stores_again(t);
	d_step {
		program_leaves(t, D);
		add_levels(t, -L0(D), -L1(D))
	}
}

/* L2 is a compiler barrier */
inline finish_leave(t, D)
{
	if			/* L3 */
	:: MAY_OPEN(t, LEFT(t, D)) || SEES_OTHERS(t)
	:: d_step {
		MAY_CLOSED(t, LEFT(t, D)) && !SEES_OTHERS(t) ->
			barrier(t);
			wake_waiters(t);	/* K5 */
			skip
	   }
	fi
}

inline leave(t, D)
{
	atomic { user_leave(t, D) };
	finish_leave(t, D)
}

/* -------------------------------------------------------------------- fork */

/* F3: every thread meets a barrier */
inline fence_all(N)
{
	i = 0;
	do
	:: i < NS && !mutant(NO_IPI) -> barrier(i); i++
	:: else -> break
	od;
	fenced = fenced | (N)
}

/* the phase may be waiting for its section */
#define JOINS(t)	(INSIDE(t) && !mutant(INSIDE_QUEUES))

/* F2: t wants to copy n */
inline begin_fork(t, n)
{
	barrier(t);
	T[t].user = false;
	if			/* it may be the handler that interrupted a leave before L3 */
	:: !mutant(FORK_SILENT) -> wake_waiters(t)
	:: else
	fi;
	if
	:: mutant(IPI_FIRST) -> fence_all(n)
	:: else
	fi;
	T[t].need = T[t].need | (n);
	census();
	if
	:: T[t].state >= DRAINING ->	/* its own ticket, or a place it has kept */
		T[t].barred = T[t].barred || (HAS_DOMAIN(t) && !mutant(STAYS_BARRED));
		join_phase(t)
	:: T[t].state == IDLE && (phase -> JOINS(t) || !PATIENCE || (!granted && !queue) :
			!queue && !released) ->
		join_phase(t)
	:: T[t].state == QUEUED && phase && JOINS(t) ->
		join_phase(t)
	:: T[t].state == QUEUED && !(phase && JOINS(t))
	:: else ->
		T[t].state = QUEUED;
		if
		:: phase && !mutant(QUEUE_LAX) -> strict = true; set_closed(MF)
		:: else
		fi
	fi
}

#define AWAKE(t)	(T[t].state == DRAINING && T[t].asleep == 0)
#define FENCED(t)	(!(T[t].need & ~fenced) || (mutant(JOIN_UNFENCED) && fencing))

#ifndef FENCE
#define fencing		false
#define FENCE(t)	:: d_step { AWAKE(t) && !FENCED(t) -> fence_all(T[t].need); skip }
#endif

/* does it wait, or has it kept its place while a handler runs? */
#define WAITS(t)	((T[t].state == DRAINING && T[t].asleep) || \
			 (T[t].state == QUEUED && !T[t].user) || \
			 (T[t].polled && !HAS_DOMAIN(t)) || (mutant(KEPT_WAITS) && T[t].user))
/* levels that somebody else has passed count too: not everybody has */
#define PASSED(k, i)	(((k) != (i) && T[k].state >= DRAINING && T[k].cursor > (i)) * T[k].need)
#define COUNTS(i)	(mutant(ADMITTED_ONLY) -> \
			 INSIDE(i) & ~(PASSED(0, i) | PASSED(1, i) | PASSED(2, i)) : INSIDE(i))

/* F5: would t, going to sleep, close a circle of forkers? result in other */
inline find_circle(t)
{
	waits = BIT(t);		/* t and those it waits for, directly or not */
	truly = true;
	other = 0;
	l0 = 0;
	do
	:: l0 < NT ->
		k = 0;
		do
		:: k < NT ->
			i = 0;
			do
			:: i < NT ->
				if
				:: waits & BIT(k) && k != i && T[k].need & COUNTS(i) &&
				   (i == t || WAITS(i)) ->
					truly = truly && !T[i].user;
					waits = waits | BIT(i);
					other = other || i == t
				:: else
				fi;
				i++
			:: else -> break
			od;
			k++
		:: else -> break
		od;
		l0++
	:: else -> break
	od
}

/* F5; what a ticket kept out goes on before the clone that it was for waits */
inline sleep(t, what)
{
	if
	:: T[t].barred ->
		T[t].barred = false;
		unbar();
		released_one()
	:: else
	fi;
	T[t].asleep = what
}

/* F4: t has seen all slots idle */
inline try_grant(t)
{
	census();
	other = released && !mutant(GRANT_EARLY);
	k = 0;
	do
	:: k < NT ->
		other = other || (k != t && !mutant(GRANT_BESIDE) &&
			(T[k].state == TICKET || (T[k].state == COPYING && T[t].ticket)));
		k++
	:: else -> break
	od;
	if
	:: other -> sleep(t, ITS_TURN)
	:: else ->
		T[t].barred = false;
		T[t].state = (T[t].ticket -> TICKET : COPYING);
		granted = true;
		check_exclusion(t)
	fi
}

/* F4, F5: the caller is in an atomic block */
inline scan(t)
{
	do
	:: T[t].cursor == NS ->
		d_step { try_grant(t); skip };
		break
	:: T[t].cursor < NS && T[t].cursor == t ->
		T[t].cursor++
	:: T[t].cursor < NS && T[t].cursor != t ->
		look(T[t].cursor);
		if
		:: d_step {
			SEEN(T[t].cursor) & T[t].need ->
				find_circle(t);
				T[t].cursor = T[t].cursor + mutant(CURSOR_PAST);
				if
				:: other && !T[t].polled && !mutant(NO_CIRCLE_CHECK) ->
					assert(truly);
					out = EDEADLK;
					leave_phase(t)
				:: else -> sleep(t, (mutant(NO_RECHECK) -> NOT_YET : AT_SLOT))
				fi;
				skip
		   };
			break
		:: else ->
			T[t].cursor++;
#ifdef STEPWISE
			break
#endif
		fi
	od
}

/* options of a waiting fork besides being woken: signals and time-outs */
#ifndef FORK_SIGNALS
#define FORK_SIGNALS(t)
#endif

/* F3..F5: until granted, or refused with `out` set */
inline wait_fork(t)
{
	do
	FENCE(t)
	:: atomic {
		AWAKE(t) && FENCED(t) -> scan(t);
		if
		:: T[t].state != DRAINING -> break
		:: else
		fi
	   }
	:: d_step { T[t].asleep == NOT_YET -> T[t].asleep = AT_SLOT }
	FORK_SIGNALS(t)
	od
}

/* a clone that copies n */
inline fork(t, n)
{
	out = 0;
	d_step { begin_fork(t, n); skip };		/* F2 */
	wait_fork(t);					/* F3..F5 */
	if
	:: d_step { HAS_DOMAIN(t) -> leave_phase(t); skip }	/* F6 */
	:: else
	fi
}
