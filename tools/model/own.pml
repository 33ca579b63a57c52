/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * own.pml - the library's own gate, tools/lib/gate.c; not a model by itself
 *
 * The others whose names begin with "own-" add threads to it. They say before they include this:
 *
 *	NT		how many threads, each with its slot
 *	NC		how much code can be blocked at once: that of each thread, and then of a handler in thread 0
 *
 * What the gate does with its lock held is one step here. Time is not in it: what is due with time may come as soon as
 * somebody sleeps who would wake for it (Clock). The sleep of a fork ends with its event alone: that it also looks every
 * LOOK would hide that nobody wakes it. Order and numbers are not in it either, but what the code makes of them: who is
 * released, whose scan has to start again, which copies were begun with the ticket.
 *
 * They may also define
 *
 *	PATIENCE	false: patience is 0
 *	DUE		patience is over: each who takes the lock yields first, if that may be; it is with patience 0
 *	LOST(t)		thread t keeps its place, but does not look, and may lose it
 *	WORDS		how many words there are for copies; without it each code has one of its own
 */
#include "mutants.h"

#define M		1
#define F		2
#define BOTH		3
#define NONE		NT

/* of a fork */
#define WAITS		0
#define GRANTED		1
#define EDEADLK		2
#define TIMEDOUT	3

/* of an entry */
#define BLOCKED		1
#define RELEASED	2

/* of a copy */
#define RUNS		1
#define COMPLETE	2
#define SPOILED		3
#define REUSED		4	/* its word is another's */

#define OWNER(c)	((c) < NT -> (c) : 0)

#ifndef PATIENCE
#define PATIENCE	true
#endif
#ifndef DUE
#define DUE		!PATIENCE
#endif
#ifndef LOST
#define LOST(t)		false
#endif

typedef Place {
	byte m, f;		/* levels of the slot */
	byte need;
	bool member;		/* of the phase */
	bool polled;		/* its code runs */
	byte inside;		/* what the code that waits is inside of */
	bool woken;		/* its event has changed since it looked */
	bool rescan;		/* seen != admitted */
	byte cursor;
	bool expired;
	bool ended;		/* the thread has */
	byte asker		/* the entry of Entry whose code waits in this place */
};

typedef Entry {
	byte state;
	bool newcomer, woken, timed;
	byte in;		/* what the code holds to be inside of: ghost */
	byte result;		/* of its fork */
	byte word;		/* of the copy that it makes. 0: none, or its parent is done with it */
	bool with;		/* the copy was begun with the ticket that is held: number >= first_copy */
#ifdef WORDS
	byte at;		/* which word */
#endif
	byte copies;		/* domains that are being copied: ghost */
	bool dirty		/* another thread was inside meanwhile: ghost */
};

Place T[NT];
Entry E[NC];
byte closed, holder = NONE, holder_need, blocked, pending;
bool copying, granted, strict;
hidden byte i, j, k, circle, sections[NT], ghost;
hidden byte exclusion, passes, truly, handover, outlasts, lives;

#define INSIDE(t)	((T[t].m > 0) | ((T[t].f > 0) << 1))
/* in the headers of the units */
#define PUBLISHED	(closed | (strict -> BOTH : 0))
#ifdef STORES_DELAYED
#define SEEN(t)		seen[t]
bool locked;			/* elsewhere each hold of the lock is one step */
#define FREE		(!locked)
#else
#define SEEN(t)		INSIDE(t)
#define FREE		true
inline set_closed(v) { closed = v }
#endif

inline wake_forks()
{
	i = 0;
	do
	:: i < NT -> T[i].woken = T[i].woken || T[i].need > 0; i++
	:: else -> break
	od
}

/* wake_for() */
inline wake_for(t)
{
	i = 0;
	do
	:: i < NT -> T[i].woken = T[i].woken || (T[i].need > 0 && T[i].cursor == t); i++
	:: else -> break
	od
}

