/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * own-signal.pml - the library's own gate: a signal handler that enters or forks, between any two steps of its thread
 */
#define NT	3
#define NC	4
#define HANDLER	3		/* in thread 0 */
bool handling;
#ifndef NO_LOSS
#define LOST(t)	(handling && t == 0 && T[t].asker == t)
#endif
#include "own.pml"

active proctype Interrupted() provided (!handling)
{
end:	do
	:: enter(0, M);
#ifdef INSIDES
		prepare(0, 0, M);
		if
		:: E[0].result == GRANTED -> copy(0, 0, M)
		:: else -> E[0].result = WAITS
		fi;
#endif
		leave(0, M)
#ifdef FORKS
	:: prepare(0, 0, M);
		if
		:: E[0].result == GRANTED -> copy(0, 0, M)
		:: else -> E[0].result = WAITS
		fi
#endif
	:: break
	od
}

/* A C library blocks signals around the clone. */
active proctype Handler()
{
end:	do
	:: d_step { !handling && !E[0].copies -> handling = true };
		if
		:: enter_counts(0, M);
			enter_looks(HANDLER, 0, M);
			leave_counts(HANDLER, 0, M);
			leave_looks(0, M)
		:: prepare(HANDLER, 0, M);
			if
			:: E[HANDLER].result == GRANTED -> copy(HANDLER, 0, M)
			:: else -> E[HANDLER].result = WAITS
			fi
		fi;
		handling = false
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

/* also inside its section */
active proctype Other()
{
	bool in;
end:	do
	:: if
	   :: enter(2, M); in = true
	   :: true
	   fi;
		prepare(2, 2, M);
		if
		:: E[2].result == GRANTED -> copy(2, 2, M)
		:: else -> E[2].result = WAITS
		fi;
	   if
	   :: in -> leave(2, M); in = false
	   :: else
	   fi
	:: break
	od
}

init { run Clock() }
