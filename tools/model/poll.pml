/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * poll.pml - a phase in which no forker sleeps
 */
#define NT	3
#define NS	1

#ifdef TIMES	/* a place also ends though its thread was not told to call */
#define LIMITED(t)	true
#endif

/* a signal interrupts the call; it is restarted when the handler returns, or never */
#define FORK_SIGNALS(t) \
	:: d_step { \
		FORK_WAITS(t) && !out && !ANY(IS_RELEASED) -> \
			T[t].driver = BY_POLL; \
			T[t].deadline = LIMITED(t); \
			if \
			:: !mutant(INTERRUPT_SILENT) -> phase_run() \
			:: else \
			fi; \
			out = EAGAIN \
	   }; \
	   break

#include "gate.pml"

bool away[NT];		/* that thread does not call any more, nor does its handler return */

proctype Section(byte t)
{
end:	do
	:: enter(t, F); leave(t, F)
	:: break
	od
}

#define POLLIN(t)	(T[t].state == TICKET || T[t].state == IDLE || T[t].driver == BY_NUDGE)

proctype Poller(byte t)
{
	byte out;
end:	do
	:: out = 0;
		d_step { begin_prepare(t, F, POLLS); skip };
		wait_fork(t);
		do
		:: out == EAGAIN && T[t].state == IDLE -> break		/* it has expired */
		:: out == EAGAIN && POLLIN(t) && T[t].state != IDLE ->
			out = 0;
			d_step { begin_prepare(t, F, POLLS); skip };
			wait_fork(t)
		:: out == EAGAIN && T[t].state != IDLE && !away[3 - t] -> away[t] = true; goto gone
		:: !out -> break
		od;
		if
		:: d_step { HAS_DOMAIN(t) -> drop(t); skip }
		:: else
		fi
	:: break
	od;
gone:	skip
}

/* a ticket, or a place, ends some time after it was granted, or told */
proctype Timer()
{
end:	do
	:: d_step { T[1].deadline -> expire(1); skip }
	:: d_step { T[2].deadline -> expire(2); skip }
	:: d_step { PATIENCE_ENDS -> patience_ends(); skip }
	od
}

init {
	atomic {
		run Section(0);
		run Poller(1);
		run Poller(2);
		run Timer()
	}
}
