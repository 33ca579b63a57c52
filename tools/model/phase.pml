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

init {
	atomic {
		run Inside(0, M, F);
		run Inside(1, F, MF);
		run Section(2, M);
		run Forker(3, M)
	}
}

ltl entries { []<> !ENTRY_WAITS(0) && []<> !ENTRY_WAITS(1) && []<> !ENTRY_WAITS(2) }
ltl forks { []<> !FORK_WAITS(0) && []<> !FORK_WAITS(1) && []<> !FORK_WAITS(3) }
