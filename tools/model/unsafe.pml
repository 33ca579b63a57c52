/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * unsafe.pml - the policy that goes ahead: copies that were not granted, beside others that were
 */
#define NT	3
#define NS	2

#define UNSAFE(t)	unsafe[t]
#define PROCEEDS

bool unsafe[NT];	/* it copies, though it was not granted */
bool past[NT];		/* FG_PAST_UNSAFE: its prepare, or its clone that is restarted, has gone ahead */
bool waited[NT];	/* what it goes ahead with has waited in vain, or would have waited in a circle */
hidden byte asked, told, clean;

#define FORK_SIGNALS(t) \
	:: d_step { bounded && TIME_OUT(t) }

#include "gate.pml"

/* fg_phase_force(): it bars others, as a granted copy does, if it is in the phase */
inline force(t)
{
	if
	:: T[t].state == QUEUED && !mutant(UNSAFE_KEEPS_PLACE) -> leave_phase(t)
	:: T[t].state == DRAINING ->
		T[t].state = COPYING;
		T[t].edge = 0;
		joining = (joining == JOIN_ALL -> JOIN_INSIDE : joining)
	:: else
	fi;
	unsafe[t] = true
}

/* one that only tries, or finds its ticket expired, has to prepare (again) */
#define FAILS(t)	(!past[t] && ((tries && !mutant(TRIES_UNSAFE)) || (prepared && out == ETIMEDOUT)))

/* fg_fork_refuse() of a clone, fg_ticket_failed() of a prepare */
inline refuse(t)
{
	if
	:: T[t].kind == CLONES && HAS_DOMAIN(t) && !mutant(GRANT_CALLED_UNSAFE) ->
		out = 0		/* since its wait was over */
	:: T[t].kind == CLONES && !(HAS_DOMAIN(t) && !mutant(GRANT_CALLED_UNSAFE)) ->
		if
		:: FAILS(t) -> leave_phase(t)
		:: else ->
			waited[t] = waited[t] || !past[t];
			asked = waited[t] && !tries;
			assert(asked);
			past[t] = true;
			marked = !mutant(UNSAFE_UNTOLD);
			if
			:: !HAS_DOMAIN(t) -> force(t)
			:: else
			fi;
			out = 0
		fi;
		phase_run()
	:: T[t].kind != CLONES ->
		waited[t] = true;
		past[t] = true;
		if
		:: T[t].state != IDLE -> leave_phase(t)
		:: else
		fi;
		out = 0;
		phase_run()
	fi
}

/* a clone; a signal may interrupt its copy, which is made again */
inline clone(t, N)
{
	d_step { bounded = bounded || past[t] || prepared || tries; begin_fork(t, N); skip };
	do
	:: wait_fork(t);
		if
		:: d_step { HAS_DOMAIN(t) || unsafe[t] ->	/* the copy is complete */
			told = marked == unsafe[t];
			assert(told);
			unsafe[t] = false;
			if
			:: HAS_DOMAIN(t) -> drop(t)
			:: else
			fi;
			census();
			clean = T[t].state == IDLE && (phase || (!closed && !strict && !domain[0] && !domain[1]));
			assert(clean);
			skip }; break
#ifndef CIRCLE
		:: d_step { HAS_DOMAIN(t) || unsafe[t] ->
			bounded = bounded || unsafe[t];
			unsafe[t] = false;
			marked = mutant(MARK_STAYS) && marked;
			if
			:: HAS_DOMAIN(t) -> hold(t)
			:: else
			fi;
			skip };
			d_step { begin_fork(t, N); skip }
#endif
		:: !HAS_DOMAIN(t) && !unsafe[t] -> break
		fi
	od;
	skip;
	d_step {
		past[t] = mutant(PAST_STAYS) && past[t];
		waited[t] = false;
		marked = false;
		tries = false;
		prepared = false;
		bounded = false
	}
}

proctype Section(byte t; byte d)
{
end:	do
	:: enter(t, d); leave(t, d)
	:: break
	od
}

/* forks with a limit or without, only tries to, or prepares first and enters a section */
proctype Forker(byte t; byte n; byte p)
{
	byte out;
	bool bounded, prepared, tries, marked;
end:	do
	:: clone(t, n)
	:: bounded = true; clone(t, n)
	:: !p -> tries = true; clone(t, n)
	:: p ->
		if
		:: bounded = true
		:: true
		fi;
		d_step { begin_prepare(t, p, PREPARES); skip };
		wait_fork(t);
		if
		:: d_step { !out -> bounded = false; prepared = !past[t] }; enter(t, M); leave(t, M); clone(t, n)
		:: out -> bounded = false
		fi
	:: break
	od
}

#ifdef CIRCLE
/* forks inside its section */
proctype Inside(byte t; byte d; byte n)
{
	byte out;
	bool bounded, prepared, tries, marked;
end:	do
	:: enter(t, d);
		if
		:: clone(t, n)
		:: bounded = true; clone(t, n)
		fi;
		leave(t, d)
	:: break
	od
}
#endif

/* a ticket, or a place, ends some time after it was granted */
proctype Timer()
{
end:	do
	:: d_step { T[1].deadline -> expire(1); skip }
	:: d_step { T[2].deadline -> expire(2); skip }
	od
}

init {
	atomic {
#ifdef CIRCLE
		run Inside(0, M, F);
		run Inside(1, F, M);
		run Forker(2, F, 0);
#else
		run Section(0, M);
		run Forker(1, M, M);
		run Forker(2, MF, 0);
#endif
		run Timer()
	}
}
