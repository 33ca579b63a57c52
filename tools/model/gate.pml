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
 *	UNITS	every slot has a unit of its own, and `closed` is written to one
 *		unit at a time
 *
 * WEAK MEMORY. Nothing orders a thread's own stores and loads but a barrier:
 * the IPI, a switch of context, a critical section of its own. Until then
 *	views	are the values that its next load of `closed` may return: all
 *		that the word has had since the thread's last barrier. A load
 *		that is early is also a store that is late.
 *	seen	domains in which other processors see the thread inside, with
 *		STORES_DELAYED (fence.pml). A store under way is decided when
 *		another thread looks, not before: that is a store buffer which
 *		drains whenever it likes.
 *
 * MUTANTS. mutant(NAME) is 0 in the model and 1 when built with
 * -DMUTANT=NAME. Each changes the one line it stands in.
 */

#include "mutants.h"

#ifndef PATIENCE
#define PATIENCE	true	/* false: the policy patience = 0 */
#endif

#ifndef LIMITED
#define LIMITED(t)	false	/* t's waits have a limit, with TIMES */
#endif

#define M		1	/* the memory domain */
#define F		2	/* the files domain */
#define MF		3

/* Thread.state: where its fork is */
#define IDLE		0
#define QUEUED		1	/* waits for the next phase */
#define DRAINING	2	/* from here on a member of the phase */
#define TICKET		3
#define COPYING		4

/* Thread.driver: who brings its fork on */
#define BY_CALLER	0
#define BY_POLL		1	/* its next call, which poll() tells it to make */
#define BY_NUDGE	2	/* the same, and poll() has been told */
#define BY_RESTART	3	/* a call that a signal has interrupted */

/* Thread.kind: what its fork waits for */
#define CLONES		0
#define PREPARES		1
#define POLLS		2

/* Thread.entry: what its entry does that sleeps in the kernel */
#define BLOCKED		1
#define RELEASED	2	/* whoever opened the gate will count it in */
#define RETRY		3	/* only in mutant HANDOVER_LATE */

/* Thread.asleep */
#define NOT_YET		2	/* only in mutant NO_RECHECK: announced too late */

/* domain[] */
#define OPEN		0
#define FENCING		1
#define SCANNING	2
#define COUNTED		3

/* joining */
#define JOIN_ALL	0
#define JOIN_INSIDE	1
#define JOIN_DRAIN	2

/* how a fork's wait ended without a grant; local variable `out` of every forker */
#define EDEADLK		1
#define EAGAIN		2	/* it has expired, or polls and has a place */
#define ETIMEDOUT	3
#define ENXIO		4	/* the gate has ended */

typedef Thread {
	byte depth[2];		/* its slot */
	byte seen;
	byte views = 1;
	byte really[2];		/* levels that the program has entered */
	byte counted;		/* domains in which the gate counts it inside */

	byte entry;
	bool nested;		/* it was inside something */
	byte levels[2];		/* what it has given back */

	byte state;
	byte kind;
	byte driver;
	byte need;
	byte order;		/* forkers before it */
	byte asleep;
	byte edge;		/* others may wait for it: EDGE and what it is inside of */
	bool deadline;		/* its ticket, or its place, has an end */
}

Thread T[NT];
byte closed;			/* gate->closed */
byte domain[2];
byte inside[2];			/* slots counted inside */
byte joining;
bool strict;			/* newcomers of either domain are kept out */
bool due;			/* patience is at an end, and holds are not */
#ifdef STEPWISE
byte cursor[2];			/* the next slot to scan */
#endif
#ifdef UNITS
byte told[NS];			/* header->closed of each unit */
byte published;			/* units below have it */
#endif

hidden byte h, i, j, k, x;	/* scratch, dead between blocks */
hidden byte barred, drains, keep, newcomer, l0, l1;
hidden byte phase, queue, released, tickets, copies, held, ended;
hidden byte under;		/* only in mutant SELF_UNWOKEN: on top of whom an interrupt runs */
hidden byte handover;		/* a phase begins when all that the last has let go are counted in */
hidden byte user, first, entered, reach, wanted, other, truly, exclusion, passes;

#define BIT(n)		(1 << (n))
#define MASK(a, b)	((a) | ((b) << 1))
#define INSIDE(t)	MASK(T[t].depth[0] > 0, T[t].depth[1] > 0)
#define REALLY(t)	MASK(T[t].really[0] > 0, T[t].really[1] > 0)
#define L0(D)		((D) & 1)		/* levels in M of one entry to D */
#define L1(D)		((D) >> 1)		/* levels in F */
#define WANT(t)		MASK(T[t].levels[0] > 0, T[t].levels[1] > 0)

