/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * live.pml - neither side starves (weak fairness)
 */
#ifndef CASE
#define CASE	1
#endif

#define NT	4
#if CASE == 4 || CASE >= 6
#define NS	3
#else
#define NS	2
#endif
#include "gate.pml"

proctype Section(byte t; byte a; byte b)
{
end:	do
	:: enter(t, a);
		if
		:: b -> enter(t, b); leave(t, b)
		:: else
		fi;
		leave(t, a)
	:: break
	od
}

/* forks inside its section */
proctype Inside(byte t; byte d; byte n)
{
	byte out;
end:	do
	:: enter(t, d);	fork(t, n); leave(t, d)
	:: break
	od
}

/* forks again and again inside its section */
proctype Stays(byte t; byte d; byte n)
{
	byte out;
	enter(t, d);
end:	do
	:: fork(t, n)
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

/* takes tickets, and gives them back */
proctype Prepares(byte t; byte N)
{
	byte out;
end:	do
	:: d_step { begin_prepare(t, N, PREPARES); skip };
		wait_fork(t);
		if
		:: d_step { HAS_DOMAIN(t) -> drop(t); skip }
		:: else
		fi
	:: break
	od
}

proctype Timer()
{
end:	do
	:: d_step { PATIENCE_ENDS -> patience_ends(); skip }
	od
}

init {
	atomic {
#if CASE == 1		/* newcomers and forkers without end */
		run Section(0, M, 0);
		run Section(1, M, 0);
		run Forker(2, M);
		run Forker(3, M)
#elif CASE == 2		/* into the drained domain through the other one */
		run Section(0, M, F);
		run Section(1, M, F);
		run Forker(2, F)
#elif CASE == 3		/* forkers that join because they are inside the other domain */
		run Inside(0, M, F);
		run Inside(1, M, F);
		run Forker(2, MF)
#elif CASE == 4		/* the same, three of them */
		run Inside(0, M, F);
		run Inside(1, M, F);
		run Inside(2, M, F);
		run Forker(3, M)
#elif CASE == 5		/* the same, and a ticket */
		run Inside(0, M, F);
		run Inside(1, M, F);
		run Prepares(2, F)
#elif CASE == 6		/* forks without end inside two sections that a fork waits for */
		run Stays(0, M, F);
		run Stays(1, M, F);
		run Section(2, F, 0);
		run Forker(3, M);
		run Timer()
#elif CASE == 7		/* the same, and no fork waits for the sections */
		run Stays(0, M, F);
		run Stays(1, M, F);
		run Section(2, F, 0)
#endif
	}
}

ltl entries { []<> !ENTRY_WAITS(0) && []<> !ENTRY_WAITS(1) && []<> !ENTRY_WAITS(2) }
ltl forks { []<> !FORK_WAITS(2) && []<> !FORK_WAITS(3) }
