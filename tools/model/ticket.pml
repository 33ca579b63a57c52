/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * ticket.pml - tickets: prepare, expiry, a clone that verifies, a holder inside sections
 */
#define NT	4
#define NS	3

#define FORK_SIGNALS(t) \
	:: d_step { bounded && T[t].state != TICKET && T[t].state != COPYING -> \
		out = EAGAIN; leave_phase(t); skip }; \
	   break

#include "gate.pml"

bool libc;		/* a lock that clone's caller holds, like malloc's */

inline lock(x)
{
	d_step { !x -> x = true }
}

inline unlock(x)
{
	x = false
}

/* a section that needs libc, or enters the other domain */
proctype Section(byte t; byte d)
{
end:	do
	:: enter(t, d);
		if
		:: true -> lock(libc); unlock(libc)
		:: true -> enter(t, MF - d); leave(t, MF - d)
		fi;
		leave(t, d)
	:: break
	od
}

proctype Holder(byte t)
{
	byte out;
	bool bounded;
end:	do
	:: out = 0;
		d_step { T[t].ticket = true; begin_fork(t, F); skip };	/* prepare */
		wait_fork(t);
		if
		:: out -> skip
		:: else ->
			T[t].user = true;		/* its time runs */
			if
			:: true -> enter(t, M); leave(t, M)	/* an atfork handler */
			:: true
			fi;
			lock(libc);
			d_step {
				T[t].ticket = false;
				bounded = !mutant(CLONE_UNBOUNDED);
				begin_fork(t, MF);
				skip
			};
			if
			:: d_step { mutant(TICKET_TRUSTED) -> T[t].state = COPYING; check_exclusion(t); skip }
			:: !mutant(TICKET_TRUSTED) -> wait_fork(t)
			fi;
			bounded = false;
			if
			:: d_step { HAS_DOMAIN(t) && !mutant(TICKET_KEPT) -> leave_phase(t); skip }
			:: d_step { HAS_DOMAIN(t) && mutant(TICKET_KEPT) -> T[t].state = TICKET; skip }
			:: !HAS_DOMAIN(t)
			fi;
			unlock(libc)
		fi
	:: break
	od
}

proctype Forker(byte t; byte n)
{
	byte out;
	bool bounded;
end:	do
	:: fork(t, n)
	:: break
	od
}

/* tickets end some time after they were granted */
proctype Timer()
{
end:	do
	:: d_step { T[2].user -> leave_phase(2); skip }
	od
}

init {
	atomic {
		run Section(0, M);
		run Section(1, F);
		run Holder(2);
		run Forker(3, M);
		run Timer()
	}
}