#if NT == 3
#define ANY(x)		(x(0) || x(1) || x(2))
#define ALL(x)		(x(0) | x(1) | x(2))
#elif NT == 4
#define ANY(x)		(x(0) || x(1) || x(2) || x(3))
#define ALL(x)		(x(0) | x(1) | x(2) | x(3))
#elif NT == 5
#define ANY(x)		(x(0) || x(1) || x(2) || x(3) || x(4))
#define ALL(x)		(x(0) | x(1) | x(2) | x(3) | x(4))
#endif

/* ------------------------------------------ the end of the gate, see end.pml */

#ifndef ENDS
#define DEAD		false
#define touch()		skip	/* a unit of slots is read or written */
#define notify(t)	skip	/* poll() has to be told */
#endif

/* ------------------------------------------------------------ memory order */

/* may t's next load of closed find a bit of D set, find none set? */
#define CLOSING(D)		(((D) == M) * 10 + ((D) == F) * 12 + ((D) == MF) * 14)
#define MAY_CLOSED(t, D)	(T[t].views & CLOSING(D))
#define MAY_OPEN(t, D)		(T[t].views & (15 - CLOSING(D)))

#ifdef STORES_DELAYED
#define SEEN(t)		T[t].seen
#else
#define SEEN(t)		INSIDE(t)
#define look(t)		skip
#define commit(t)	skip
#define stores_again(t)	skip
#define closes(old, v)	skip
#endif
#ifndef REOPENS
#define opened()	skip
#endif

#ifdef UNITS
#define HEADER(t)	told[t]
#define PUBLISHED	(published == NS)
#else
#define HEADER(t)	closed
#define PUBLISHED	true
#endif

/* t is in a critical section */
inline barrier(t)
{
	commit(t);
	T[t].views = ((t) < NS -> BIT(HEADER(t)) : 1)
}

/* the word that t loads changes; one asleep in the kernel meets a barrier before it loads it again */
inline sees(t)
{
	T[t].views = (T[t].entry -> 0 : T[t].views | BIT(closed))
}

#ifdef UNITS
/* F3, the first half: tell a unit */
inline publish()
{
	if
	:: told[published] != closed ->
		closes(told[published], closed);
		told[published] = closed;
		sees(published)
	:: else
	fi;
	published++
}

inline set_closed(v)
{
	if
	:: closed != (v) ->
		closed = v;
		published = 0;
		publish()
	:: else
	fi
}

/* ENTER, LEAVE: an open gate may have left the bit set */
inline refresh(t)
{
	told[t] = closed
}
#else
#define refresh(t)	skip

inline set_closed(v)
{
	if
	:: closed != (v) ->
		touch();
		closes(closed, v);
		closed = v;
		i = 0;
		do
		:: i < NS -> sees(i); i++
		:: else -> break
		od
	:: else
	fi
}
#endif

/* ---------------------------------------------------------- what must hold */

#define HAS_DOMAIN(t)	(T[t].state == COPYING || T[t].state == TICKET)

/* a copy that was not granted, to which nothing is promised; see unsafe.pml */
#ifndef UNSAFE
#define UNSAFE(t)	false
#endif
#define PROMISED(t)	((HAS_DOMAIN(t) && !UNSAFE(t)) * T[t].need)

/* for liveness: a thread that waits, which must have an end */
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
			!(PROMISED(i) & REALLY(t)) && !(PROMISED(t) & REALLY(i)));
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
	phase = 0; queue = 0; released = 0; tickets = 0; copies = 0;
	i = 0;
	do
	:: i < NT ->
		phase = phase || T[i].state >= DRAINING;
		queue = queue || T[i].state == QUEUED;
		released = released || T[i].entry == RELEASED;
		tickets = tickets || T[i].state == TICKET;
		copies = copies || T[i].state == COPYING;
		i++
	:: else -> break
	od
}

/* domains in which the scan of this phase has passed t's slot */
#ifdef STEPWISE
#define PASSED_IN(t, d)	(domain[d] == COUNTED || (domain[d] == SCANNING && cursor[d] > t))
#else
#define PASSED_IN(t, d)	(domain[d] == COUNTED)
#endif
#define PASSED(t)	MASK(PASSED_IN(t, 0), PASSED_IN(t, 1))

