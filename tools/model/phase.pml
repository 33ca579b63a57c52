/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * phase.pml - phases: joining, the queue, forkers inside sections, circular waits
 */
#define NT	4
#define NS	3
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

/* polls for a ticket, and waits for it inside a section */
proctype Polls(byte t)
{
end:	do
	:: d_step { T[t].ticket = true; T[t].polled = true; begin_fork(t, M); skip };
		enter(t, F);
		T[t].state == TICKET;
		leave(t, F);
		d_step { leave_phase(t); skip }
	:: break
	od
}

/* brings it on */
proctype Worker(byte t)
{
	byte out;
end:	do
	:: d_step { T[t].polled && AWAKE(t) && !FENCED(t) -> fence_all(T[t].need); skip }
	:: atomic { T[t].polled && AWAKE(t) && FENCED(t) -> scan(t) }
	od
}

/* a queued one that enters a section is in the way of the phase until this yields */
proctype Timer()
{
end:	do
	:: d_step { MAY_YIELD && PATIENCE -> yield(); skip }
	od
}

init {
	atomic {
#ifdef POLLED
		run Polls(0);
		run Worker(0);
		run Timer();
		run Inside(1, F, F);
		run Inside(2, M, F)
#else
		run Inside(0, M, F);
		run Inside(1, F, MF);
		run Section(2, M);
		run Forker(3, M)
#endif
	}
}

ltl entries { []<> !ENTRY_WAITS(0) && []<> !ENTRY_WAITS(1) && []<> !ENTRY_WAITS(2) }
ltl forks { []<> !FORK_WAITS(0) && []<> !FORK_WAITS(1) && []<> !FORK_WAITS(3) }