inline wake_blocked()
{
	i = 0;
	do
	:: i < NC -> E[i].woken = E[i].state > 0; i++
	:: else -> break
	od
}

inline release_blocked()
{
	pending = pending + blocked;
	blocked = 0;
	i = 0;
	do
	:: i < NC -> E[i].state = (E[i].state == BLOCKED -> RELEASED : E[i].state); i++
	:: else -> break
	od;
	wake_blocked()
}

inline settle()
{
	k = (holder != NONE -> holder_need : 0);
	i = 0;
	do
	:: i < NT -> k = k | (T[i].need && T[i].member -> T[i].need : 0); i++
	:: else -> break
	od;
	if
	:: closed && !k && !mutant(OWN_NO_RELEASE) -> release_blocked()
	:: else ->
		if
		:: mutant(OWN_SETTLES_SILENT)
		:: else -> wake_blocked()
		fi
	fi;
	strict = strict && (k || mutant(OWN_STAYS_STRICT));
	set_closed(k);
	if
	:: mutant(OWN_FORKS_UNWOKEN)
	:: else -> wake_forks()
	fi
}

inline remove_fork(t)
{
	T[t].need = 0;
	T[t].member = false;
	T[t].polled = false;
	T[t].inside = 0;
	T[t].woken = false;
	T[t].rescan = false;
	T[t].cursor = 0
}

inline end_ticket()
{
	holder = NONE;
	holder_need = 0;
	copying = false;
	settle()
}

/*
 * What is due. Whoever sleeps wakes for it, if it knew of a time when it went to sleep.
 */
#define TIMED_FORK(t)	(T[t].need && !LOST(t))
#define TIMED_ENTRY(c)	(E[c].state && E[c].timed)
#define SOMEBODY_WAKES	(TIMED_FORK(0) || TIMED_FORK(1) || TIMED_FORK(NT / 2) || TIMED_FORK(NT - 1) || \
			 TIMED_ENTRY(0) || TIMED_ENTRY(1) || TIMED_ENTRY(NC / 2) || TIMED_ENTRY(NC - 1))

/* spoil_copies() */
inline spoil()
{
	i = 0;
	do
	:: i < NC ->
		E[i].word = (E[i].with && E[i].word == RUNS && !mutant(OWN_LATE_UNJUDGED) -> SPOILED : E[i].word);
		E[i].with = false;
		i++
	:: else -> break
	od
}

/* forks wait for the next phase */
#define IN_QUEUE(t)	(T[t].need && !T[t].member)
#define QUEUED		(IN_QUEUE(0) || IN_QUEUE(1) || IN_QUEUE(NT / 2) || IN_QUEUE(NT - 1))
#define MAY_YIELD	(closed && holder == NONE && !mutant(OWN_NO_YIELD) && \
			 (blocked || QUEUED && granted && !mutant(OWN_YIELD_KEEPS_QUEUE)))

inline yields()
{
	granted = granted && mutant(OWN_YIELD_KEEPS_QUEUE);
	release_blocked();
	if
	:: mutant(OWN_YIELD_SILENT)
	:: else -> wake_forks()
	fi
}

inline tick()
{
	if
	:: DUE && MAY_YIELD -> yields()
	:: else
	fi
}

proctype Clock()
{
end:	do
	:: d_step {
		FREE && SOMEBODY_WAKES && holder != NONE && !copying && !mutant(OWN_NO_EXPIRY) ->
			T[holder].expired = true;
			end_ticket();
			skip
	   }
	:: d_step {
		FREE && SOMEBODY_WAKES && holder != NONE && copying && !mutant(OWN_NO_LATE) ->
			spoil();
			end_ticket();
			skip
	   }
	:: d_step {
		FREE && SOMEBODY_WAKES && T[0].need && LOST(0) && !mutant(OWN_PLACE_STAYS) ->
			remove_fork(0);
			settle();
			skip
	   }
#ifndef NO_YIELDS
	:: d_step { FREE && SOMEBODY_WAKES && MAY_YIELD -> yields(); skip }
#endif
#if !defined(NO_YIELDS) || defined(HANDLER)
	:: d_step { FREE && SOMEBODY_WAKES && pending -> pending = 0; wake_forks(); skip }
#endif
	od
}