/* domains that t's granted fork keeps others out of, and those that it waits to see idle */
#define BARS(t)		(HAS_DOMAIN(t) * T[t].need)
#define DRAINS(t)	((T[t].state == DRAINING) * T[t].need)

/* does a drain keep newcomers out of D? */
#define NEWCOMERS_WAIT(D)	(PATIENCE && ((D) & drains || strict))

/* domains that others bar to t, or drain */
inline others(t)
{
	barred = 0; drains = 0;
	k = 0;
	do
	:: k < NT ->
		barred = barred | (k != t) * BARS(k);
		drains = drains | (k != t) * DRAINS(k);
		k++
	:: else -> break
	od
}

/* K2, K5, F4: the gate counts t inside of c */
inline set_counted(t, D)
{
	inside[0] = inside[0] + L0(D) - L0(T[t].counted);
	inside[1] = inside[1] + L1(D) - L1(T[t].counted);
	T[t].counted = D
}

/* ------------------------------------------------------------------ circles */

#define EDGE		4	/* in Thread.edge */

/* what others wait for a forker to leave: in the phase not what its scan has passed, which the next will count */
#define LEAVES(t)	((T[t].state == QUEUED && (T[t].kind != POLLS || mutant(QUEUED_WAITS))) || \
			 mutant(UNADMITTED_WAITS) -> INSIDE(t) : \
			 INSIDE(t) & (T[t].counted | ~PASSED(t)))
/* and what it was inside of when K5 was there last */
#define LEFT_BY(t)	(T[t].counted | (T[t].state == QUEUED -> INSIDE(t) : INSIDE(t) & ~PASSED(t)))

/* F5: would t close a circle if it went to sleep? result in other */
#define REACHED(k, in)	(T[k].edge && (in) & reach)

inline circular(t)
{
	reach = T[t].need; wanted = 0;
	x = 0;
	do
	:: x < NT ->
		k = 0;
		do
		:: k < NT ->
			if
			:: k != t && REACHED(k, T[k].edge) ->
				wanted = wanted | T[k].need;
				reach = reach | T[k].need
			:: else
			fi;
			k++
		:: else -> break
		od;
		x++
	:: else -> break
	od;
	other = wanted & LEAVES(t) && !mutant(NO_CIRCLE_CHECK)
}

/* is there one through t of forkers that are inside, or were when K5 was there last, and wait? */
inline check_truly(t)
{
	reach = T[t].need; wanted = 0;
	x = 0;
	do
	:: x < NT ->
		k = 0;
		do
		:: k < NT ->
			if
			:: k != t && REACHED(k, LEFT_BY(k)) && T[k].driver != BY_RESTART ->
				wanted = wanted | T[k].need;
				reach = reach | T[k].need
			:: else
			fi;
			k++
		:: else -> break
		od;
		x++
	:: else -> break
	od;
	truly = (wanted & LEFT_BY(t)) != 0;
	assert(truly)
}

/* a forker that polls has to call */
inline nudge(t)
{
	if
	:: T[t].driver == BY_POLL -> notify(t)
	:: else
	fi;
	T[t].driver = (T[t].driver == BY_POLL || mutant(NUDGES_SLEEPER) -> BY_NUDGE : T[t].driver)
}

/* t's slot has changed, or is scanned, while it polls for a ticket */
inline polled_inside(t)
{
	if
	:: T[t].edge && (T[t].driver != BY_CALLER || mutant(NUDGES_SLEEPER)) ->
		circular(t);
		if
		:: other -> nudge(t)
		:: else
		fi;
		T[t].edge = EDGE | LEAVES(t)
	:: else
	fi
}

/* ------------------------------------------------------------- phases, F4.. */

#define UNREADY		(!PUBLISHED || domain[0] == FENCING || domain[0] == SCANNING || \
			 domain[1] == FENCING || domain[1] == SCANNING)

/* F2: close what a forker of this phase needs */
inline phase_close(N)
{
	domain[0] = ((N) & M && domain[0] == OPEN -> FENCING : domain[0]);
	domain[1] = ((N) & F && domain[1] == OPEN -> FENCING : domain[1]);
	set_closed(closed | (N))
}

inline make_strict()
{
	strict = true;
	set_closed(MF)
}

/* K7, F7: the queue is in the phase */
inline merge()
{
	h = 0;
	k = 0;
	do
	:: k < NT ->
		if
		:: T[k].state == QUEUED -> T[k].state = DRAINING; h = h | T[k].need
		:: else
		fi;
		k++
	:: else -> break
	od;
	phase_close(h)
}

