/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * life.pml - threads that go away, clones that fail or time out, the child
 */
#define NT	4
#define NS	3

#define FORK_SIGNALS(t) \
	:: d_step { (bounded || LIMITED(t)) && TIME_OUT(t) }

#ifdef TIMES
#define LIMITED(t)	((t) == 2)
#endif
#include "gate.pml"

bool killed[3];
hidden byte child_open;	/* the gate of a child that has just been born is */

/* EXIT, EXEC: t is gone, wherever it was */
inline gone(t)
{
	T[t].really[0] = 0;
	T[t].really[1] = 0;
	T[t].depth[0] = (mutant(EXIT_KEEPS) -> T[t].depth[0] : 0);
	T[t].depth[1] = 0;
	T[t].levels[0] = 0;
	T[t].levels[1] = 0;
	T[t].entry = 0;
	T[t].nested = false;
	barrier(t);
	if
	:: T[t].state != IDLE && !mutant(EXIT_KEEPS_TICKET) -> leave_phase(t)
	:: else
	fi;
	slot_left(t);
	phase_run()
}

proctype Section(byte t)
{
	{
end:		do
		:: enter(t, M); leave(t, M)
		:: break
		od
	} unless { d_step { killed[t] -> gone(t); skip } }
}

/*
 * prepares, enters a section, and gives the ticket back; or its clone fails at F1
 * and gives it back, which is the same step
 */
proctype Holder(byte t)
{
	byte out;
	bool bounded;
	{
end:		do
		:: d_step { begin_prepare(t, MF, PREPARES); skip };
			wait_fork(t);
			if
			:: out
			:: !out -> enter(t, M); leave(t, M); d_step { drop(t); skip }
			fi
		:: break
		od
	} unless { d_step { killed[t] -> gone(t); skip } }
}

/* its clone may fail, its wait may time out */
proctype Forker(byte t; byte n)
{
	byte out;
	bool bounded;
end:	do
	:: if
		:: bounded = false
		:: bounded = true
		fi;
		d_step { begin_fork(t, n); skip };
		wait_fork(t);
		if
		:: d_step { HAS_DOMAIN(t) -> 	/* the copy is complete, the child runs */
			child_open = !(mutant(CHILD_INHERITS) && closed);
			assert(child_open);
			drop(t);
			skip }
		:: d_step { HAS_DOMAIN(t) && !mutant(FAILURE_KEEPS) -> drop(t); skip }
		:: HAS_DOMAIN(t) && mutant(FAILURE_KEEPS)
		:: !HAS_DOMAIN(t)
		fi
	:: break
	od
}

/* SIGKILL, exit, exec */
proctype Killer()
{
	if
	:: killed[0] = true
	:: true
	fi;
	if
	:: killed[2] = true
	:: true
	fi
}

init {
	atomic {
		run Section(0);
#ifndef TIMES
		run Section(1);
#endif
		run Holder(2);
		run Forker(3, MF);
#ifdef TIMES
		run Times();
#endif
		run Killer()
	}
}
