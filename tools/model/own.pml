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
 * released, whom the limit of the phase lets pass, whose scan has to start again.
 */
#include "mutants.h"

#define M		1
#define F		2
#define BOTH		3
#define NONE		NT

/* gate->holding */
#define TICKET		0
#define COPYING		1
#define LATE		2

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

#define OWNER(c)	((c) < NT -> (c) : 0)

typedef Place {
	byte m, f;		/* levels of the slot */
	byte need;
	bool member, within;	/* of the phase; limit does not keep it out */
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
	byte word;		/* of the copy that it makes; each has one of its own here. 0: none, or judged */
	byte copies;		/* domains that are being copied: ghost */
	bool dirty		/* another thread was inside meanwhile: ghost */
};

Place T[NT];
Entry E[NC];
byte closed, holder = NONE, holding, holder_need, blocked, pending;
bool granted, limited, strict;
hidden byte i, j, k, circle;
hidden byte exclusion, passes, lives;

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
	limited = false;
	i = 0;
	do
	:: i < NC -> E[i].state = (E[i].state == BLOCKED -> RELEASED : E[i].state); i++
	:: else -> break
	od;
	wake_blocked()
}

inline settle()
{
	k = (holder != NONE && holding != LATE -> holder_need : 0);
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
	strict = strict && k;
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
	T[t].within = false;
	T[t].woken = false;
	T[t].rescan = false;
	T[t].cursor = 0
}

inline end_ticket()
{
	if
	:: blocked && !limited ->
		limited = true;
		i = 0;
		do
		:: i < NT -> T[i].within = T[i].need > 0; i++
		:: else -> break
		od
	:: else
	fi;
	holder = NONE;
	holder_need = 0;
	holding = TICKET;
	settle()
}

/*
 * What is due. Whoever sleeps wakes for it, if it knew of a time when it went to sleep.
 */
#define TIMED_FORK(t)	(T[t].need && !T[t].ended)
#define TIMED_ENTRY(c)	(E[c].state && E[c].timed)
#define SOMEBODY_WAKES	(TIMED_FORK(0) || TIMED_FORK(1) || TIMED_FORK(NT / 2) || TIMED_FORK(NT - 1) || \
			 TIMED_ENTRY(0) || TIMED_ENTRY(1) || TIMED_ENTRY(NC / 2) || TIMED_ENTRY(NC - 1))

/* all copies with the ticket of t */
inline spoil(t)
{
	i = 0;
	do
	:: i < NC -> E[i].word = (OWNER(i) == t && E[i].word == RUNS -> SPOILED : E[i].word); i++
	:: else -> break
	od
}

/* forks wait for the next phase */
#define IN_QUEUE(t)	(T[t].need && !T[t].member)
#define QUEUED		(IN_QUEUE(0) || IN_QUEUE(1) || IN_QUEUE(NT / 2) || IN_QUEUE(NT - 1))

inline go_late()
{
	if
	:: mutant(OWN_LATE_UNJUDGED)
	:: else -> spoil(holder)
	fi;
	if
	:: mutant(OWN_LATE_HOLDS) -> holding = LATE; settle()
	:: else -> end_ticket()
	fi
}

proctype Clock()
{
end:	do
	:: d_step {
		FREE && SOMEBODY_WAKES && holder != NONE && holding == TICKET && !mutant(OWN_NO_EXPIRY) ->
			T[holder].expired = true;
			end_ticket();
			skip
	   }
	:: d_step {
		FREE && SOMEBODY_WAKES && holder != NONE && holding == COPYING && !mutant(OWN_NO_LATE) -> go_late();
			skip
	   }
#ifndef NO_YIELDS
	:: d_step {
		FREE && SOMEBODY_WAKES && closed && holder == NONE && (blocked || QUEUED && granted && !mutant(OWN_YIELD_KEEPS_QUEUE)) && !mutant(OWN_NO_YIELD) ->
			release_blocked();
			granted = granted && mutant(OWN_YIELD_KEEPS_QUEUE);
			wake_forks();
			skip
	   }
	:: d_step {
		FREE && SOMEBODY_WAKES && pending -> pending = 0; wake_forks();
			skip
	   }
#endif
	od
}

/*
 * Sections
 */

#define may_enter(c, t, domains) \
	(holder == t && !mutant(OWN_HOLDER_KEPT_OUT) || \
	 !(holder != NONE && holding != LATE && (holder_need & (domains)) && !mutant(OWN_TICKET_IGNORED)) && \
	 (!(PUBLISHED & (domains)) || !E[c].newcomer || E[c].state == RELEASED))

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

#define TIMED	(holder != NONE && holding != LATE || holder == NONE && closed && blocked || pending || \
		 T[0].need || T[1].need || T[NT / 2].need || T[NT - 1].need)