/* can be granted: waits, and is not in user mode because of a signal */
#define LISTED(t)	(T[t].state == DRAINING && T[t].driver != BY_RESTART)

#define IDLE_IN(t, d)	(!(T[t].need & BIT(d)) || \
			 ((domain[d] == COUNTED || (mutant(GRANT_UNCOUNTED) && domain[d] == SCANNING)) && \
			  (inside[d] == 0 || (inside[d] == 1 && T[t].counted & BIT(d)))))
#define IS_IDLE(t)	(IDLE_IN(t, 0) && IDLE_IN(t, 1))

/* a yield has something to let through */
#define IS_BLOCKED(t)	(T[t].entry == BLOCKED && !T[t].nested)
#define IS_QUEUED(t)	(T[t].state == QUEUED)
#define IS_DRAINING(t)	(T[t].state == DRAINING)
#define QUEUE_YIELDS	(ANY(IS_QUEUED) && !mutant(YIELD_KEEPS_QUEUE))
#define WORTH_YIELDING	(PATIENCE && ANY(IS_DRAINING) && (ANY(IS_BLOCKED) || QUEUE_YIELDS))
#define DUE		(due && WORTH_YIELDING)

/* rule 11: nothing is granted beside a ticket, and no ticket beside anything */
#define TURN(t)		((!tickets && (T[t].kind == CLONES || !copies)) || mutant(GRANT_BESIDE))

/* F4: the first that finds what it needs idle, if it is its turn: it is not overtaken */
inline find_first()
{
	census();
	first = NT;
	k = 0;
	do
	:: k < NT ->
		if
		:: LISTED(k) && IS_IDLE(k) && (TURN(k) || !mutant(TICKET_OVERTAKEN)) &&
		   (first == NT || T[k].order < T[first].order) -> first = k
		:: else
		fi;
		k++
	:: else -> break
	od;
	if
	:: first < NT && !TURN(first) -> first = NT
	:: else
	fi
}

inline grant(t)
{
	T[t].state = (T[t].kind == CLONES -> COPYING : TICKET);
	T[t].deadline = T[t].kind != CLONES;
	T[t].edge = 0;
	T[t].asleep = (T[t].asleep == 1 && T[t].driver == BY_CALLER && under != BIT(t) -> 0 : T[t].asleep);
	joining = (joining == JOIN_ALL -> JOIN_INSIDE : joining);
	if
	:: T[t].driver != BY_CALLER -> notify(t)
	:: else
	fi;
	check_exclusion(t)
}

/* the first sleeper is awake while there is something to do; if all poll, the first is told */
inline rouse()
{
	first = NT;
	k = 0;
	do
	:: k < NT ->
		if
		:: LISTED(k) && (first == NT || (T[k].kind == POLLS) < (T[first].kind == POLLS) ||
				 ((T[k].kind == POLLS) == (T[first].kind == POLLS) &&
				  T[k].order < T[first].order)) -> first = k
		:: else
		fi;
		k++
	:: else -> break
	od;
	if
	:: first < NT && T[first].asleep == 1 -> T[first].asleep = 0
	:: first < NT && T[first].driver != BY_CALLER && !mutant(NO_NUDGE) ->
		nudge(first);
		T[first].deadline = true	/* until it calls */
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
inline release_unbarred()
{
	barred = ALL(BARS);
	drains = ALL(DRAINS);
	i = 0;
	do
	:: i < NT ->
		if
		:: T[i].entry == BLOCKED && !(WANT(i) & barred) &&
		   (T[i].nested || (!NEWCOMERS_WAIT(WANT(i)) && !mutant(UNBAR_NESTED))) -> T[i].entry = RELEASED
		:: else
		fi;
		i++
	:: else -> break
	od
}

/* rule 6: once a thread was kept out through a grant, few join */
#define IS_OUT(t)	(T[t].entry == BLOCKED)

inline seal()
{
	if
	:: ANY(IS_OUT) -> joining = (mutant(NO_SEAL) -> joining : JOIN_DRAIN)
	:: !ANY(IS_OUT) && joining == JOIN_DRAIN ->
		joining = JOIN_INSIDE;
		if
		:: !mutant(UNSEAL_KEEPS_QUEUE) -> merge()
		:: else
		fi
	:: else
	fi
}

/* K7: let those blocked so far through, once, and the queue into the phase */
inline yield()
{
	due = false;
	release_blocked(false);
	if
	:: QUEUE_YIELDS -> merge()
	:: else
	fi;
	seal()
}

/* F4, F7: do what a change has made possible */
inline phase_run()
{
	census();
	if
	:: !DEAD && (!released || mutant(GRANT_EARLY)) ->
		if
		:: !phase && queue ->	/* F7 */
			joining = JOIN_ALL;
			strict = false;
			merge()
		:: else
		fi;
		if
		:: DUE && (!ANY(HAS_DOMAIN) || mutant(YIELD_BESIDE)) -> yield()
		:: else
		fi;
		census();
		if
		:: phase && UNREADY && !mutant(NO_ROUSE) -> rouse()
		:: else
		fi;
		if
		:: !DUE && (!released || mutant(GRANT_EARLY)) ->
			find_first();
			do
			:: first < NT -> grant(first); find_first()
			:: else -> break
			od
		:: else
		fi
	:: else
	fi
}

/* K5: levels went out of t's slot */
inline slot_left(t)
{
	touch();
	set_counted(t, T[t].counted & INSIDE(t));
	polled_inside(t)
}

/* rule 6: a thread inside may join a phase that may be waiting for its section */
#define JOINS(t)	(INSIDE(t) && !mutant(INSIDE_QUEUES))
#define JOINABLE(t)	(!phase -> !queue && (!released || mutant(PHASE_EARLY)) : \
			 joining == JOIN_ALL || \
			 (joining == JOIN_INSIDE && (JOINS(t) || !PATIENCE)) || \
			 (joining == JOIN_DRAIN && JOINS(t) && PATIENCE && ANY(IS_DRAINING) && !mutant(SEAL_INSIDE)))

