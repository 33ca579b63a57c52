/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * live.pml - neither side starves (weak fairness)
 */
#ifndef CASE
#define CASE	1
#endif

#define NT	4
#define NS	2
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

proctype Forker(byte t; byte n)
{
	byte out;
end:	do
	:: fork(t, n)
	:: break
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
#else			/* forkers that join because they are inside the other domain */
		run Inside(0, M, F);
		run Inside(1, M, F);
		run Forker(2, MF)
#endif
	}
}

ltl entries { []<> !ENTRY_WAITS(0) && []<> !ENTRY_WAITS(1) }
ltl forks { []<> !FORK_WAITS(2) && []<> !FORK_WAITS(3) }
