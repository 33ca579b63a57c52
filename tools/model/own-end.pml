/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * own-end.pml - the library's own gate: threads that end inside sections, blocked, or with a ticket, and new ones in their slots
 */
#define NT	3
#define NC	3
#define LOST(t)	T[t].ended
#include "own.pml"

/* do_register() in the memory of a thread that has ended */
inline register(t)
{
	d_step {
		T[t].ended = false;
		forget(t);
		skip
	}
}

/* A sleeping fork looks at times whether whom it waits for has ended. */
inline ends(t)
{
	d_step {
		T[t].ended = true;
		T[t].woken = false;
		E[t].result = WAITS;
		wake_forks()
	}
}

active proctype Mortal()
{
end:	do
	:: enter(0, M);
		if
		:: leave(0, M)
		:: ends(0); if :: register(0) :: break fi
		fi
	:: prepare(0, 0, M);
		if
		:: E[0].result == GRANTED ->
			if
			:: copy(0, 0, M)
			:: ends(0); if :: register(0) :: break fi
			fi
		:: else -> E[0].result = WAITS
		fi
	/* polls, and ends */
	:: poll(0, 0, M);
		if
		:: E[0].result == GRANTED -> copy(0, 0, M)
		:: E[0].result == EDEADLK -> E[0].result = WAITS
		:: else -> ends(0); if :: register(0) :: break fi
		fi
	:: break
	od
}

active proctype Section()
{
end:	do
	:: enter(1, M); leave(1, M)
	:: break
	od
}

active proctype Other()
{
end:	do
	:: prepare(2, 2, M);
		if
		:: E[2].result == GRANTED -> copy(2, 2, M)
		:: else -> E[2].result = WAITS
		fi
	:: break
	od
}

init { run Clock() }