/* the first part of enter(): the levels are counted */
inline come_in(c, t, domains)
{
	E[c].newcomer = (mutant(OWN_NESTED_KEPT_OUT) || only(t, domains)) && !T[t].need;
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
	if
	:: may_enter(c, t, domains) ->
		if
		:: E[c].state == BLOCKED -> blocked--
		:: else ->
			if
			:: pending == 1 -> pending = 0; wake_forks()
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
	T[t].within = false;
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

inline join(t)
{
	if
	:: closed == 0 ->
		if
		:: pending && !mutant(OWN_PHASE_EARLY)
		:: else -> granted = false; limited = false; strict = false; T[t].member = true; all_join()
		fi
	:: closed && !T[t].member && granted && !mutant(OWN_JOINS_LATE) &&
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
	holder_need = (holder == t -> 0 : holder_need);
	holder = (holder == t -> NONE : holder);
	remove_fork(t);
	T[t].m = 0;
	T[t].f = 0;
	E[t].in = 0;
	T[t].expired = false
}

/* Who is inside of what needs idle; is the fork, too? Into k */
inline in_a_circle(t)
{
	k = T[t].need;
	do
	:: circle = k;
		i = 0;
		do
		:: i < NT -> k = k | (i != t && T[i].need && (INSIDE(i) & k) -> T[i].need : 0); i++
		:: else -> break
		od;
		if
		:: k == circle -> break
		:: else
		fi
	od;
	circle = k;
	k = 0;
	i = 0;
	do
	:: i < NT -> k = k | (i != t && T[i].need && (INSIDE(i) & circle) && (T[i].need & INSIDE(t))); i++
	:: else -> break
	od
}

#define IN_PHASE(t)	(T[t].member && closed)
#define PASSES(t)	(!limited || T[t].within || ((INSIDE(t) & closed) && !mutant(OWN_LIMIT_INSIDE)))

inline grant(t)
{
	holder = t;
	holding = TICKET;
	holder_need = T[t].need;
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

inline close_gate()
{
	k = closed;
	i = 0;
	do
	:: i < NT -> k = k | (T[i].member -> T[i].need : 0); i++
	:: else -> break
	od;
	if
	:: k != closed && !mutant(OWN_CLOSES_SILENT) -> wake_forks()
	:: else
	fi;
	set_closed(k)
}

/* once round the loop of prepare() */
inline look(c, t, domains)
{
	if
	:: T[t].need && T[t].asker != c -> remove_fork(t); settle()
	:: else
	fi;
	if
	:: !T[t].need -> add_fork(c, t, domains)
	:: else
	fi;
	T[t].woken = false;
	in_a_circle(t);
	if
	:: k && !mutant(OWN_NO_CIRCLE) -> give_up(t, EDEADLK)
	:: else ->
		join(t);
		if
		:: T[t].member -> close_gate()
		:: else
		fi;
		if
		:: IN_PHASE(t) && (holder == NONE || mutant(OWN_TWO_TICKETS)) && PASSES(t) ->
			all_idle(t);
			if
			:: j == NT -> grant(t)
			:: else
			fi
		:: else
		fi
	fi
}

/* prepare_at_once(): GRANTED is EALREADY, too */
inline prepare_at_once(c, t, domains)
{
	E[c].result = WAITS;
	if
	:: INSIDE(t) || mutant(OWN_FORK_SILENT)
	:: else -> wake_for(t)		/* a handler, between L1 and L3 */
	fi;
	if
	:: holder == t && (holder_need & (domains)) == (domains) && holding != LATE -> E[c].result = GRANTED
	:: holder == t && !((holder_need & (domains)) == (domains) && holding != LATE) ->
		if
		:: holding != TICKET -> spoil(t)
		:: else
		fi;
		end_ticket()
	:: else
	fi;
	if
	:: E[c].result == WAITS && T[t].need -> remove_fork(t); settle()
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

/* likewise, but for no longer than the patience */
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

/* __forkgate_gate_copy(): the ticket is verified. Into result: GRANTED, or why not */
inline try_copy(c, t, domains)
{
	if
	:: holder == t && (holder_need & (domains)) == (domains) || mutant(OWN_TICKET_TRUSTED) ->
		E[c].word = (holder == t && holding == LATE -> SPOILED : RUNS);
		holding = (holder == t && holding != LATE -> COPYING : holding);
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

/* Into k: whether nobody has said before that it is spoiled */
inline judge(c)
{
	k = (E[c].word != SPOILED);
	E[c].word = (E[c].word == RUNS -> COMPLETE : E[c].word)
}

/* the call has returned; what was forked in a handler leaves the ticket to what that has interrupted */
#define IS_INNER(c, t)	(c != t && E[t].word && !mutant(OWN_INNER_ENDS))
inline copied(c, t)
{
	judge(c);
	lives = k;
	E[c].word = 0;
	if
	:: holder == t && !IS_INNER(c, t) -> end_ticket()
	:: else
	fi
}

/* verify, copy, and the end of it, where nobody but the parent judges */
inline copy(c, t, domains)
{
	d_step { FREE -> try_copy(c, t, domains); skip };
	if
	:: d_step { E[c].result == GRANTED -> begin_copy(c, t, domains); skip };
		d_step {
			FREE -> copied(c, t);
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