/* F2: t arrives */
inline join(t, N, what, who)
{
	if			/* it may be the handler that interrupted a leave before L3 */
	:: !mutant(FORK_SILENT) -> slot_left(t)
	:: else
	fi;
	T[t].need = N;
	T[t].kind = what;
	T[t].driver = who;
	T[t].asleep = 0;
	T[t].order = 0;
	census();
	k = 0;
	do
	:: k < NT -> T[t].order = T[t].order + (T[k].state != IDLE); k++
	:: else -> break
	od;
	if
	:: JOINABLE(t) ->
		T[t].state = DRAINING;
		if
		:: !phase ->
			joining = JOIN_ALL;
			strict = false;
			handover = !released;
			assert(handover)
		:: else
		fi;
		phase_close(T[t].need)
	:: else ->
		T[t].state = QUEUED;
		if
		:: phase && !mutant(QUEUE_LAX) -> make_strict()
		:: else
		fi
	fi
}

/* t goes on as one that waits: what it was granted, it has to be granted again */
inline again(t, N, what, who)
{
	if
	:: !mutant(FORK_SILENT) -> slot_left(t)
	:: else
	fi;
	held = HAS_DOMAIN(t);
	T[t].edge = (mutant(KEPT_WAITS) -> T[t].edge : 0);
	T[t].deadline = mutant(PLACE_EXPIRES) && T[t].deadline;
	T[t].asleep = 0;
	census();
	if
	:: held -> T[t].state = DRAINING
	:: T[t].state == QUEUED && phase && JOINABLE(t) -> T[t].state = DRAINING
	:: else
	fi;
	T[t].need = T[t].need | (N);
	T[t].kind = what;
	T[t].driver = who;
	if
	:: T[t].state == DRAINING -> phase_close(T[t].need)
	:: else
	fi;
	if
	:: held ->
		if
		:: !mutant(STAYS_BARRED) -> release_unbarred()
		:: else
		fi;
		seal()
	:: else
	fi
}

/* F6: t is no forker any more; the last of a phase opens the gate */
inline open()
{
	set_closed(0);
	opened();
	if
	:: !mutant(STAYS_COUNTED) -> domain[0] = OPEN; domain[1] = OPEN
	:: else
	fi;
#ifdef STEPWISE
	cursor[0] = 0;
	cursor[1] = 0;
#endif
	i = 0;
	do
	:: i < NT -> T[i].counted = (mutant(STALE_COUNT) -> T[i].counted : 0); i++
	:: else -> break
	od;
	inside[0] = 0;
	inside[1] = 0;
	strict = false;
	due = false;
	joining = JOIN_ALL;
	release_blocked(true)
}