/*
 * Sections
 */

#define may_enter(c, t, domains) \
	(holder == t && !mutant(OWN_HOLDER_KEPT_OUT) || \
	 !(holder != NONE && (holder_need & (domains)) && !mutant(OWN_TICKET_IGNORED)) && \
	 (!(PUBLISHED & (domains)) || !E[c].newcomer || !PATIENCE || E[c].state == RELEASED))

#define only(t, domains) \
	(T[t].m == ((domains) & M) && T[t].f == (domains) >> 1)

#define count(t, domains, n) \
	T[t].m = T[t].m + ((domains) & M -> n : 0); T[t].f = T[t].f + ((domains) & F -> n : 0)

inline admitted()
{
	i = 0;
	do
	:: i < NT -> T[i].rescan = T[i].need > 0; i++
	:: else -> break
	od
}

/* the program goes on in a section: who copies it has it in its copy */
inline goes_in(c, t, domains)
{
	E[c].in = E[c].in | (domains);
	i = 0;
	do
	:: i < NC -> E[i].dirty = E[i].dirty || ((E[i].copies & (domains)) && OWNER(i) != t); i++
	:: else -> break
	od
}

inline admit(c, t, domains)
{
	if
	:: (closed & (domains)) && !mutant(OWN_UNADMITTED) ->
		admitted();
		strict = strict || (!E[c].newcomer && holder != t && !mutant(OWN_NO_STRICT))
	:: else
	fi;
	goes_in(c, t, domains)
}

#define TIMED	(holder != NONE || closed && blocked || pending || \
		 T[0].need || T[1].need || T[NT / 2].need || T[NT - 1].need)

/* the first part of enter(): the levels are counted */
inline come_in(c, t, domains)
{
	tick();
	E[c].newcomer = (mutant(OWN_NESTED_KEPT_OUT) || only(t, domains)) &&
			(!T[t].need || mutant(OWN_WAITER_KEPT_OUT));
	if
	:: may_enter(c, t, domains) -> admit(c, t, domains); E[c].newcomer = false
	:: else ->
		passes = (holder != t);
		assert(passes);
		if
		:: mutant(OWN_STAYS_COUNTED)
		:: else -> count(t, domains, -1)
		fi;
		stored(t);
		if
		:: mutant(OWN_GIVEBACK_SILENT)
		:: else -> wake_for(t)
		fi;
		E[c].state = BLOCKED;
		blocked++;
		E[c].timed = TIMED
	fi
}

/* and the second: once round the loop */
inline look_again(c, t, domains)
{
	E[c].woken = false;
	tick();
	if
	:: may_enter(c, t, domains) ->
		if
		:: E[c].state == BLOCKED -> blocked--
		:: else ->
			if
			:: pending == 1 ->
				pending = 0;
				if
				:: mutant(OWN_COUNTS_SILENT)
				:: else -> wake_forks()
				fi
			:: pending > 1 -> pending--
			:: else
			fi
		fi;
		E[c].state = 0;
		E[c].timed = false;
		count(t, domains, 1);
		stored(t);
		admit(c, t, domains);
		E[c].newcomer = false
	:: else -> E[c].timed = TIMED
	fi
}

#ifndef STORES_DELAYED
inline stored(t) { skip }

/* E1 */
inline enter_counts(t, domains)
{
	d_step { count(t, domains, 1); skip }
}

/* E3, and what follows */
inline enter_looks(c, t, domains)
{
	if
	:: d_step { !(PUBLISHED & (domains)) -> goes_in(c, t, domains); skip }
	:: d_step { (PUBLISHED & (domains)) -> come_in(c, t, domains); skip }
	fi;
	do
	:: d_step { E[c].state && E[c].woken -> look_again(c, t, domains); skip }
	:: E[c].state == 0 -> break
	od
}

