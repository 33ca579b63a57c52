/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * ticket.pml - tickets: prepare, expiry, a clone that verifies, a holder inside sections
 */
#define NT	4
#define NS	3

#define FORK_SIGNALS(t) \
	:: d_step { bounded && T[t].state != TICKET && T[t].state != COPYING -> \
		out = EAGAIN; leave_phase(t); skip }; \
	   break

#ifdef POLL
bool reopened;		/* since the worker's fence began */
#define opened()	reopened = fencing_worker
bool fencing_worker;
#endif

#include "gate.pml"

#ifdef LIVE	/* who takes a lock again and again starves others without the gate's help */
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

/* a clone after a prepare: it verifies, but holds libc's locks and must not wait for ever */
inline prepared_clone(t, n)
{
	d_step {
		T[t].ticket = false;
		T[t].polled = false;
		bounded = !mutant(CLONE_UNBOUNDED);
		begin_fork(t, n);
		skip
	};
	if
	:: d_step { mutant(TICKET_TRUSTED) -> T[t].state = COPYING; check_exclusion(t); skip }
	:: !mutant(TICKET_TRUSTED) -> wait_fork(t)
	fi;
	bounded = false;
	if
	:: d_step { HAS_DOMAIN(t) && !mutant(TICKET_KEPT) -> leave_phase(t); skip }
	:: d_step { HAS_DOMAIN(t) && mutant(TICKET_KEPT) -> T[t].state = TICKET; skip }
	:: !HAS_DOMAIN(t)
	fi
}

/* takes a ticket for files, runs an atfork handler that enters a section, copies both */
proctype Holder(byte t)
{
	byte out;
	bool bounded;
end:	do
	:: d_step { out = 0; T[t].ticket = true; begin_fork(t, F); skip };
		wait_fork(t);
		if
		:: out
		:: !out ->
			T[t].user = true;	/* from now on it may expire */
			if
			:: true -> enter(t, M); leave(t, M)
			:: true
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
	byte out;
	bool bounded;
end:	do
	:: d_step { T[t].ticket = true; T[t].polled = true; begin_fork(t, F); skip };
		do
		:: FORK_WAITS(t) -> enter(t, M); leave(t, M)
		:: d_step { T[t].state == TICKET -> T[t].polled = false; T[t].user = true }; break
		:: d_step { FORK_WAITS(t) -> leave_phase(t); skip }; break	/* gives up */
		:: T[t].state == IDLE -> break		/* timed out, or expired unseen */
		od;
		lock(libc);
		prepared_clone(t, MF);
		unlock(libc)
	:: break
	od
}

#ifdef POLL
/*
 * brings polled tickets on: F3 and F4 without the thread. The gate may open and
 * close while it is in F3.
 */
proctype Worker(byte t)
{
	byte out, domains;
	bool bounded;
end:	do
	:: d_step {
		T[t].polled && AWAKE(t) && !FENCED(t) ->
			domains = closed;
			fencing_worker = true;
			fence_all(0)
	   };
	   d_step {
		fenced = (reopened && !mutant(FENCE_UNCHECKED) -> fenced : fenced | (domains & closed));
		domains = 0;
		reopened = false;
		fencing_worker = false
	   }
	:: atomic { T[t].polled && AWAKE(t) && FENCED(t) -> scan(t) }
	od
}
#endif

/* takes a ticket for what it copies, or does not */
proctype Forker(byte t; byte n)
{
	byte out;
	bool bounded;
end:	do
	:: fork(t, n)
#ifdef TWO
	:: d_step { out = 0; T[t].ticket = true; begin_fork(t, n); skip };
		wait_fork(t);
		T[t].user = true;
		prepared_clone(t, n)
#endif
	:: break
	od
}

/* a ticket ends some time after it was granted, if its thread is in user mode */
proctype Timer()
{
end:	do
	:: d_step { T[2].user || (T[2].polled && T[2].state != IDLE) -> leave_phase(2); skip }
	:: d_step { T[3].user -> leave_phase(3); skip }
	od
}

init {
	atomic {
		run Section(0, M);
#if !defined(POLL) && !defined(TWO) && !defined(LIVE)
		run Section(1, F);
#endif
#ifdef POLL
		run Poller(2);
		run Worker(2);
#else
		run Holder(2);
#endif
		run Forker(3, M);
		run Timer()
	}
}

ltl entries { []<> !ENTRY_WAITS(0) && []<> !ENTRY_WAITS(2) }
ltl forks { []<> !FORK_WAITS(2) && []<> !FORK_WAITS(3) }
