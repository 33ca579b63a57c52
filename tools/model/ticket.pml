/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * ticket.pml - tickets: prepare, expiry, a clone that verifies, a holder inside sections
 */
#define NT	4
#define NS	3

#define FORK_SIGNALS(t) \
	:: d_step { (bounded || LIMITED(t)) && TIME_OUT(t) }

#ifdef TIMES
#define LIMITED(t)	((t) == 2)
#endif

#ifdef POLL	/* the gate may open and close while a thread is in F3 */
bool fencing;		/* gate->fence_mutex */
bool reopened;		/* since then */
#define REOPENS
#define opened()	reopened = fencing
#define FENCES(t)	(T[t].state == DRAINING && (domain[0] == FENCING || domain[1] == FENCING))
#define FENCE(t) \
	:: d_step { \
		FENCES(t) && T[t].asleep == 0 && !ANY(IS_RELEASED) && !fencing -> \
			fencing = true; \
			domains = MASK(domain[0] == FENCING, domain[1] == FENCING); \
			fence_all() \
	   }; \
	   d_step { \
		if \
		:: !reopened || mutant(FENCE_UNCHECKED) -> \
			domain[0] = (domains & M && domain[0] == FENCING -> SCANNING : domain[0]); \
			domain[1] = (domains & F && domain[1] == FENCING -> SCANNING : domain[1]) \
		:: else \
		fi; \
		domains = 0; \
		reopened = false; \
		fencing = false \
	   }
#endif

#include "gate.pml"

#ifdef LIVE	/* a thread that takes a lock again and again starves others without the gate's help */
#define lock(x)		skip
#define unlock(x)	skip
#else
bool libc;		/* a lock that clone's caller holds, like malloc's */

inline lock(x)
{
	d_step { !x -> x = true }
}

inline unlock(x)
{
	x = false
}
#endif

/* a section that needs libc, or enters the other domain */
proctype Section(byte t; byte d)
{
end:	do
	:: enter(t, d);
		if
		:: true -> lock(libc); unlock(libc)
		:: true -> enter(t, MF - d); leave(t, MF - d)
		fi;
		leave(t, d)
	:: break
	od
}

/* a clone after a prepare: it verifies, but holds libc's locks and must not wait without end */
inline prepared_clone(t, n)
{
	d_step { bounded = !mutant(CLONE_UNBOUNDED); begin_fork(t, n); skip };
	wait_fork(t);
	bounded = false;
	if
	:: d_step { HAS_DOMAIN(t) && !mutant(TICKET_KEPT) -> drop(t); skip }
	:: d_step { HAS_DOMAIN(t) && mutant(TICKET_KEPT) -> T[t].state = TICKET; skip }
	:: !HAS_DOMAIN(t)
	fi
}

/* takes a ticket for files, runs an atfork handler that enters a section, copies both */
proctype Holder(byte t)
{
	byte out, domains;
	bool bounded;
end:	do
	:: d_step { begin_prepare(t, F, PREPARES); skip };
		wait_fork(t);
		if
		:: out
		:: !out ->
			if
			:: true -> enter(t, M); leave(t, M)
			:: true
#ifdef WIDER
			:: d_step { begin_prepare(t, MF, PREPARES); skip };
				wait_fork(t)
#endif
			fi;
			lock(libc);
			prepared_clone(t, MF);
			unlock(libc)
		fi
	:: break
	od
}

/* polls for its ticket and goes on with its work meanwhile */
proctype Poller(byte t)
{
	byte out, domains;
	bool bounded;
end:	do
	:: do
		:: T[t].state == IDLE || T[t].state == TICKET || T[t].driver == BY_NUDGE ->
			d_step { begin_prepare(t, F, POLLS); skip };
			wait_fork(t);
			if
			:: !out -> break
			:: out
			fi
		:: FORK_WAITS(t) -> enter(t, M); leave(t, M)
		:: d_step { FORK_WAITS(t) -> drop(t); skip }; break	/* gives up */
		od;
		out = 0;
		lock(libc);
		prepared_clone(t, MF);
		unlock(libc)
	:: break
	od
}

/* takes a ticket for what it copies, or does not */
proctype Forker(byte t; byte n)
{
	byte out, domains;
	bool bounded;
end:	do
	:: fork(t, n)
#ifdef POLL
	:: bounded = true; fork(t, n); bounded = false
#endif
#ifdef TWO
	:: d_step { begin_prepare(t, n, PREPARES); skip };
		wait_fork(t);
		prepared_clone(t, n)
#endif
	:: break
	od
}

/* a ticket, or a place, ends some time after it was granted */
proctype Timer()
{
end:	do
	:: d_step { T[2].deadline -> expire(2); skip }
	:: d_step { T[3].deadline -> expire(3); skip }
	od
}

init {
	atomic {
		run Section(0, M);
#if !defined(POLL) && !defined(TIMES) && !defined(TWO) && !defined(LIVE) && !defined(WIDER)
		run Section(1, F);
#endif
#ifdef POLL
		run Poller(2);
#else
		run Holder(2);
#endif
		run Forker(3, M);
#ifdef TIMES
		run Times()
#else
		run Timer()
#endif
	}
}

ltl entries { []<> !ENTRY_WAITS(0) && []<> !ENTRY_WAITS(2) }
ltl forks { []<> !FORK_WAITS(2) && []<> !FORK_WAITS(3) }