/* L1 */
inline leave_counts(c, t, domains)
{
	d_step { E[c].in = E[c].in & ~(domains); count(t, domains, -1); skip }
}

/* L3; forkgate_leave_slow() */
inline leave_looks(t, domains)
{
	if
	:: d_step { (PUBLISHED & (domains) & ~INSIDE(t)) && !mutant(OWN_LEAVES_SILENT) -> wake_for(t); skip }
	:: else
	fi
}

inline enter(own, domains)
{
	enter_counts(own, domains);
	enter_looks(own, own, domains)
}

inline leave(own, domains)
{
	leave_counts(own, own, domains);
	leave_looks(own, domains)
}
#endif

/*
 * Forks
 */

inline add_fork(c, t, domains)
{
	T[t].need = domains;
	T[t].member = false;
	T[t].rescan = true;
	T[t].cursor = 0;
	T[t].expired = false;
	T[t].asker = c;
	T[t].woken = true
}

/* Who waits when a phase begins takes part in it. */
inline all_join()
{
	i = 0;
	do
	:: i < NT -> T[i].member = T[i].member || (T[i].need > 0 && !mutant(OWN_QUEUE_STAYS)); i++
	:: else -> break
	od
}

/* but not an entry of the thread itself, which its handler has interrupted */
#define OTHERS_PENDING(t)	(pending > (E[t].state == RELEASED))

inline join(t)
{
	if
	:: closed == 0 ->
		if
		:: OTHERS_PENDING(t) && !mutant(OWN_PHASE_EARLY)
		:: else ->
			handover = !OTHERS_PENDING(t);
			assert(handover);
			granted = false;
			T[t].member = true;
			all_join()
		fi
	:: closed && !T[t].member && granted && PATIENCE && !mutant(OWN_JOINS_LATE) &&
		(!(INSIDE(t) & (mutant(OWN_QUEUE_LAX) -> BOTH : closed)) || mutant(OWN_INSIDE_QUEUES))
	:: else -> T[t].member = true
	fi
}

/* G3 */
inline all_idle(t)
{
	j = (T[t].rescan -> 0 : T[t].cursor);
	T[t].rescan = false;
	do
	:: j < NT && (j == t || !(SEEN(j) & T[t].need)) -> j++
	:: j < NT && j != t && (SEEN(j) & T[t].need) && T[j].ended && !mutant(OWN_DEAD_COUNT) -> forget(j); j++
	:: else -> break
	od;
	T[t].cursor = (j < NT -> j : T[t].cursor)
}

inline forget(t)
{
	k = (T[t].need || holder == t);
	holder_need = (holder == t -> 0 : holder_need);
	holder = (holder == t -> NONE : holder);
	remove_fork(t);
	T[t].m = 0;
	T[t].f = 0;
	E[t].in = 0;
	T[t].expired = false;
	if
	:: mutant(OWN_FORGETS_SILENT)
	:: else ->
		wake_for(t);
		if
		:: k -> settle()
		:: else
		fi
	fi
}

/* waits_for() */
#define WAITS_FOR(x, y) \
	((x) != (y) && T[x].need && T[y].need && (T[x].need & sections[y]) && \
	 (T[x].rescan || T[x].cursor <= (y) || mutant(OWN_CIRCLE_PASSED) && !ghost))
#define FROM		(i / NT)
#define TO		(i % NT)

/* Does fork t wait, through others, for itself? Into k */
inline reaches_itself(t)
{
	circle = 0;
	do
	:: k = circle;
		i = 0;
		do
		:: i < NT * NT ->
			circle = circle | (((FROM == t || circle >> FROM & 1) && WAITS_FOR(FROM, TO)) << TO);
			i++
		:: else -> break
		od;
		if
		:: k == circle -> break
		:: else
		fi
	od;
	k = circle >> t & 1
}