inline leave_phase(t)
{
	held = HAS_DOMAIN(t);
	if
	:: T[t].kind == POLLS -> notify(t)
	:: else
	fi;
	k = 0;
	do
	:: k < NT ->
		T[k].order = T[k].order - (T[k].state != IDLE && T[k].order > T[t].order);
		k++
	:: else -> break
	od;
	phase = T[t].state >= DRAINING;
	T[t].state = IDLE;
	T[t].kind = 0;
	T[t].driver = 0;
	T[t].need = 0;
	T[t].order = 0;
	T[t].asleep = 0;
	T[t].edge = 0;
	T[t].deadline = false;
	if
	:: phase ->
		census();
		if
		:: !phase -> open()
		:: else ->
			release_unbarred();
			if
			:: held -> seal()
			:: else
			fi
		fi
	:: else
	fi
}

/* leave, and do what that makes possible */
inline drop(t)
{
	leave_phase(t);
	phase_run()
}

/* a timer: the drain has lasted for its patience */
#define PATIENCE_ENDS	(WORTH_YIELDING && !due && !mutant(NO_YIELD))

inline patience_ends()
{
	due = !(mutant(NEVER_DUE) && ANY(HAS_DOMAIN));
	phase_run()
}

/* a timer: a ticket, or a place whose thread is not in the kernel, has an end */
inline expire(t)
{
	user = T[t].state == TICKET || (FORK_WAITS(t) && T[t].driver != BY_CALLER);
	assert(user);
	drop(t)
}

#ifdef TIMES	/* all that a clock ends may end at any time */
proctype Times()
{
end:	do
	:: d_step { T[0].deadline -> expire(0); skip }
	:: d_step { T[1].deadline -> expire(1); skip }
	:: d_step { T[2].deadline -> expire(2); skip }
#if NT == 4
	:: d_step { T[3].deadline -> expire(3); skip }
#endif
	:: d_step { PATIENCE_ENDS -> patience_ends(); skip }
	od
}
#endif

/* --------------------------------------------------------- enter and leave */

inline add_levels(t, a0, a1)
{
	T[t].depth[0] = T[t].depth[0] + (a0);
	T[t].depth[1] = T[t].depth[1] + (a1)
}

/* K1, K2: may t, with a0 and a1 levels of this entry in its slot, enter D? */
inline decide(t, D, a0, a1)
{
	others(t);
	barred = (T[t].state == TICKET && !mutant(UNSAFE_BARS_HOLDER) -> 0 : barred);
	newcomer = MASK(T[t].depth[0] > (a0), T[t].depth[1] > (a1)) & (T[t].counted | ~PASSED(t));
	newcomer = (mutant(NESTED_KEPT_OUT) -> newcomer & (D) : newcomer) == 0 &&
		   (T[t].state == IDLE || mutant(HOLDER_KEPT_OUT));
	keep = ((D) & barred && !(mutant(NESTED_NEVER_OUT) && !newcomer)) ||
	       (newcomer && NEWCOMERS_WAIT(D))
}

/* K2, K6: count t into D, with what it has given back */
inline admit(t, D)
{
	touch();
	entered = D;
	add_levels(t, T[t].levels[0], T[t].levels[1]);
	T[t].levels[0] = 0;
	T[t].levels[1] = 0;
	T[t].nested = false;
	T[t].entry = 0;
	if
	:: !mutant(ENTRY_UNCOUNTED) -> set_counted(t, T[t].counted | (entered & PASSED(t)))
	:: else
	fi
}

/* K6: whoever opened the gate, or a woken thread, counts t in while it sleeps */
inline count_in(t)
{
	others(t);
	exclusion = !(WANT(t) & ALL(PROMISED));
	assert(exclusion);
	admit(t, WANT(t));
	if
	:: !mutant(RELEASE_SILENT) -> polled_inside(t)
	:: else
	fi;
	barrier(t);
	census();
	if
	:: !released -> phase_run()
	:: else
	fi
}

/* K2, of a thread that decide() has let pass */
inline let_in(t, D)
{
	if
	:: !newcomer && (D) & drains && !mutant(NO_STRICT) -> make_strict()
	:: else
	fi;
	admit(t, D);
	if
	:: !mutant(ENTRY_SILENT) -> polled_inside(t)
	:: else
	fi;
#ifdef UNITS
	if
	:: !PUBLISHED -> phase_run()	/* strict since now */
	:: else
	fi
#endif
}

/*
 * K1..K3. a0, a1: levels of this entry that are in the slot; those in
 * T[t].levels have been given back before and are not.
 */
