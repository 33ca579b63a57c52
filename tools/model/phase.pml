/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * phase.pml - phases: joining, the queue, forkers inside sections, circular waits
 */
#ifdef SEALED
#define NT	5
#define NS	2
#define PATIENCE	false
#else
#define NT	4
#define NS	3
#endif
#ifdef TIMES
#ifdef POLLED
#define LIMITED(t)	((t) == 0)
#else
#define LIMITED(t)	((t) == 3)
#endif
#endif
#include "gate.pml"

/* forks inside its section, or not at all */
proctype Inside(byte t; byte d; byte n)
{
	byte out;
end:	do
	:: enter(t, d);
		if
		:: true -> fork(t, n)
		:: true
		fi;
		leave(t, d)
	:: break
	od
}

proctype Section(byte t; byte d)
{
end:	do
	:: enter(t, d); leave(t, d)
	:: break
	od
}

proctype Forker(byte t; byte n)
{
	byte out;
end:	do
	:: fork(t, n)
	:: break
	od
}

inline poll(t)
{
	out = 0;
	d_step { begin_prepare(t, M, POLLS); skip };
	wait_fork(t)
}

/* is it worth while to call again? poll() says so */
#define POLLIN(t)	(T[t].state == TICKET || T[t].state == IDLE || T[t].driver == BY_NUDGE)

/* polls for a ticket, and waits for it inside a section */
proctype Polls(byte t)
{
	byte out;
end:	do
	:: poll(t);
		enter(t, F);
		if
		:: true -> leave(t, F); enter(t, F)
		:: true
		fi;
		do
		:: T[t].state == TICKET || T[t].state == IDLE -> break
		:: POLLIN(t) && FORK_WAITS(t) -> poll(t)
		od;
		leave(t, F);
		if
		:: d_step { T[t].state != IDLE -> drop(t); skip }
		:: T[t].state == IDLE
		fi
	:: break
	od
}

#if defined(POLLED) && !defined(TIMES)
/* a queued one that enters a section is in the way of the phase until this yields */
proctype Timer()
{
end:	do
	:: d_step { PATIENCE_ENDS -> patience_ends(); skip }
	od
}
#endif

init {
	atomic {
#ifdef POLLED
		run Polls(0);
#ifndef TIMES
		run Timer();
#endif
		run Inside(1, F, F);
		run Inside(2, M, F)
#elif defined(SEALED)	/* one that is queued inside a section joins when the seal is gone */
		run Inside(0, M, F);
		run Section(1, F);
		run Forker(2, F);
		run Forker(3, F);
		run Forker(4, M)
#else
		run Inside(0, M, F);
#ifdef STALL
		run Inside(1, F, F);
#else
		run Inside(1, F, MF);
#endif
		run Section(2, M);
		run Forker(3, M);
#endif
#ifdef TIMES
		run Times()
#endif
	}
}

ltl entries { []<> !ENTRY_WAITS(0) && []<> !ENTRY_WAITS(1) && []<> !ENTRY_WAITS(2) }
ltl forks { []<> !FORK_WAITS(0) && []<> !FORK_WAITS(1) && []<> !FORK_WAITS(3) }