inline in_a_circle(t)
{
	ghost = false;
	i = 0;
	do
	:: i < NT ->
		sections[i] = (T[i].polled && !mutant(OWN_POLLED_STALE) || mutant(OWN_CIRCLE_HANDLER) ->
			INSIDE(i) : T[i].inside);
		i++
	:: else -> break
	od;
	reaches_itself(t)
}

/* The same with what the code that sleeps cannot leave: its own sections, and all of the code that it has interrupted. */
inline check_circle(t)
{
	ghost = true;
	i = 0;
	do
	:: i < NT -> sections[i] = (T[i].asker == i && !T[i].polled -> E[i].in : INSIDE(i)); i++
	:: else -> break
	od;
	reaches_itself(t);
	truly = k;
	assert(truly)
}

#define IN_PHASE(t)	(T[t].member && closed)
#define MAY_GRANT(t)	((IN_PHASE(t) || mutant(OWN_QUEUE_GRANTED)) && (holder == NONE || mutant(OWN_TWO_TICKETS)) && \
			 (!OTHERS_PENDING(t) || mutant(OWN_GRANT_EARLY)))

inline grant(t)
{
	holder = t;
	copying = false;
	holder_need = T[t].need;
	i = 0;
	do
	:: i < NC -> E[i].with = false; i++
	:: else -> break
	od;
	granted = true;
	T[t].expired = false;
	E[T[t].asker].result = GRANTED;
	remove_fork(t)
}

/* A wait that has ended otherwise */
inline give_up(t, why)
{
	remove_fork(t);
	E[T[t].asker].result = why;
	if
	:: mutant(OWN_FAILS_SILENT)
	:: else -> settle()
	fi
}

inline close_gate(t)
{
	k = closed;
	i = 0;
	do
	:: i < NT -> k = k | (T[i].member -> T[i].need : 0); i++
	:: else -> break
	od;
	if
	:: k != closed && !mutant(OWN_CLOSES_SILENT) -> wake_forks(); T[t].woken = false
	:: else
	fi;
	set_closed(k)
}

/* once round the loop of prepare() */
inline look(c, t, domains)
{
	tick();
	if
	:: T[t].need && T[t].asker != c -> remove_fork(t); settle()
	:: else
	fi;
	if
	:: !T[t].need -> add_fork(c, t, domains)
	:: else
	fi;
	T[t].woken = false;
	T[t].inside = INSIDE(t);
	in_a_circle(t);
	if
	:: k && !mutant(OWN_NO_CIRCLE) ->
		check_circle(t);
		give_up(t, EDEADLK)
	:: else ->
		join(t);
		if
		:: T[t].member -> close_gate(t)
		:: else
		fi;
		if
		:: MAY_GRANT(t) ->
			all_idle(t);
			if
			:: j == NT -> grant(t)
			:: else
			fi
		:: else
		fi
	fi
}

/* what prepare() does before that; GRANTED is EALREADY, too */
inline prepare_at_once(c, t, domains)
{
	tick();
	E[c].result = WAITS;
	if
	:: mutant(OWN_FORK_SILENT)
	:: else -> wake_for(t)		/* a handler, between L1 and L3 */
	fi;
	if
	:: holder == t && (holder_need & (domains)) == (domains) -> E[c].result = GRANTED
	:: holder == t && (holder_need & (domains)) != (domains) ->
		if
		:: mutant(OWN_WIDER_UNJUDGED)
		:: else -> spoil()
		fi;
		end_ticket()
	:: else
	fi;
	if
	:: E[c].result == WAITS && T[t].need && !(T[t].polled && T[t].need == (domains)) -> remove_fork(t); settle()
	:: else
	fi
}

#define LOOKS(c, t)	(E[c].result == WAITS && (T[t].woken || T[t].asker != c || !T[t].need))

#ifndef STORES_DELAYED
inline prepare(c, t, domains)
{
	d_step { prepare_at_once(c, t, domains); skip };
	do
	:: d_step { LOOKS(c, t) -> look(c, t, domains); skip }
	:: E[c].result != WAITS -> break
	od
}