inline kernel_enter(t, D, a0, a1)
{
	commit(t);
	refresh(t);
	decide(t, (D) | WANT(t), a0, a1);
	if
	:: !keep -> let_in(t, (D) | WANT(t))
	:: else ->		/* K3 */
		passes = T[t].state != TICKET;
		assert(passes);
		l0 = (PASSED(t) & ~T[t].counted & M -> T[t].depth[0] : (a0));
		l1 = (PASSED(t) & ~T[t].counted & F -> T[t].depth[1] : (a1));
		add_levels(t, -l0, -l1);
		T[t].levels[0] = T[t].levels[0] + l0;
		T[t].levels[1] = T[t].levels[1] + l1;
		if
		:: !mutant(GIVEBACK_SILENT) -> slot_left(t); phase_run()
		:: else
		fi;
		T[t].nested = !newcomer;
		T[t].entry = BLOCKED
	fi;
	barrier(t)
}

inline user_enter(t, D)		/* E1 */
{
	stores_again(t);
	d_step { add_levels(t, L0(D), L1(D)) }
}

/* what can end a sleeping entry, apart from being counted in: K4, in scenarios with signals */
#ifndef ENTRY_SIGNALS
#define ENTRY_SIGNALS(t)
#define ASLEEP(t)	skip
#define AWAKE_AGAIN(t)	skip
#endif

/* E2 is a compiler barrier: the load of E3 is not ended before the store of E1 */
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
			commit(t);
			refresh(t);
			if
			:: !mutant(LEAVE_UNCOUNTED) -> slot_left(t)	/* K5 */
			:: else
			fi;
			phase_run();
			barrier(t);
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
inline fence_all()
{
	i = 0;
	do
	:: i < NS && !mutant(NO_IPI) -> barrier(i); i++
	:: else -> break
	od
}

inline fenced()
{
	domain[0] = (domain[0] == FENCING -> SCANNING : domain[0]);
	domain[1] = (domain[1] == FENCING -> SCANNING : domain[1])
}

#ifndef FENCE
#define FENCE(t)
#define FENCES(t)	false	/* t must fence, which is a step of its own */
#endif

/* F4: count what a slot is inside of */
inline scan_slot(t, m)
{
	touch();
	set_counted(t, T[t].counted | (SEEN(t) & (m)));
	if
	:: !mutant(SCAN_SILENT) -> polled_inside(t)
	:: else
	fi
}

#ifdef STEPWISE
inline scan()
{
	h = MASK(domain[0] == SCANNING, domain[1] == SCANNING);
	h = (h == MF && cursor[0] < cursor[1] -> M : (h == MF && cursor[0] > cursor[1] -> F : h));
	j = (h & M -> cursor[0] : cursor[1]);
	if
	:: !mutant(SCAN_UNCOUNTED) -> scan_slot(j, h)
	:: else
	fi;
	j++;
	cursor[0] = (h & M -> j : cursor[0]);
	cursor[1] = (h & F -> j : cursor[1]);
	domain[0] = (h & M && j == NS -> COUNTED : domain[0]);
	domain[1] = (h & F && j == NS -> COUNTED : domain[1])
}
#else
inline scan()
{
	h = MASK(domain[0] == SCANNING, domain[1] == SCANNING);
	j = 0;
	do
	:: j < NS -> scan_slot(j, h); j++
	:: else -> break
	od;
	domain[0] = (h & M -> COUNTED : domain[0]);
	domain[1] = (h & F -> COUNTED : domain[1])
}
#endif

/* F3, F4: bring a phase on that is not ready */
inline phase_step()
{
	if
#ifdef UNITS
	:: !PUBLISHED && !(mutant(FENCE_UNPUBLISHED) && domain[0] != OPEN) -> publish()
#endif
	:: domain[0] == FENCING || domain[1] == FENCING -> fence_all(); fenced()
	:: else -> scan()
	fi
}

/* F5: once around the loop of a fork's wait; ended: it is over */
inline iterate(t)
{
	ended = false;
	phase_run();
	if
	:: DEAD -> out = ENXIO; ended = true
	:: !DEAD && HAS_DOMAIN(t) -> ended = true
	:: !DEAD && T[t].state == IDLE -> out = EAGAIN; ended = true	/* it has expired */
	:: !DEAD && T[t].state == DRAINING && UNREADY -> phase_step()
	:: !DEAD && ((T[t].state == DRAINING && !UNREADY) || T[t].state == QUEUED) ->
		if
		:: !T[t].edge -> circular(t)
		:: else -> other = false
		fi;
		if
		:: other ->
			check_truly(t);
			out = EDEADLK
		:: else ->
			T[t].edge = (T[t].edge -> T[t].edge : EDGE | LEAVES(t));
			if
			:: T[t].kind == POLLS ->
				T[t].driver = BY_POLL;
				T[t].deadline = LIMITED(t);
				out = EAGAIN;
				ended = true
			:: else -> T[t].asleep = (mutant(NO_RECHECK) -> NOT_YET : 1)
			fi
		fi
	:: else
	fi
}

