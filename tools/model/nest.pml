/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * nest.pml - both domains nested in both orders, forkers of different needs
 */
#define NT	4
#define NS	2
#define STEPWISE
#ifdef TIMES
#define LIMITED(t)	((t) == 3)
#endif
#include "gate.pml"

/* enters a, and inside a perhaps b */
proctype Section(byte t; byte a; byte b)
{
end:	do
	:: enter(t, a);
		if
		:: true -> enter(t, b); leave(t, b)
		:: true
		fi;
		leave(t, a)
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
		run Section(0, M, F);
		run Section(1, F, M);
		run Forker(2, MF);
		run Forker(3, M);
#ifdef TIMES
		run Times()
#endif
	}
}

ltl entries { []<> !ENTRY_WAITS(0) && []<> !ENTRY_WAITS(1) }
ltl forks { []<> !FORK_WAITS(2) && []<> !FORK_WAITS(3) }