/* once; then it does what it likes, and keeps its place */
inline poll(c, t, domains)
{
	d_step {
		prepare_at_once(c, t, domains);
		if
		:: E[c].result == WAITS ->
			look(c, t, domains);
			T[t].polled = (T[t].need > 0)
		:: else
		fi;
		skip
	}
}

/* as prepare(), but for no longer than the patience */
inline prepare_timed(c, t, domains)
{
	d_step { prepare_at_once(c, t, domains); skip };
	do
	:: d_step { LOOKS(c, t) -> look(c, t, domains); skip }
	:: d_step { E[c].result == WAITS && T[t].need && T[t].asker == c -> give_up(t, TIMEDOUT); skip }
	:: E[c].result != WAITS -> break
	od
}
#endif

#ifdef WORDS
byte user[WORDS], last;
#define IS_OF(c, w)	(user[w] == (c) && E[c].at == (w) && E[c].word)
#define IN_USE(w)	(IS_OF(user[w], w) && (E[user[w]].word == RUNS && !mutant(OWN_RUNNING_REUSED) || \
			 E[user[w]].word == SPOILED && !mutant(OWN_SPOILED_REUSED)))
inline new_copy(c)
{
	j = 0;
	do
	:: last = (last + 1) % WORDS;
		j++;
		if
		:: IN_USE(last) && j < WORDS
		:: else -> break
		fi
	od;
	if
	:: IS_OF(user[last], last) -> E[user[last]].word = REUSED
	:: else
	fi;
	user[last] = c;
	E[c].at = last
}
#else
inline new_copy(c) { skip }
#endif

/* __forkgate_gate_copy(): the ticket is verified. Into result: GRANTED, or why not */
inline try_copy(c, t, domains)
{
	tick();
	if
	:: holder == t && (holder_need & (domains)) == (domains) || mutant(OWN_TICKET_TRUSTED) ->
		new_copy(c);
		E[c].word = RUNS;
		E[c].with = true;
		copying = true;
		E[c].result = GRANTED
	:: else -> E[c].result = TIMEDOUT
	fi
}

/* the copy is under way: not one step */
inline begin_copy(c, t, domains)
{
	E[c].copies = domains;
	i = 0;
	do
	:: i < NC -> E[c].dirty = E[c].dirty || (OWNER(i) != t && (E[i].in & (domains))); i++
	:: else -> break
	od
}

/* Into k: whether the copy is complete, as far as its word says */
inline judge(c)
{
	E[c].word = (E[c].word == RUNS -> COMPLETE : E[c].word);
	k = (E[c].word == COMPLETE)
}

/* what was forked in a handler leaves the ticket to what that has interrupted, if it is that one's, too */
#define IS_INNER(c, t)	(c != t && E[t].word && (E[t].with || mutant(OWN_INNER_STALE)) && !mutant(OWN_INNER_ENDS))

/* the call has returned. Into lives: as judge() */
inline copied(c, t)
{
	tick();
	judge(c);
	lives = k;
	E[c].with = false;
	if
	:: holder == t && !IS_INNER(c, t) -> end_ticket()
	:: else
	fi;
	outlasts = (holder != t || E[t].with);
	assert(outlasts)
}

/* verify, copy, and the end of it, where nobody but the parent judges */
inline copy(c, t, domains)
{
	d_step { FREE -> try_copy(c, t, domains); skip };
	if
	:: d_step { E[c].result == GRANTED -> begin_copy(c, t, domains); skip };
		d_step {
			FREE -> copied(c, t);
			E[c].word = 0;
			exclusion = !lives || !E[c].dirty;
			assert(exclusion);
			E[c].copies = 0;
			E[c].dirty = false;
			E[c].result = WAITS;
			skip
		}
	:: d_step { E[c].result != GRANTED -> E[c].result = WAITS; skip }
	fi
}