/* released ones are counted in before anything else */
#define IS_RELEASED(t)	(T[t].entry == RELEASED)
#define AWAKE(t)	(!out && T[t].asleep == 0 && !FENCES(t) && \
			 (HAS_DOMAIN(t) || T[t].state == IDLE || !ANY(IS_RELEASED)))

/* what can end a fork's wait, apart from being woken: signals and time-outs */
#ifndef FORK_SIGNALS
#ifdef TIMES
#define FORK_SIGNALS(t) \
	:: d_step { LIMITED(t) && TIME_OUT(t) }
#else
#define FORK_SIGNALS(t)
#endif
#endif

/* what the scan of this iteration looks at */
#ifdef STORES_DELAYED
inline look_next()
{
	if
	:: domain[0] == SCANNING -> look(cursor[0])
	:: else
	fi
}
#else
#define look_next()	skip
#endif

/* t's wait has lasted for as long as it may: FORK_SIGNALS of a thread that has a limit */
#define TIME_OUT(t)	FORK_WAITS(t) && !out -> out = ETIMEDOUT; T[t].asleep = 0

/* its wait is over, but its place is still there, which may be granted until it is given up */
#define REFUSED		(out == EDEADLK || out == ETIMEDOUT)

#ifndef PROCEEDS
inline refuse(t)
{
	if
	:: T[t].state != IDLE && !mutant(TIMEOUT_KEEPS) -> leave_phase(t)
	:: else
	fi;
	if
	:: !mutant(TIMEOUT_SILENT) -> phase_run()
	:: else
	fi
}
#endif

/* F3..F5: until granted, or refused with `out` set */
inline wait_fork(t)
{
	do
	FENCE(t)
	:: atomic {
		AWAKE(t) -> look_next(); d_step { iterate(t); skip };
		if
		:: ended -> break
		:: else
		fi
	   }
	:: d_step { T[t].asleep == NOT_YET -> T[t].asleep = 1 }
	:: d_step { REFUSED -> refuse(t); skip }; break
	FORK_SIGNALS(t)
	od
}

/* F2: t wants to copy n; its ticket does not replace the check */
inline begin_fork(t, N)
{
	out = 0;
	barrier(t);
	if
	:: mutant(IPI_FIRST) -> fence_all()
	:: else
	fi;
	if
	:: T[t].state == IDLE -> join(t, N, CLONES, BY_CALLER)
	:: T[t].state == TICKET && ((!((N) & ~T[t].need) && IS_IDLE(t)) || mutant(TICKET_TRUSTED)) ->
		T[t].state = COPYING;
		T[t].kind = CLONES;
		T[t].need = T[t].need | (N);
		T[t].deadline = mutant(COPY_EXPIRES) && T[t].deadline;
		check_exclusion(t)
	:: else -> again(t, N, CLONES, BY_CALLER)
	fi;
	if
	:: mutant(IPI_FIRST) -> fenced()
	:: else
	fi
}

/* a signal interrupts t's wait, or its copy: the place is kept */
inline hold(t)
{
	again(t, 0, T[t].kind, BY_RESTART);
	T[t].deadline = true;
	if
	:: !mutant(HOLD_SILENT) -> phase_run()
	:: else
	fi
}

/* t wants a ticket for N, and sleeps until it has it (PREPARES) or asks again (POLLS) */
inline begin_prepare(t, N, what)
{
	out = 0;
	barrier(t);
	if
	:: T[t].state == TICKET && !((N) & ~T[t].need) -> T[t].driver = BY_CALLER
	:: T[t].state == IDLE -> join(t, N, what, BY_CALLER)
	:: else -> again(t, N, what, BY_CALLER)
	fi
}

/* a clone that copies n */
inline fork(t, n)
{
	d_step { begin_fork(t, n); skip };		/* F2 */
	wait_fork(t);					/* F3..F5 */
	if
	:: d_step { HAS_DOMAIN(t) -> drop(t); skip }	/* F6 */
	:: else
	fi
}
